"""A folder of class folders of images that somebody else filled: what cannot be read is left out by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.datasets.cells import kind_of
from torchbands.datasets.folder import SUFFIXES
from torchbands.datasets.splits import LEARN, chosen, parts
from torchbands.modalities.image import Image

from .image_files import LAYOUT, Refused, inside, printable, read_files, shown
from .rows import Rows

#: Folders that lie deeper are not read.
MOST_DEPTH = 16


def read_folder(
    root: Path,
    size: int | None = None,
    channels: int | None = None,
    split: str = "clean",
    label: str | None = None,
) -> Rows:
    """Images of a folder of class folders, scaled to squares, with the path of each.

    Where a metadata file (metadata.csv, .jsonl or .parquet) lies in it, its rows name the images and their labels, by
    the column `label`.

    Left out and told in `refused`: images that cannot be decoded, decompression bombs, links that leave the folder,
    what is no regular file, files of other kinds, images outside of class folders, and names that cannot be printed.
    Size and channels are those that most images have.

    Raises InputError where nothing is left, where there are fewer than two classes, or for a wrong size or channels.
    """
    if channels not in (None, 1, 3) or (size is not None and not 1 <= size <= 1024):
        raise InputError(f"channels is {channels} and size {size}: channels is 1 or 3, size 1 to 1024")
    found = parts(root)
    part = chosen(found, split == "test") if found else ""
    top = found[part] if found else root
    refused: Refused = []
    notes: list[str] = []
    if found:
        others = sorted(p.name for p in root.iterdir() if p != top and not p.name.startswith("."))
        rest = f"; not read: {', '.join(map(printable, others[:5]))}" if others else ""
        notes.append(f"rows are those of {printable(top.name)}/{rest}")
    from .listed_rows import metadata_of, read_listed

    if (listing := metadata_of(top)) is not None:
        return read_listed(top, listing, size, channels, split, label, notes)
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))
    refused += [(shown(p, top), "it lies in no class folder") for p in _loose(top)]
    listed = {folder.name: list(_files(folder, top, refused)) for folder in classes if _named(folder, top, refused)}
    files = [file for found_here in listed.values() for file in found_here]
    kept, pixels = read_files(files, top, size, channels, refused, notes)
    present = {name.split("/", 1)[0] for name in kept}
    names = tuple(sorted(present | _taught(found, part)))
    if len(present) < 2:
        lists = [p.name for p in sorted(root.iterdir()) if kind_of(p) in (".csv", ".tsv", ".jsonl", ".parquet")]
        todo = LAYOUT
        if lists:
            todo = (
                f"{printable(lists[0])} seems to label them: name it metadata.csv and lay it beside the images, with a "
                "column file_name (the path of each from there) and a column label"
            )
        raise InputError(f"{top} holds one class only, {min(present)!r}; at least two are needed", hint=todo)
    if empty := sorted(set(listed) - set(names)):
        notes.append(f"folders without an image that could be read are no classes: {', '.join(empty[:5])}")
    if all(name.isdecimal() for name in names) and names != tuple(sorted(names, key=int)):
        notes.append(f"class folders are numbered as text, as torchvision does: {', '.join(names[:4])} ...")
    labels = torch.tensor([names.index(name.split("/", 1)[0]) for name in kept])
    return Rows(
        Data(Pixels(pixels), labels),
        Image(channels=pixels.shape[1], size=pixels.shape[2]),
        names,
        root.name or str(root),
        tuple(kept),
        tuple(refused),
        tuple(notes),
    )


def read_images(path: Path, size: int, channels: int, classes: int) -> Rows:
    """One image, or all images below a folder, in whatever folders they lie, as inputs of a model: labels are 0.

    Left out and told in `refused`: as by `read_folder`. Raises InputError where nothing is left.
    """
    refused: Refused = []
    notes: list[str] = []
    top = path.parent if path.is_file() else path
    files = [path] if path.is_file() else list(_files(path, path, refused))
    kept, pixels = read_files(files, top, size, channels, refused, notes)
    made = Data(Pixels(pixels), torch.zeros(len(kept), dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    image = Image(channels=channels, size=size)
    return Rows(made, image, names, path.name or str(path), tuple(kept), tuple(refused), tuple(notes))


def _files(folder: Path, top: Path, refused: Refused, depth: int = 0) -> Iterator[Path]:
    """Image files below a folder, sorted. Links are not followed to where they leave `top`, nor to folders at all."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.is_symlink() or depth >= MOST_DEPTH:
                refused.append((shown(path, top), "a link to a folder" if path.is_symlink() else "too deep"))
            elif _named(path, top, refused):
                yield from _files(path, top, refused, depth + 1)
        elif path.suffix.lower() not in SUFFIXES:
            refused.append((shown(path, top), f"a kind that is not read ({printable(path.suffix) or 'no suffix'})"))
        elif _named(path, top, refused) and inside(path, top, refused):
            yield path


def _taught(found: dict[str, Path], part: str) -> set[str]:
    """Classes of the training part: where rows of another part lack one, the numbers of the rest must not move."""
    learn = next((found[name] for name in LEARN if name in found), None)
    if learn is None or part in LEARN:
        return set()
    return {p.name for p in learn.iterdir() if p.is_dir() and p.name.isprintable() and p.name[0] not in "._"}


def _loose(top: Path) -> list[Path]:
    return sorted(p for p in top.iterdir() if not p.is_dir() and p.suffix.lower() in SUFFIXES)


def _named(path: Path, top: Path, refused: Refused) -> bool:
    """Whether a name can be written in an index, one a line."""
    if path.name.isprintable():
        return path.parent != top or inside(path, top, refused)
    refused.append((shown(path, top), "its name cannot be printed"))
    return False
