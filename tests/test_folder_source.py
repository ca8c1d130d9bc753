"""A user's class-per-folder images: layouts, deterministic split, and errors that name the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchbands.core.errors import InputError
from torchbands.datasets import load_folder
from torchbands.datasets.folder import read_scaled

COLOURS = {"cat": (250, 0, 0), "dog": (0, 0, 250)}


def make(root: Path, count: int = 10) -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20 + number, 16), colour).save(root / name / f"{number}.png")
    return root


def test_flat_layout_and_split(tmp_path: Path) -> None:
    make(tmp_path)
    x, y, names = load_folder(tmp_path, 8, 3)
    assert names == ("cat", "dog") and x.shape == (20, 3, 8, 8) and y.bincount().tolist() == [10, 10]
    assert x[y == 0][0, :, 3, 3].tolist() == [250, 0, 0] and x[y == 1][0, :, 3, 3].tolist() == [0, 0, 250]
    train, test = load_folder(tmp_path, 8, 3, "train"), load_folder(tmp_path, 8, 3, "test")
    assert train[1].bincount().tolist() == [8, 8] and test[1].bincount().tolist() == [2, 2]
    assert np.array_equal(load_folder(tmp_path, 8, 3, "test")[0], test[0])


def test_train_and_test_folders_and_grey(tmp_path: Path) -> None:
    make(tmp_path / "train", 3)
    make(tmp_path / "test", 1)
    x, y, _ = load_folder(tmp_path, 5, 1, "test")
    assert x.shape == (2, 1, 5, 5) and y.tolist() == [0, 1]
    assert len(load_folder(tmp_path, 5, 1)[1]) == 8
    make(tmp_path / "test" / "x").rename(tmp_path / "test" / "horse")
    with pytest.raises(InputError, match="without training images: horse"):
        load_folder(tmp_path, 5, 1, "test")


def test_split_does_not_depend_on_the_machine(tmp_path: Path) -> None:
    for root in ("a", "b/c"):
        for name in COLOURS:
            (tmp_path / root / name).mkdir(parents=True)
            for number in range(15):
                Image.new("L", (4, 4), number).save(tmp_path / root / name / f"{number}.png")
    one, two = (load_folder(tmp_path / root, 4, 1, "test")[0] for root in ("a", "b/c"))
    assert np.array_equal(one, two) and len(one) == 6


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "cannot identify"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "cannot identify")]
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    make(tmp_path)
    (tmp_path / "dog" / "broken.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.jpg is not a readable image: {said}"):
        load_folder(tmp_path)


def test_truncated_and_deep_images_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "cat" / "short.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"short\.png is not a readable image"):
        load_folder(tmp_path)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    with pytest.raises(InputError, match=r"short\.png: pixels of mode I.*8 bits"):
        load_folder(tmp_path)


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no images in class folders\n  expected FOLDER/CLASS"):
        load_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "0.png")
    with pytest.raises(InputError, match="one class only, 'cat'"):
        load_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "0.png")
    with pytest.raises(InputError, match="class 'cat' .* too few to split"):
        load_folder(tmp_path, split="train")
    with pytest.raises(InputError, match="channels is 2"):
        load_folder(tmp_path, 8, 2)


def test_symlink_loops_are_ignored(tmp_path: Path) -> None:
    make(tmp_path, 2)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "cat" / "gone.png").unlink()
    assert len(load_folder(tmp_path, 4)[1]) == 4


def test_a_png_that_ends_early_is_refused_though_its_end_is_marked(tmp_path: Path) -> None:
    """Pillow reads the missing rows as zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
    for rows, whole in ((32, True), (31, False), (16, False)):
        body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes([7]) * 96 for _ in range(rows))))
        path = tmp_path / f"{rows}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
        if whole:
            assert (read_scaled(path, 32, 3) == 7).all()
        else:
            with pytest.raises(InputError, match="before its last row"):
                read_scaled(path, 32, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("side", [1, 7, 32])
def test_whole_pngs_of_every_kind_are_read(tmp_path: Path, mode: str, side: int) -> None:
    Image.new(mode, (side, side)).save(tmp_path / "x.png")
    assert read_scaled(tmp_path / "x.png", 8, 3).shape == (3, 8, 8)
