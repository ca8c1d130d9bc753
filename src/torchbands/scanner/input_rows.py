"""The inputs that a guard checks: samples of the kind that its model reads, with labels or without."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.datasets.cells import FRAMES, headed, index_column, is_number, kind_of, read_cells, text_of
from torchbands.datasets.folder import SUFFIXES
from torchbands.datasets.text_file import texts_of

from .array_rows import numbers, read_samples
from .own_format import read_unlabelled
from .reading import read_rows
from .rows import Rows
from .table_rows import LABELS, is_heading

#: Kinds of files of texts: rows with a column of them, or one a line.
_TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", *FRAMES)


def read_inputs(
    source: str, reads: Modality, classes: int, *, text: str | None = None, label: str | None = None
) -> Rows:
    """Read samples for a model that reads `reads`; labels are not needed, and are 0 in what is returned.

    Args:
        source: one image, or a folder with images anywhere below it; `.npz` or `.safetensors` with `x`, `.npy`; a table
            (columns by the titles of the model's own table, where it has a heading); `.csv`, `.tsv` or `.jsonl` with a
            column of texts, `.txt` with one text a line; a file in a format of the model's own kind; or what
            `read_rows` knows besides: a victim directory, a task.
        text: the column of texts. label: a column of a table that is no sample.

    Raises InputError where nothing can be read, or not by this model.
    """
    path = Path(source).expanduser()
    settings = reads.reader_settings()
    size, channels = settings.get("size"), settings.get("channels")
    found = read_unlabelled(path, reads, classes)
    if found is None and path.is_file():
        found = _of_file(path, reads, size, channels, classes, text, label)
    elif found is None and path.is_dir() and not (path / "card.json").is_file() and size and channels:
        from .image_rows import read_images

        found = read_images(path, size, channels, classes)
    if found is None:
        found = read_rows(source, size=size, channels=channels, split="test", label=label, text=text)
    first = take(found.data.x, torch.arange(1))
    try:
        reads.check(reads.despite_range(first))
    except InputError as error:
        raise InputError(
            f"the guarded model does not read {source}: {error.message}",
            hint="name inputs of the kind it was fitted on",
        ) from None
    return found


def _of_file(
    path: Path,
    reads: Modality,
    size: int | None,
    channels: int | None,
    classes: int,
    text: str | None,
    label: str | None,
) -> Rows | None:
    kind = kind_of(path)
    if kind in SUFFIXES and size is not None and channels is not None:
        from .image_rows import read_images

        return read_images(path, size, channels, classes)
    if kind in (".npz", ".safetensors", ".npy"):
        return read_samples(path, size, channels, classes)
    if reads.has_words and kind in _TEXTS:
        lines = [line for line in text_of(path).splitlines() if line.strip()] if kind == ".txt" else None
        texts, note = (lines, "one text a line") if lines is not None else texts_of(path, text or "")
        if not texts:
            raise InputError(f"{path} holds no texts")
        made = Data(texts, torch.zeros(len(texts), dtype=torch.int64))
        return Rows(made, reads, _names(classes), path.name, notes=(note,))
    if kind in (".csv", ".tsv") or (kind in FRAMES and size is None):
        return _table(path, reads, classes, label)
    return None


def _table(path: Path, reads: Modality, classes: int, label: str | None) -> Rows:
    """Columns by the titles of the model's table, where the file has them all; else in order, less one of labels."""
    cells = read_cells(path)
    if not cells.rows:
        raise InputError(f"{path} holds no rows")
    titled = is_heading(cells.rows)
    titles = headed(cells.rows[0], path) if titled else [f"column {i}" for i in range(len(cells.rows[0]))]
    body = cells.rows[1:] if titled else cells.rows
    wanted = reads.column_titles()
    if wanted and set(wanted) <= set(titles):
        at = [titles.index(title) for title in wanted]
    else:
        index = index_column(titles, body)
        drop = {label} if label is not None else {t for t in titles if titled and t.lower() in LABELS}
        at = [i for i, title in enumerate(titles) if i != index and title not in drop]
        if wanted and len(at) != len(wanted):
            raise InputError(
                f"{path} has {len(at)} columns of numbers, the model reads {len(wanted)}: {', '.join(wanted[:8])}",
                hint="give the file a heading with these titles",
            )
    bad = next(((r, titles[i]) for r, row in enumerate(body, 1) for i in at if not is_number(row[i])), None)
    if bad is not None:
        raise InputError(f"{path}: row {bad[0]} of the body has no number in column {bad[1]!r}")
    if not body:
        raise InputError(f"{path} has a heading but no rows")
    x: Tensor = numbers(torch.tensor([[float(row[i]) for i in at] for row in body], dtype=torch.float64), path)
    read = f"columns {', '.join(titles[i] for i in at[:5])}" + (" ..." if len(at) > 5 else "")
    made = Data(x, torch.zeros(len(x), dtype=torch.int64))
    return Rows(made, reads, _names(classes), path.name, notes=(read, *cells.notes))


def _names(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))
