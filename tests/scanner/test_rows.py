"""Rows are read from folders, arrays, tables, victims and tasks; what is hostile is left out by name or refused."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from torchbands.core.attack import Victim
from torchbands.core.data import Pixels, whole
from torchbands.core.errors import InputError, UnknownName
from torchbands.modalities.tabular import Tabular
from torchbands.scanner.reading import read_rows
from torchbands.zoo import victims


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of each of two classes, 12 pixels wide and 10 high."""
    for at, name in enumerate(("cat", "<i>dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (12, 10), (40 * number, 200 * at, 9)).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def png(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_folder_of_images(folder: Path) -> None:
    rows = read_rows(str(folder))
    assert rows.class_names == ("<i>dog", "cat") and len(rows) == 10
    assert rows.ids[0] == "<i>dog/0.png" and rows.ids[-1] == "cat/4.png"
    assert rows.modality.spec()["params"] == {"channels": 3, "size": 12}
    assert whole(rows.data.x)[7, 0, 5, 5] == pytest.approx(80 / 255)
    assert "squares of 12 pixels" in rows.notes[-1] and rows.refused == ()
    small = read_rows(str(folder), size=6, channels=1)
    assert whole(small.data.x).shape == (10, 1, 6, 6)
    assert rows.sha256() == read_rows(str(folder)).sha256() != small.sha256()


def test_large_images_are_scaled_down_and_that_is_said(folder: Path) -> None:
    for number in range(5):
        for name in ("cat", "<i>dog"):
            Image.new("L", (300, 300)).save(folder / name / f"{number}.png")
    rows = read_rows(str(folder))
    assert rows.modality.spec()["params"] == {"channels": 1, "size": 64}
    assert "to 64 pixels, from 300" in rows.notes[0]


def test_hostile_files_are_left_out_by_name(folder: Path) -> None:
    good = (folder / "cat" / "0.png").read_bytes()
    outside = folder.parent / "secret.png"
    outside.write_bytes(good)
    cat = folder / "cat"
    (cat / "bomb.png").write_bytes(png(100_000, 100_000))
    (cat / "huge.png").write_bytes(png(60_000, 1_000))
    (cat / "cut.png").write_bytes(good[:40])
    (cat / "text.jpg").write_bytes(b"#!/bin/sh\nexit 1\n")
    (cat / "out.png").symlink_to(outside)
    (cat / "nowhere.png").symlink_to(cat / "missing.png")
    (cat / "loop").symlink_to(folder, target_is_directory=True)
    (cat / "zero.png").symlink_to("/dev/zero")
    (cat / "two\nlines.png").write_bytes(good)
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    os.mkfifo(cat / "pipe.png")
    with (cat / "sparse.png").open("wb") as file:
        file.truncate(1 << 31)
    (cat / os.fsdecode(b"\xff.png")).write_bytes(good)
    rows = read_rows(str(folder))
    reasons = dict(rows.refused)
    assert len(rows) == 10 and set(rows.ids).isdisjoint(reasons)
    assert len(reasons) == 13
    for name, said in {
        "bomb.png": "pixels",
        "huge.png": "60000 x 1000 pixels",
        "cut.png": "",
        "text.jpg": "cannot identify",
        "out.png": "leaves the folder",
        "nowhere.png": "leads nowhere",
        "loop": "a link",
        "zero.png": "leaves the folder",
        "two\\nlines.png": "printed",
        "pipe.png": "not a regular file",
        "sparse.png": "bytes, more than",
        "\\udcff.png": "printed",
    }.items():
        assert said in reasons[f"cat/{name}"]
    assert "leaves the folder" in reasons["linked"]


def test_a_link_inside_the_folder_is_read(folder: Path) -> None:
    (folder / "cat" / "again.png").symlink_to(folder / "cat" / "1.png")
    assert "cat/again.png" in read_rows(str(folder)).ids


def test_train_and_test_folders(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    folder.rename(both / "train")
    (both / "test" / "cat").mkdir(parents=True)
    (both / "test" / "bird").mkdir()
    for name in ("cat", "bird"):
        Image.new("L", (4, 4)).save(both / "test" / name / "0.png")
    assert len(read_rows(str(both))) == len(read_rows(str(both), split="train")) == 10
    assert read_rows(str(both), split="test").ids == ("bird/0.png", "cat/0.png")


def test_nothing_to_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no images in class folders"):
        read_rows(str(empty))
    (empty / "a").mkdir()
    (empty / "a" / "0.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"no image that could be read: a/0\.png"):
        read_rows(str(empty))
    Image.new("L", (4, 4)).save(empty / "a" / "1.png")
    with pytest.raises(InputError, match="one class only, 'a'"):
        read_rows(str(empty))
    with pytest.raises(InputError, match="channels is 2"):
        read_rows(str(folder), channels=2)
    with pytest.raises(InputError, match="no file or folder here"):
        read_rows(str(tmp_path / "missing"))
    with pytest.raises(UnknownName):
        read_rows(str(folder), split="validation")
    (tmp_path / "rows.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match="a pickle, which is never read"):
        read_rows(str(tmp_path / "rows.pkl"))


@pytest.mark.parametrize(
    ("shape", "read"), [((7, 3, 8, 8), (3, 8)), ((7, 8, 8, 3), (3, 8)), ((7, 8, 8, 1), (1, 8)), ((7, 8, 8), (1, 8))]
)
def test_image_arrays_in_either_order(tmp_path: Path, shape: tuple[int, ...], read: tuple[int, int]) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.arange(7) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    save_file({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / "a.safetensors")
    one, two = read_rows(str(tmp_path / "a.npz")), read_rows(str(tmp_path / "a.safetensors"))
    assert isinstance(one.data.x, Pixels) and one.class_names == ("0", "1", "2") and one.ids[6] == "6"
    assert (one.modality.spec()["params"]["channels"], one.modality.spec()["params"]["size"]) == read
    assert one.sha256() == two.sha256() and torch.equal(one.data.y, torch.from_numpy(y))
    last = whole(one.data.x)[2].numpy().transpose(1, 2, 0).squeeze()
    expected = (x[2].transpose(1, 2, 0) if shape[1] == 3 else x[2]).squeeze() / 255
    assert np.allclose(last, expected)


BAD = {
    "ambiguous": (np.zeros((4, 3, 3, 3), np.uint8), "could be"),
    "no channels": (np.zeros((4, 5, 8, 8), np.uint8), "no axis of 1 or 3"),
    "no square": (np.zeros((4, 3, 8, 9), np.uint8), "8 x 9"),
    "bytes as floats": (np.full((4, 3, 8, 8), 200.0), "in \\[0, 1\\]"),
    "nan": (np.full((4, 3, 8, 8), np.nan), "first in row 0"),
    "inf in a table": (np.full((4, 3), np.inf), "not finite"),
    "five dimensions": (np.zeros((4, 3, 8, 8, 1)), "3 or 4 dimensions"),
    "text": (np.array(["a", "b", "c", "d"]), "no numbers"),
    "objects": (np.array([{}, {}, {}, {}], dtype=object), "unpickled"),
    "other length": (np.zeros((5, 3)), "5 samples in x but 4"),
    "empty": (np.zeros((0, 3)), "0 samples"),
    "integers": (np.zeros((4, 3, 8, 8), np.int64), "uint8, or floats"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_arrays_are_refused(tmp_path: Path, case: str) -> None:
    x, said = BAD[case]
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(4))
    with pytest.raises(InputError, match=said):
        read_rows(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("y", "said"),
    [(np.eye(4), "shape"), (np.arange(4) / 2, "float64"), (np.arange(4) - 1, "-1"), ([9**9] * 4, "labels")],
)
def test_wrong_labels_are_refused(tmp_path: Path, y: object, said: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), y=np.asarray(y))
    with pytest.raises(InputError, match=said):
        read_rows(str(tmp_path / "a.npz"))


def test_an_array_that_promises_more_than_it_holds(tmp_path: Path) -> None:
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }"
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    lying = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", lying)
        archive.writestr("y.npy", lying)
    with pytest.raises(InputError, match=r"promises 64,000,000,000,000 bytes"):
        read_rows(str(tmp_path / "a.npz"))
    for name, content in {"b.npz": b"PK\x03\x04", "c.npz": b"", "d.safetensors": b"\xff" * 40}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a readable"):
            read_rows(str(tmp_path / name))
    np.savez(tmp_path / "e.npz", images=np.zeros(3))
    with pytest.raises(InputError, match=r"holds images\.npy"):
        read_rows(str(tmp_path / "e.npz"))


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_text("bytes,label,seconds\n10,attack,0.5\n20,benign,1.5\n30,attack,2.5\n")
    rows = read_rows(str(path))
    assert rows.class_names == ("attack", "benign") and rows.data.y.tolist() == [0, 1, 0]
    assert rows.data.x.tolist() == [[10, 0.5], [20, 1.5], [30, 2.5]]
    assert isinstance(rows.modality, Tabular)
    assert [(f.title, f.low, f.high, f.integer) for f in rows.modality.fields] == [
        ("bytes", 10, 30, True),
        ("seconds", 0.5, 2.5, False),
    ]
    path.write_text("1,2,10\n3,4,9\n5,6,10\n")
    assert read_rows(str(path)).class_names == ("9", "10") and len(read_rows(str(path))) == 3
    path.write_text("a,b,kind\n1,1,2\n0,3,4\n2,3,4\n")
    assert read_rows(str(path), label="a").class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("a,b\n", "no rows"),
        ("1\n2\n", "1 column"),
        ("1,2\n3\n", r"row 2 \(line 2\) has 1 cells"),
        ("a,b,y\n1,tcp,0\n2,udp,1\n", "'tcp' in column 'b', row 1"),
        ("1,0\n2,0\n", "one class only"),
        ("1,nan,0\n2,3,1\n", "not finite"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_rows(str(tmp_path / "a.csv"))


def test_tasks_and_victims(planted_victim: Victim, tmp_path: Path) -> None:
    task = planted_victim.task
    clean = read_rows("vision/digits")
    assert clean.label == "vision/digits (clean)" and clean.task == task
    assert torch.equal(clean.data.y, task.load("clean").y)
    spec = read_rows('{"name": "vision/digits", "held_out": 0.5}', split="train")
    assert len(spec) == len(task.but(held_out=0.5).load("train"))
    victims.save(planted_victim, tmp_path / "v")
    poisoned = read_rows(str(tmp_path / "v"), split="train")
    assert poisoned.data.poisoned is None
    assert torch.equal(poisoned.data.y, planted_victim.training_data().y)
    with pytest.raises(InputError, match="not a JSON task spec"):
        read_rows("{")
    with pytest.raises(InputError, match="Did you mean 'vision/digits'"):
        read_rows("vision/digit")
