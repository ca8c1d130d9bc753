"""Well-meant files of every format open, with the same answers as the model that was saved."""

from __future__ import annotations

import json
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from torchbands import zoo
from torchbands.core.attack import Victim
from torchbands.core.errors import InputError, Unsupported
from torchbands.modalities.image import Image
from torchbands.networks import ResNetNetwork
from torchbands.scanner.opening import Limits, open_suspect

IMAGE = Image(channels=3, size=16)
ARCH = '{"name": "resnet", "params": {"depth": 8, "shortcut": "pad"}}'
X = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A small ResNet with seven classes, batch statistics that are not the defaults, and no normalisation."""
    torch.manual_seed(0)
    made = ResNetNetwork(depth=8, shortcut="pad").build(IMAGE, 7)
    made(X)
    with torch.no_grad():
        made.normalize.mean.zero_()  # type: ignore[union-attr]
        made.normalize.std.fill_(1.0)  # type: ignore[union-attr]
    return made.eval()


def weights(net: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Its state dict as other makers save it."""
    return {prefix + k: v.clone() for k, v in net.state_dict().items() if not k.startswith("normalize")}


def logits(net: nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        out: Tensor = net(x)
    return out


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4)


def test_safetensors_and_what_it_costs(net: nn.Module, tmp_path: Path) -> None:
    save_file(weights(net), tmp_path / "model.bin")  # the name says nothing
    start = time.monotonic()
    suspect = open_suspect(tmp_path / "model.bin", arch=ARCH, modality=IMAGE)
    assert time.monotonic() - start < 10
    assert suspect.format == "safetensors" and suspect.alerts == () and len(suspect.sha256) == 64
    assert suspect.model is not None and suspect.model.classes == 7
    assert close(suspect.model.logits(X), logits(net))
    assert suspect.facts["normalisation"] == "none" and suspect.facts["weights_matched"] == "by name"
    json.dumps(suspect.subject().facts)


def test_normalisation_goes_inside(net: nn.Module, tmp_path: Path) -> None:
    save_file(weights(net), tmp_path / "m.safetensors")
    suspect = open_suspect(
        tmp_path / "m.safetensors", arch=ARCH, modality=IMAGE, mean=(0.4, 0.5, 0.6), std=0.2, classes=7
    )
    mean = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    assert suspect.model is not None and close(suspect.model.logits(X), logits(net, (X - mean) / 0.2))
    save_file(dict(net.state_dict()), tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="its own normalisation"):
        open_suspect(tmp_path / "own.safetensors", arch=ARCH, modality=IMAGE, mean=0.5)


