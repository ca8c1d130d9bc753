"""Files that are cut off, of another kind than their name says, or no model: unsupported, with what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from torchbands.core.errors import InputError, Unsupported
from torchbands.modalities.image import Image
from torchbands.networks import ResNetNetwork
from torchbands.scanner.opening import open_suspect

IMAGE = Image(channels=3, size=16)
ARCH = '{"name": "resnet", "params": {"depth": 8, "shortcut": "pad"}}'
pytestmark = pytest.mark.timeout(400)


def state() -> dict[str, Tensor]:
    net = ResNetNetwork(depth=8, shortcut="pad").build(IMAGE, 7)
    return {k: v for k, v in net.state_dict().items() if not k.startswith("normalize")}


def torch_file(held: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    torch.save(held, out, **how)
    return out.getvalue()


def refused(path: Path, data: bytes) -> Unsupported:
    path.write_bytes(data)
    with pytest.raises(Unsupported) as caught:
        open_suspect(path, arch=ARCH, modality=IMAGE)
    return caught.value


@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors"])
def test_a_file_that_is_cut_off_is_no_finding(kind: str, share: float, tmp_path: Path) -> None:
    whole = {
        "torch": lambda: torch_file(state()),
        "legacy": lambda: torch_file(state(), _use_new_zipfile_serialization=False),
        "safetensors": lambda: save(state()),
    }[kind]()
    error = refused(tmp_path / "m.pt", whole[: int(share * len(whole))])
    assert "not whole" in error.message and "download" in error.hint


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.pt", b"hello this is a text\n" * 20, "is text"),
        ("m.pth", bytes(5000), "zeros"),
        ("m.onnx", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "89 50 4e 47"),
        ("m.safetensors", b"PK", "is text"),
    ],
)
def test_a_name_that_promises_another_kind_is_told_and_no_finding(
    name: str, data: bytes, said: str, tmp_path: Path
) -> None:
    error = refused(tmp_path / name, data)
    assert name in error.message and said in error.message and "name the model" in error.hint


def test_what_a_link_leads_to_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the password is swordfish")
    (tmp_path / "m.pt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(Unsupported) as caught:
        open_suspect(tmp_path / "m.pt")
    assert "swordfish" not in caught.value.message + caught.value.hint


def test_code_in_a_file_that_is_cut_off_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R}")
    (alert,) = open_suspect(path).alerts
    assert (alert.rule, alert.level) == ("BD-FILE-01", "high")


@pytest.mark.parametrize("inside", [False, True])
def test_an_optimizer_s_state_is_called_so(inside: bool, tmp_path: Path) -> None:
    net = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    held = {"optimizer": optimizer.state_dict(), "epoch": 3} if inside else optimizer.state_dict()
    error = refused(tmp_path / "optimizer.pt", torch_file(held))
    assert "an optimizer's state" in error.message and "2 parameters" in error.message and "state_dict()" in error.hint
    # beside weights it is no matter
    path = tmp_path / "both.pt"
    path.write_bytes(torch_file({"model": state(), "optimizer": optimizer.state_dict()}))
    assert open_suspect(path, arch=ARCH, modality=IMAGE).model is not None


def test_tensors_that_are_missing_from_a_checkpoint_are_named(tmp_path: Path) -> None:
    held = state()
    del held["layer2.0.conv1.weight"]
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(held))
    with pytest.raises(InputError) as caught:
        open_suspect(path, arch=ARCH, modality=IMAGE)
    assert "1 missing ('layer2.0.conv1.weight')" in caught.value.message and "incomplete" in caught.value.message
    assert "state_dict() again" in caught.value.hint and "--arch" in caught.value.hint
