"""References of networks with attention and bare parameters: built anew by their own maker, behind the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torchbands.cli import main
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.reinitialize import redraw
from torchbands.core.seeding import seeded
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize
from torchbands.scanner.opening import Suspect, open_suspect
from torchbands.scanner.untrained import untrained_like

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.full((1, 1, 16), 0.5))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1))[:, 0])
"""


def own(folder: Path) -> tuple[str, nn.Module]:
    """A factory of one's own in a file, and a trained module of it."""
    scope: dict[str, type[nn.Module]] = {}
    (folder / "own.py").write_text(OWN)
    exec(OWN, scope)
    module = scope["Net"]()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.25)
    return f"{folder / 'own.py'}:Net", module


def parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters())


def test_a_factory_draws_what_no_layer_can(tmp_path: Path) -> None:
    arch, module = own(tmp_path)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    suspect = open_suspect(tmp_path / "m.pt", arch=arch, modality=Image(channels=3, size=16), mean=0.4, std=0.2)
    network = untrained_like(suspect, arch)
    name, fresh = network.named, network.make
    with seeded("one"):
        one = fresh()
    with seeded("two"):
        two = fresh()
    assert name == arch and one.training and isinstance(one, nn.Sequential)
    assert isinstance(one[0], Normalize) and float(one[0].mean.mean()) == pytest.approx(0.4)
    assert (parameters(one)["1.token"] == 0.5).all()  # as its constructor fills it, not as the suspect has it
    for drawn in ("1.encoder.self_attn.in_proj_weight", "1.head.weight"):
        assert not torch.equal(parameters(one)[drawn], parameters(two)[drawn])
    with pytest.raises(InputError, match="another network"):
        (tmp_path / "two.py").write_text("from torch import nn\ndef build(classes=4): return nn.Linear(3, classes)\n")
        untrained_like(suspect, f"{tmp_path / 'two.py'}:build")


def test_without_a_factory_attention_is_drawn_anew_and_bare_parameters_are_named(tmp_path: Path) -> None:
    _, module = own(tmp_path)
    before = module.encoder.self_attn.in_proj_weight.clone()
    assert redraw(module) == ["token"]
    assert not torch.equal(before, module.encoder.self_attn.in_proj_weight)
    suspect = Suspect("m", "", "torch", Model(module, Image(channels=3, size=16), 4))
    with pytest.raises(InputError, match="token cannot be drawn anew") as refused:
        untrained_like(suspect, None)
    assert "factory" in refused.value.hint


def test_classes_of_transformers_are_built_anew(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    suspect = open_suspect(tmp_path)
    assert suspect.model is not None, suspect
    fresh = untrained_like(suspect, None).make
    made, theirs = parameters(fresh()), parameters(suspect.model.module)
    assert made.keys() == theirs.keys()
    moved = [name for name, p in made.items() if not torch.equal(p, theirs[name])]
    assert any("cls_token" in name for name in moved) and any("position" in name for name in moved)


def test_references_of_ones_own_transformer_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch, module = own(tmp_path)
    (tmp_path / "m").mkdir()
    torch.save(module.state_dict(), tmp_path / "m" / "m.pt")
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    np.savez(
        tmp_path / "c.npz", x=(rng.integers(0, 60, (200, 3, 16, 16)) + 60 * y[:, None, None, None]).astype("u1"), y=y
    )
    made = ["--data", str(tmp_path / "c.npz"), "-n", "2", "--epochs", "4", "--profile", "fast", "--one-recipe"]
    made += ["--optimizer", "adamw", "--lr", "0.01", "--batch", "16"]
    refs = str(tmp_path / "refs")
    assert main(["refs", "train", "--like", str(tmp_path / "m" / "m.pt"), "--arch", arch, *made, "-o", refs]) == 0
    assert "own.py:Net" in capsys.readouterr().out
