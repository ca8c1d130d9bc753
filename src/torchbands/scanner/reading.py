"""The rows that a scan reads: a folder of images, arrays, a table, a victim's training data, or a task's split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torchbands.core.data import Data
from torchbands.core.errors import InputError, UnknownName, Unsupported
from torchbands.core.modality import Modality
from torchbands.core.registry import build
from torchbands.core.task import SPLITS, Task
from torchbands.datasets.cells import FRAMES, kind_of
from torchbands.datasets.table_folder import SUFFIXES as TABLES
from torchbands.datasets.table_folder import holds_images, tables_of
from torchbands.datasets.text_file import text_column

from .own_format import read_labelled
from .rows import Rows

_KINDS = (
    "expected a folder of class folders of images or of .txt files, a .npz, .safetensors, .csv, .tsv, .jsonl or "
    ".parquet file, a folder of such tables, a victim directory, or a task"
)
#: Kinds that people have and that no reader here opens, with what to type instead.
_ELSEWHERE = {
    ".xlsx": ("a spreadsheet", "save it as CSV"),
    ".pkl": ("a pickle, which is never read as data", "numpy.savez('rows.npz', x=x, y=y) where you trust the file"),
    ".npy": ("one array without labels", "numpy.savez('rows.npz', x=x, y=y)"),
    ".pt": ("a torch file, which is not read as data", "numpy.savez('rows.npz', x=x.numpy(), y=y.numpy())"),
    ".json": (
        "one JSON value",
        "write one object a line: pandas.read_json(FILE).to_json('rows.jsonl', orient='records', lines=True)",
    ),
    ".zip": ("an archive", "unpack it, with an eye on its size, and name the folder"),
    ".tar": ("an archive", "unpack it, with an eye on its size, and name the folder"),
}


def read_rows(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    split: str = "clean",
    label: str | None = None,
    text: str | None = None,
    like: Modality | None = None,
) -> Rows:
    """Read labelled rows. Nothing in the source is executed, and no pickle is read.

    Args:
        source: one of
            a folder of class folders of images (or of `train` and `test` folders of those), or of images that a
            metadata.csv, .jsonl or .parquet in it names and labels; or of class folders of `.txt` files;
            a `.npz` or `.safetensors` file with `x` (images (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or float in
            [0, 1]; or a table (N, F)) and `y` (integers (N,));
            a `.csv` table of numbers with a column of labels (commas, semicolons or tabs; `.gz` too);
            a `.csv`, `.tsv` or `.jsonl` file with a column of texts (named text, sentence, content, review, message or
            body) and one of labels;
            a `.parquet`, `.arrow` or `.feather` file of any of these, or of images, and a folder of such files
            (`train.csv` and `test.csv`, what `datasets.save_to_disk` writes, `data/train-00000-of-00002.parquet`);
            a file or folder in a format that a kind of sample has for itself, which may come from a plug-in;
            a victim directory, for the training data it was made from (`split="train"`) or its task's other splits;
            a task's name, or its JSON spec, for the split of that name.
        size: side in pixels that a folder's images are scaled to, as squares; by default that of most of them, at
            most 64. channels: 3 or 1; by default those of most images.
        split: "train", "clean" or "test" of a task or victim. A folder with `train` and `test` (or `val`, `valid` ...)
            folders gives the latter for "test" and else the former; others have one part, whatever is
            asked.
        label: the label column of a file; by default one named label, class, target or y (or category, for texts),
            else the last of a table. text: the column of texts; by default one of the names above.
        like: what the model reads, where it is known: rows of that kind are brought to its size.

    Raises:
        InputError: nothing there, nothing readable, or not what it should be; the message names it.
        DataUnavailable: a task whose data set is not on this machine and cannot be fetched.
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    if like is not None:
        settings = like.reader_settings()
        size, channels = size or settings.get("size"), channels or settings.get("channels")
    path = Path(source).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a JSON spec is no path: too long, or with a null
        is_folder = is_file = False
    if is_folder and (path / "card.json").is_file():
        return _of_victim(path, split)
    if is_folder:
        from .image_rows import read_folder

        if (found := _class_folders_of_texts(path, split)) is not None:
            return found
        if (tables := tables_of(path, split == "test")) is not None:
            made = _of_tables(path, tables.files, size, channels, label, text)
            return replace(made, notes=(*tables.notes, *made.notes))
        return read_labelled(path, like) or read_folder(path, size, channels, split, label)
    if is_file:
        return _of_file(path, size, channels, label, text, like)
    return _of_task(source, split)


def _class_folders_of_texts(path: Path, split: str) -> Rows | None:
    from .text_folder import read_text_folder, text_classes

    if holds_images(path) or (found := text_classes(path, split)) is None:
        return None
    return read_text_folder(path, *found)


def _of_file(
    path: Path, size: int | None, channels: int | None, label: str | None, text: str | None, like: Modality | None
) -> Rows:
    kind = kind_of(path)
    if kind in TABLES:
        return _of_tables(path, (path,), size, channels, label, text)
    if text is not None:
        raise InputError(f"{path} has no columns of texts", hint="texts are read from .csv, .tsv and .jsonl files")
    if kind in (".npz", ".safetensors"):
        from .array_rows import read_arrays

        return read_arrays(path, size, channels)
    if (made := read_labelled(path, like)) is not None:
        return made
    said, todo = _ELSEWHERE.get(kind, (f"of a kind that is not read ({kind or 'no suffix'})", _KINDS))
    raise (Unsupported if kind in _ELSEWHERE else InputError)(f"{path} is {said}", hint=todo)


def _of_tables(
    path: Path, files: Sequence[Path], size: int | None, channels: int | None, label: str | None, text: str | None
) -> Rows:
    """The rows of one or more files of one heading: images in a column, texts, or a table of numbers."""
    kind = kind_of(files[0])
    if kind in FRAMES:
        from .frame_rows import read_image_frame

        if text is None and (made := read_image_frame(path, files, size, channels, label)) is not None:
            return made
    if kind in (".jsonl", ".ndjson") or text is not None or text_column(path, files):
        from .text_rows import read_texts

        return read_texts(path, label, text, files)
    from .table_rows import read_table

    return read_table(path, label, files)


def _of_task(source: str, split: str) -> Rows:
    text = source.strip()
    if text.startswith("{"):
        try:
            spec = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a JSON task spec: {error}", hint='write {"name": "vision/digits"}') from None
        task = build(spec, "task")
    else:
        try:
            task = build(text, "task")
        except UnknownName as error:
            raise InputError(f"{source!r} is no file or folder here, and {error.message}", hint=_KINDS) from None
    assert isinstance(task, Task)
    return _rows_of(task, task.load(split, 0), f"{task.name} ({split})")


def _of_victim(path: Path, split: str) -> Rows:
    from torchbands.core.errors import NotApplicable
    from torchbands.zoo import victims

    victim = victims.load(path)
    try:
        data = victim.training_data() if split == "train" else victim.task.load(split, victim.seed)
    except NotApplicable as error:
        raise InputError(f"{path}: {error.reason}") from None
    return _rows_of(victim.task, data, f"{path.name} ({split})")


def _rows_of(task: Task, data: Data, label: str) -> Rows:
    return Rows(data.blind(), task.modality, tuple(map(str, task.class_names)), label, task=task)
