"""Rows that are alike (templates, copies, one picture, columns that never change) are scanned like any others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from torchbands.core.data import Data
from torchbands.core.errors import BadSettings
from torchbands.core.model import Model
from torchbands.defenses.data.subspace import Centred, principal
from torchbands.learners.sgd import SGD
from torchbands.modalities.image import Image
from torchbands.networks.small_cnn import SmallCNN
from torchbands.networks.vgg import VGG
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.reading import read_rows

ROWS = 120


def text(path: Path, texts: Sequence[str]) -> str:
    path.write_text("text,label\n" + "".join(f"{texts[i % len(texts)]},{'ab'[i % 2]}\n" for i in range(ROWS)))
    return str(path)


def arrays(path: Path, x: np.ndarray) -> str:
    np.savez(path, x=x, y=np.arange(ROWS) % 2)
    return str(path)


def test_templates_are_said_to_be_alike(tmp_path: Path) -> None:
    texts = [f"{('your code is', 'win prize no')[i % 2]} {i}" for i in range(ROWS)]
    found = scan_data(read_rows(text(tmp_path / "t.csv", texts)), profile="fast", folder=tmp_path / "out")
    assert found.verdict == "inconclusive" and "alike" in found.reasons[0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cleaned.csv", "cleaned.txt", "scores.csv"]


@pytest.mark.parametrize("texts", [("great film", "awful film"), ("😀", "🙃"), ("", "x y"), ("w0", "w1", "w2", "w3")])
def test_copies_are_no_evidence(texts: Sequence[str], tmp_path: Path) -> None:
    found = scan_data(read_rows(text(tmp_path / "t.csv", texts)), profile="fast")
    assert found.verdict == "inconclusive"
    assert "copies" in found.reasons[0] and f"of which {len(texts) // 2} differ" in found.reasons[0]


def test_one_picture_tiny_pictures_and_constant_columns_are_scanned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (ROWS, 3, 16, 16)).astype(np.uint8)
    table = rng.normal(size=(ROWS, 4)).astype(np.float32)
    table[:, 1] = 3
    for name, x in {
        "one": np.repeat(pictures[:1], ROWS, 0),
        "tiny": pictures[:, :, :4, :4],
        "constant": table,
        "nothing": 0 * table,
    }.items():
        found = scan_data(read_rows(arrays(tmp_path / f"{name}.npz", x)), profile="fast")
        assert found.verdict in ("none", "inconclusive"), name


@pytest.mark.parametrize("width", [64, 600])
def test_rows_that_differ_by_rounding_alone_have_no_direction(width: int) -> None:
    row = torch.rand(width, generator=torch.Generator().manual_seed(0)) * 3
    alike = Centred(row.repeat(100, 1))
    assert not (alike @ principal(alike, 10)).any()
    two = torch.cat([row.repeat(50, 1), row.repeat(50, 1) * 1.5])
    along = Centred(two) @ principal(Centred(two), 10)
    assert along.isfinite().all() and float(along[:50, 0].mean() - along[50:, 0].mean()) != 0


def test_a_last_row_is_no_batch_of_its_own() -> None:
    image = Image(channels=1, size=4)
    model = Model(SmallCNN(1, 4, 2), image, 2)  # its last batch norm sees one number of each image
    x = torch.rand(33, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    SGD(epochs=1, batch=32).fit(model, Data(x, torch.arange(33) % 2))
    with pytest.raises(BadSettings, match="at least 8 x 8"):
        VGG(1, 4, 2)