@pytest.mark.parametrize("kind", ["zip", "legacy", "nested"])
def test_state_dicts_of_torch(net: nn.Module, tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / "m.safetensors", weights(net, "module.")  # named after another format
    content = {"epoch": 3, "state_dict": OrderedDict(state)} if kind == "nested" else state
    torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    suspect = open_suspect(path, arch=ARCH, modality=IMAGE)
    assert suspect.format == ("torch-legacy" if kind == "legacy" else "torch") and suspect.alerts == ()
    assert suspect.model is not None and close(suspect.model.logits(X), logits(net))
    assert "module." in suspect.facts["weights_matched"]


def test_other_names_in_the_same_order(net: nn.Module, tmp_path: Path) -> None:
    renamed = {f"part{k.replace('conv', 'c').replace('layer', 'stage')}": v for k, v in weights(net).items()}
    torch.save(renamed, tmp_path / "m.pt")
    suspect = open_suspect(tmp_path / "m.pt", arch=ARCH, modality=IMAGE)
    assert suspect.facts["weights_matched"] == "by order and shape"
    assert suspect.model is not None and close(suspect.model.logits(X), logits(net))
    swapped = dict(reversed(renamed.items()))
    torch.save(swapped, tmp_path / "swapped.pt")
    with pytest.raises(InputError, match="do not fit"):
        open_suspect(tmp_path / "swapped.pt", arch=ARCH, modality=IMAGE)


def test_torchscript_gives_its_weights_and_is_not_run(net: nn.Module, tmp_path: Path) -> None:
    torch.jit.trace(net, X).save(tmp_path / "script.pt")
    suspect = open_suspect(tmp_path / "script.pt", arch=ARCH, modality=IMAGE)
    assert suspect.format == "torchscript" and "not run" in suspect.facts["torchscript"]
    assert suspect.model is not None and close(suspect.model.logits(X), logits(net))


def test_a_pickled_module_is_refused_and_read_without_running_it(net: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("fickling")
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(Unsupported, match="whole pickled object") as refused:
        open_suspect(tmp_path / "whole.pt", arch=ARCH, modality=IMAGE)
    assert "torch.save(model.state_dict()" in refused.value.hint and "--allow-pickle" in refused.value.hint
    suspect = open_suspect(tmp_path / "whole.pt", arch=ARCH, modality=IMAGE, allow_pickle=True)
    assert suspect.model is not None and close(suspect.model.logits(X), logits(net))
    assert suspect.alerts[0].level == "low" and suspect.facts["fickling"]["severity"] == "LIKELY_UNSAFE"


def test_a_victim_directory_without_its_label(planted_victim: Victim, tmp_path: Path) -> None:
    zoo.save(planted_victim, tmp_path / "v")
    suspect = open_suspect(tmp_path / "v")
    assert suspect.format == "torchbands" and suspect.model is not None
    x = planted_victim.task.modality.random(4, torch.Generator().manual_seed(0))
    assert torch.allclose(suspect.model.logits(x), planted_victim.model.logits(x), atol=1e-3)
    assert suspect.facts["task"] == planted_victim.task.spec()
    assert "backdoored" not in json.dumps(suspect.facts) and "badnets" not in json.dumps(suspect.facts)


def test_a_factory_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    source = (
        "from torch import nn\ndef make(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, classes))\n"
    )
    (mine / "user_net.py").write_text(source)
    (theirs / "their_net.py").write_text(source)
    monkeypatch.syspath_prepend(mine)
    monkeypatch.syspath_prepend(theirs)
    save_file({"1.weight": torch.ones(4, 768), "1.bias": torch.arange(4.0)}, theirs / "m.safetensors")
    suspect = open_suspect(theirs / "m.safetensors", arch="user_net:make", modality=IMAGE, mean=0.5, std=0.5)
    assert suspect.model is not None and suspect.model.classes == 4
    expected = ((X - 0.5) / 0.5).flatten(1).sum(1, keepdim=True) + torch.arange(4.0)
    assert torch.allclose(suspect.model.logits(X), expected, atol=1e-3)
    with pytest.raises(InputError, match="suspect's folder|beside the suspect"):
        open_suspect(theirs / "m.safetensors", arch="their_net:make", modality=IMAGE)
    assert "their_net" not in sys.modules
    with pytest.raises(InputError, match="has no 'nothing'"):
        open_suspect(theirs / "m.safetensors", arch="user_net:nothing", modality=IMAGE)


def test_errors_say_what_to_type(net: nn.Module, tmp_path: Path) -> None:
    save_file(weights(net), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="known names: .*resnet.*") as caught:
        open_suspect(tmp_path / "m.safetensors")
    assert "--arch" in caught.value.hint
    with pytest.raises(InputError, match="modality"):
        open_suspect(tmp_path / "m.safetensors", arch=ARCH)
    with pytest.raises(InputError, match="the weights do not fit .*missing .*layer1.1.conv1.weight"):
        open_suspect(tmp_path / "m.safetensors", arch='{"name": "resnet", "params": {"depth": 14}}', modality=IMAGE)
    with pytest.raises(InputError, match="for \\[7\\] classes, given: 10"):
        open_suspect(tmp_path / "m.safetensors", arch=ARCH, modality=IMAGE, classes=10)
    with pytest.raises(InputError, match="of another shape .'layer3.0.conv1.weight' is .64, 32, 3, 3., expected"):
        arch = '{"name": "resnet", "params": {"depth": 8, "shortcut": "pad", "widths": [16, 32, 32]}}'
        open_suspect(tmp_path / "m.safetensors", arch=arch, modality=IMAGE)
    with pytest.raises(InputError, match="limit is 1 MB"):
        (tmp_path / "big").write_bytes(bytes(2 << 20))
        open_suspect(tmp_path / "big", limits=Limits(megabytes=1))


def test_a_misfit_is_told_without_the_prefix_that_all_names_share(net: nn.Module, tmp_path: Path) -> None:
    torch.save(weights(net, "module."), tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        open_suspect(tmp_path / "m.pt", arch=ARCH.replace("pad", "conv"), modality=IMAGE)
    told = caught.value.message
    assert "missing ('layer2.0.shortcut.0.weight'" in told and "unexpected" not in told and "module." not in told
    assert "bands show resnet" in caught.value.hint


def test_ten_million_classes_build_nothing(tmp_path: Path) -> None:
    arch = '{"name": "resnet", "params": {"depth": 8, "widths": [1, 1, 1], "shortcut": "pad"}}'
    state = weights(ResNetNetwork(depth=8, widths=(1, 1, 1), shortcut="pad").build(IMAGE, 2))
    state |= {k: v.new_zeros(10_000_000, *v.shape[1:]).half() for k, v in state.items() if k.startswith("linear")}
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="10,000,000 classes"):
        open_suspect(tmp_path / "m.safetensors", arch=arch, modality=IMAGE)
