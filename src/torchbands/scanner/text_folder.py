"""A folder of class folders of text files, one text a file, as IMDB comes: pos/*.txt and neg/*.txt."""

from __future__ import annotations

from pathlib import Path

import torch

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.words import shown
from torchbands.datasets.splits import chosen, parts
from torchbands.modalities.text import LENGTH, WORDS, Text, vocabulary_of

from .rows import Rows

#: A longer text is left out. More files are refused.
MOST_BYTES, MOST_FILES = 1 << 20, 2_000_000
#: Class folders that every maker fills with texts of no class.
_UNLABELLED = frozenset(("unsup", "unlabeled", "unlabelled"))


def text_classes(root: Path, split: str) -> tuple[Path, dict[str, list[Path]]] | None:
    """The folder of the part that is read, and its classes' text files; None where not two folders hold any."""
    found = parts(root)
    top = found[chosen(found, split == "test")] if found else root
    classes: dict[str, list[Path]] = {}
    left = MOST_FILES
    for folder in sorted(p for p in top.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] not in "._"):
        if not folder.name.isprintable():
            continue
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".txt" and p.name.isprintable())
        if files:
            classes[folder.name] = files
        if (left := left - len(files)) < 0:
            raise InputError(f"{root} has more than {MOST_FILES:,} texts", hint="put them into one CSV or Parquet file")
    return (top, classes) if len(classes) > 1 else None


def read_text_folder(root: Path, top: Path, classes: dict[str, list[Path]]) -> Rows:
    """The texts of class folders, with the path of each.

    Left out and told: what is no regular file in the folder, too long or not UTF-8, and a class folder of texts without
    a class. Raises InputError where fewer than two classes are left.
    """
    notes, refused = [], list[tuple[str, str]]()
    if top != root:
        others = sorted(p.name for p in root.iterdir() if p != top and p.is_dir() and p.name[0] not in "._")
        rest = f"; not read: {', '.join(map(shown, others[:5]))}" if others else ""
        notes.append(f"rows are those of {shown(top.name)}/{rest}")
    if out := [name for name in classes if name.lower() in _UNLABELLED]:
        notes += [f"{len(classes[name]):,} texts of {name}/ have no class, and are left out" for name in out]
        classes = {name: files for name, files in classes.items() if name not in out}
    texts, labels, ids = list[str](), list[int](), list[str]()
    names = tuple(classes)
    for number, files in enumerate(classes.values()):
        for path in files:
            said = _text(path, refused, top)
            if said is not None:
                texts.append(said)
                labels.append(number)
                ids.append(path.relative_to(top).as_posix())
    if len(set(labels)) < 2:
        why = f" ({refused[0][0]}: {refused[0][1]})" if refused else ""
        raise InputError(f"{root} holds texts of {len(set(labels))} class, at least two are needed{why}")
    notes.append(f"texts are the .txt files of the class folders {', '.join(map(shown, names[:5]))}")
    modality = Text(vocabulary=vocabulary_of(texts, WORDS), length=LENGTH)
    data = Data(texts, torch.tensor(labels))
    return Rows(data, modality, names, root.name or str(root), tuple(ids), tuple(refused), tuple(notes))


def _text(path: Path, refused: list[tuple[str, str]], top: Path) -> str | None:
    name = path.relative_to(top).as_posix()
    if path.is_symlink() or not path.is_file():
        refused.append((name, "no regular file in the folder"))
    elif path.stat().st_size > MOST_BYTES:
        refused.append((name, f"more than {MOST_BYTES:,} bytes"))
    else:
        try:
            return path.read_text("utf-8-sig")
        except (UnicodeDecodeError, OSError) as error:
            refused.append((name, "not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"))
    return None
