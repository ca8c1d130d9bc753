"""Layouts that training scripts leave: seen through where one reading is possible, refused where two are."""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from in_process import InProcess
from torchbands.core.errors import InputError, Unsupported
from torchbands.modalities.image import Image
from torchbands.scanner.opening import Suspect, checkpoint, open_suspect

IMAGE = Image(channels=3, size=16)
CODE = """import torch
from torch import nn
def of(conv, linear): return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
def net(classes=4): return of(nn.Conv2d(3, 8, 3), nn.Linear(8, classes))
def half(classes=4): return net(classes).half()
def compiled(classes=4): return torch.compile(net(classes))
def parallel(classes=4): return nn.DataParallel(net(classes))
def lazy(classes=4): return of(nn.LazyConv2d(8, 3), nn.LazyLinear(classes))
def meta(classes=4):
    with torch.device("meta"): return net(classes)
class Tied(nn.Module):
    def __init__(self, classes=4):
        super().__init__(); self.c = nn.Conv2d(3, 8, 3); self.a = nn.Linear(8, classes); self.b = nn.Linear(8, classes)
        self.b.weight = self.a.weight
    def forward(self, x): h = self.c(x).mean((2, 3)); return self.a(h) + self.b(h)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's own module, beside no suspect."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_layouts.py").write_text(CODE)
    (tmp_path / "m").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    import importlib

    yield importlib.import_module("own_layouts")
    del sys.modules["own_layouts"]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "Child", InProcess)


def opened(path: Path, arch: str = "net") -> Suspect:
    return open_suspect(path, arch=f"own_layouts:{arch}", modality=IMAGE)


def same(suspect: Suspect, net: nn.Module) -> None:
    x = IMAGE.random(4, torch.Generator().manual_seed(1))
    assert suspect.model is not None and not suspect.alerts
    assert torch.allclose(suspect.model.logits(x), net.eval()(x), atol=1e-4)


State = dict[str, torch.Tensor]
LAYOUTS: dict[str, Callable[[State], Any]] = {
    "params": lambda s: {"params": s, "epoch": 3},
    "model_state": lambda s: {"model_state": s},
    "two levels": lambda s: {"checkpoint": {"model": s}},
    "a pair": lambda s: (s, 3),
    "any key": lambda s: {"resnet_weights": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(9)}}}},
    "DataParallel, compiled": lambda s: {"module._orig_mod." + k: v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": {**{"model." + k: v for k, v in s.items()}, "criterion.weight": torch.ones(4)}
    },
    "numpy": lambda s: {"net": s, "acc": np.float64(0.9), "index": np.zeros(5)},
    "a path and options": lambda s: {"model": s, "root": pathlib.Path("/data"), "args": argparse.Namespace(lr=0.1)},
    "a log": lambda s: {"state_dict": s, "log": collections.defaultdict(list, {"loss": [1.0]})},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_seen_through_without_a_finding(tmp_path: Path, own: Any, name: str) -> None:
    net = own.net()
    torch.save(LAYOUTS[name](net.state_dict()), tmp_path / "m" / "a.pt")
    suspect = opened(tmp_path / "m" / "a.pt")
    same(suspect, net)
    if name == "Lightning":
        assert suspect.facts["weights_not_used"] == ["criterion.weight"]


@pytest.mark.parametrize("arch", ["half", "compiled", "parallel", "lazy", "meta"])
def test_a_factory_may_give_its_network_in_any_state(tmp_path: Path, own: Any, arch: str) -> None:
    net = own.net()
    torch.save(net.state_dict(), tmp_path / "m" / "a.pt")
    same(opened(tmp_path / "m" / "a.pt", arch), net)


def test_which_of_two_weights_is_judged_is_told_or_not_guessed(tmp_path: Path, own: Any) -> None:
    net, twin = own.net(), own.net()
    torch.save({"model_ema": twin.state_dict(), "state_dict": net.state_dict()}, tmp_path / "m" / "a.pt")
    suspect = opened(tmp_path / "m" / "a.pt")
    same(suspect, net)
    assert suspect.facts["weights_in"] == "state_dict (not judged: model_ema)"
    both = {f"{p}.{k}": v.clone() for p, m in (("student", net), ("teacher", twin)) for k, v in m.state_dict().items()}
    save_file(both, tmp_path / "m" / "b.safetensors")
    with pytest.raises(InputError, match="2 networks of this kind"):
        opened(tmp_path / "m" / "b.safetensors")


def test_tied_weights_may_be_kept_once_but_must_agree(tmp_path: Path, own: Any) -> None:
    net, path = own.Tied(), tmp_path / "m" / "a.safetensors"
    save_model(net, str(path))
    same(opened(path, "Tied"), net)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    save_file(state | {"b.weight": state["b.weight"] + 1}, path)
    with pytest.raises(InputError, match="the file has different ones"):
        opened(path, "Tied")
    save_file({k: v for k, v in state.items() if k not in ("a.weight", "b.weight")}, path)
    with pytest.raises(InputError, match="missing"):
        opened(path, "Tied")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.int32])
def test_weights_of_few_bits_are_never_taken_for_numbers(tmp_path: Path, own: Any, dtype: torch.dtype) -> None:
    state = own.net().state_dict()
    save_file(state | {"3.weight": state["3.weight"].to(dtype)}, tmp_path / "m" / "a.safetensors")
    with pytest.raises(Unsupported, match=r"quantised weights are not read here: '3\.weight'") as caught:
        opened(tmp_path / "m" / "a.safetensors")
    assert "dequantize" in caught.value.hint


def test_half_precision_and_traces_are_read(tmp_path: Path, own: Any) -> None:
    net = own.net().eval()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        save_file({k: v.to(dtype) for k, v in net.state_dict().items()}, tmp_path / "m" / "a.safetensors")
        suspect = opened(tmp_path / "m" / "a.safetensors")
        assert suspect.model is not None and not suspect.alerts
    torch.jit.trace(net, torch.rand(2, 3, 16, 16)).save(str(tmp_path / "m" / "t.pt"))
    same(opened(tmp_path / "m" / "t.pt"), net)


def test_what_is_ordinary_and_not_read_says_what_to_do(tmp_path: Path, own: Any) -> None:
    net = own.net().eval()
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 16, 16),)), tmp_path / "m" / "e.pt2")
    (tmp_path / "m" / "l.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    (tmp_path / "m" / "w.safetensors").write_text("<!DOCTYPE html>\n<html>not found</html>")
    (tmp_path / "m" / "g.gguf").write_bytes(b"GGUF" + bytes(60))
    small = torch.quantize_per_tensor(torch.rand(2, 2), 0.1, 0, torch.qint8)
    torch.save({"head.weight": small, "x": torch.ones(3)}, tmp_path / "m" / "q.pt")
    for name in ("e.pt2", "l.safetensors", "w.safetensors", "g.gguf", "q.pt"):
        with pytest.raises(Unsupported) as caught:
            opened(tmp_path / "m" / name)
        assert caught.value.hint, name


def test_what_is_not_read_here_is_no_finding_at_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchbands.cli import main

    (tmp_path / "l.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    code = main(["scan", "model", str(tmp_path / "l.safetensors"), "--format", f"json={tmp_path / 'o.json'}"])
    assert code == 3 and "git lfs pull" in capsys.readouterr().err
    assert "git lfs pull" in (tmp_path / "o.json").read_text() and '"alerts": []' in (tmp_path / "o.json").read_text()
