"""`guard fit` keeps or names what `guard check` needs, and `check` reads inputs without labels, as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from torchbands.cli import main
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.modalities.image import Image
from torchbands.modalities.tabular import Field, Tabular
from torchbands.modalities.text import Text
from torchbands.networks.small_cnn import SmallCNN
from torchbands.scanner.guard import Guard
from torchbands.scanner.input_rows import read_inputs

OWN = (
    "from torch import nn\n"
    "def build(classes=2):\n"
    "    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    "    return nn.Sequential(*pooled, nn.Linear(8, classes))\n"
)
RNG = np.random.default_rng(0)
#: The guard was opened, and the inputs, which are none that it was fitted on, were judged.
JUDGED = (0, 1, 3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "own.py").write_text(OWN)
    y = np.arange(120) % 2
    np.savez("c.npz", x=(RNG.integers(0, 99, (120, 3, 16, 16)) + 99 * y[:, None, None, None]).astype(np.uint8), y=y)
    np.savez("x.npz", x=RNG.integers(0, 255, (9, 3, 16, 16)).astype(np.uint8))
    return tmp_path


def trained(mean: float = 0.0, std: float = 1.0) -> torch.nn.Module:
    """The user's network, which knows the clean rows, standardised so."""
    scope: dict[str, object] = {}
    exec(OWN, scope)
    made = scope["build"]()  # type: ignore[operator]
    assert isinstance(made, torch.nn.Module)
    with np.load("c.npz") as rows:
        x, y = (torch.from_numpy(rows["x"]) / 255 - mean) / std, torch.from_numpy(rows["y"])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(made(x), y).backward()
        optimizer.step()
    return made.eval()


def test_a_network_of_ones_own_is_opened_again_by_its_factory(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchbands.cli.suspect_file.NAME", "suspect.toml")
    torch.save(trained(0.4, 0.2).state_dict(), "m/m.pt")
    made = ["--arch", "./own.py:build", "--mean", ".4,.4,.4", "--std", ".2,.2,.2", "--detector", "scale-up"]
    assert main(["guard", "fit", "m/m.pt", "--data", "c.npz", "-o", "g", "--json", *made]) == 0
    said = json.loads(capsys.readouterr().out)["check"]
    assert said == "bands guard check g INPUTS --arch ./own.py:build"
    assert main(["guard", "check", "g", "x.npz"]) == 4
    assert "--arch" in capsys.readouterr().err
    assert main(["guard", "check", "g", "x.npz", "--arch", "./own.py:build"]) in JUDGED
    (here / "two.py").write_text("from torch import nn\ndef build(classes=2): return nn.Linear(3, classes)\n")
    assert main(["guard", "check", "g", "x.npz", "--arch", "./two.py:build"]) == 4
    assert "another network" in capsys.readouterr().err
    settings = ["--model", "m/m.pt", "--settings", "suspect.toml"]  # which fit wrote
    assert main(["guard", "check", "g", "x.npz", *settings]) in JUDGED


def test_an_onnx_file_is_kept_with_its_guard(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    torch.onnx.export(
        trained(),
        (torch.rand(2, 3, 16, 16),),
        "m/m.onnx",
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    fit = ["guard", "fit", "m/m.onnx", "--data", "c.npz", "--detector", "strip", "-o", "g"]
    assert main(fit) == 0 and main(fit) == 0  # replaces its own
    assert sorted(p.name for p in Path("g").iterdir()) == [
        "card.json", "detector.safetensors", "model.onnx", "model.safetensors",
    ]  # fmt: skip
    Path("m/m.onnx").unlink()
    assert main(["guard", "check", "g", "x.npz"]) in JUDGED
    held = Path("g/model.onnx").read_bytes()
    Path("g/model.onnx").write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(InputError, match=r"model\.onnx was truncated or altered"):
        Guard.load("g")


def test_inputs_are_read_as_people_have_them(tmp_path: Path) -> None:
    image = Image(channels=3, size=16)
    pixels = RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)
    (tmp_path / "in" / "2024").mkdir(parents=True)
    for name in ("in/1.png", "in/2.jpg", "in/2024/3.png"):
        Pillow.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "in" / "notes.md").write_text("no image")
    found = read_inputs(str(tmp_path / "in"), image, 10)
    assert found.ids == ("1.png", "2.jpg", "2024/3.png") and found.refused[0][0] == "notes.md"
    assert len(read_inputs(str(tmp_path / "in" / "1.png"), image, 10)) == 1
    np.save(tmp_path / "x.npy", np.stack([pixels] * 4))
    assert read_inputs(str(tmp_path / "x.npy"), image, 10).data.x[torch.arange(1)].shape == (1, 3, 16, 16)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="unpickled"):
        read_inputs(str(tmp_path / "objects.npy"), image, 10)
    with pytest.raises(InputError, match="does not read"):
        np.savez(tmp_path / "flat.npz", x=np.zeros((4, 7), np.float32))
        read_inputs(str(tmp_path / "flat.npz"), image, 10)

    text = Text(vocabulary=("good", "bad"))
    (tmp_path / "t.csv").write_text("id,text\n1,good one\n2,bad\n")
    (tmp_path / "t.jsonl").write_text('{"body": "good"}\n{"body": "bad"}\n')
    (tmp_path / "t.txt").write_text("good one\n\nbad\n")
    for name in ("t.csv", "t.jsonl", "t.txt"):
        assert len(read_inputs(str(tmp_path / name), text, 2)) == 2, name

    table = Tabular(fields=(Field(title="a", low=0, high=1), Field(title="b", low=0, high=1)))
    for name, written in {
        "other order": "b,label,a\n2,x,1\n4,y,3\n",
        "no heading": "1,2\n3,4\n",
        "pandas": ",a,b\n0,1,2\n1,3,4\n",
        "labelled": "p,q,label\n1,2,x\n3,4,y\n",
    }.items():
        (tmp_path / "t2.csv").write_text(written)
        found = read_inputs(str(tmp_path / "t2.csv"), table, 2)
        assert torch.equal(torch.as_tensor(found.data.x), torch.tensor([[1.0, 2.0], [3.0, 4.0]])), name
    (tmp_path / "t2.csv").write_text("a,c\n1,2\n")
    assert len(read_inputs(str(tmp_path / "t2.csv"), table, 2)) == 1
    (tmp_path / "t2.csv").write_text("a,c,d\n1,2,3\n")
    with pytest.raises(InputError, match="3 columns of numbers, the model reads 2: a, b"):
        read_inputs(str(tmp_path / "t2.csv"), table, 2)


def test_a_guard_that_names_its_network_needs_no_flag(here: Path) -> None:
    model = Model(SmallCNN(3, 16, 2), Image(channels=3, size=16), 2)
    x = torch.rand(120, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    guard = Guard(model, detector="scale-up").fit(Data(x, torch.arange(120) % 2))
    guard.save("g")
    assert main(["guard", "check", "g", "x.npz"]) == 4
    assert main(["guard", "check", "g", "x.npz", "--arch", "small-cnn"]) in JUDGED
