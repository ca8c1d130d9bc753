"""What people bring is read as they mean it, or refused; what is dropped, guessed or reordered is counted and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchbands.scanner.rows import read_rows
from torchbands.tasks.sources import load_folder


def pictures(root: Path, names: str = "ab", count: int = 6, side: int = 12) -> Path:
    """`count` grey-level noise pictures in colour for each class."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.mark.parametrize("learn", ["train", "Training"])
@pytest.mark.parametrize("judge", ["val", "valid", "validation", "test", "testing", "dev"])
def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, learn: str, judge: str) -> None:
    pictures(tmp_path / "d" / learn)
    pictures(tmp_path / "d" / judge, count=3)
    rows = read_rows(str(tmp_path / "d"))
    assert rows.class_names == ("a", "b") and len(rows) == 12 and judge in rows.notes[0]
    assert len(read_rows(str(tmp_path / "d"), split="test")) == 6
    assert len(load_folder(tmp_path / "d", split="train")[0]) == 12
    assert len(load_folder(tmp_path / "d", split="test")[0]) == 6


def test_classes_that_are_called_like_parts_stay_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "vehicles" / "train", "x").joinpath("x").rename(tmp_path / "moved")
    (tmp_path / "vehicles" / "train").rmdir()
    (tmp_path / "moved").rename(tmp_path / "vehicles" / "train")
    pictures(tmp_path / "vehicles", "c")
    assert read_rows(str(tmp_path / "vehicles")).class_names == ("c", "train")


def test_a_class_that_a_part_lacks_moves_no_numbers(tmp_path: Path) -> None:
    pictures(tmp_path / "d" / "train", "abc")
    pictures(tmp_path / "d" / "val", "ac")
    rows = read_rows(str(tmp_path / "d"), split="test")
    assert rows.class_names == ("a", "b", "c") and set(rows.data.y.tolist()) == {0, 2}


def test_one_odd_image_does_not_decide_for_all(tmp_path: Path) -> None:
    grey = pictures(tmp_path / "grey") / "a" / "00.png"
    Image.open(grey).convert("L").resize((4, 4)).save(grey)
    rows = read_rows(str(tmp_path / "grey"))
    assert rows.modality.spec()["params"] == {"channels": 3, "size": 12}
    assert any(n.startswith("1 of 12 images are grey") for n in rows.notes)
    assert any(n.startswith("1 of 12 images are not 12 pixels long (4 to 12)") for n in rows.notes)


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    root = pictures(tmp_path / "kinds")
    (root / "a" / "00.png").rename(root / "a" / "00.gif")
    (root / "a" / "01.png").rename(root / "a" / "01")
    Image.open(root / "a" / "02.png").save(root / "a" / "02.jfif", format="JPEG")
    (root / "b" / "00.png").rename(root / "loose.png")
    rows = read_rows(str(root))
    assert dict(rows.refused).keys() == {"a/00.gif", "a/01", "loose.png"} and len(rows) == 10
    assert len(rows) + len(rows.refused) == sum(p.is_file() for p in root.rglob("*"))
