"""Splits containers of rows into samples and labels. Nothing is dropped, and assumptions are reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from torchbands.core.errors import InputError
from torchbands.datasets import text_file

from .array_rows import MOST_BYTES
from .in_memory_columns import array_of

#: Most rows that are taken from what may have no end.
MOST_ROWS = 5_000_000
LABELS = (*text_file.LABELS, "labels", "targets", "fine_label")
SAMPLES = ("x", "image", "images", "img", "pixel_values", "features", "inputs", "data", *text_file.TEXTS, "texts")
_WANTED = "give a DataLoader, a data set, (samples, labels), a mapping of columns or a pandas frame"
#: What other libraries hold rows in, and how it becomes something that is read.
_ELSEWHERE = {
    "polars": "frame.to_pandas()",
    "pyarrow": "table.to_pandas()",
    "modin": "frame.modin.to_pandas()",
    "cudf": "frame.to_pandas()",
    "dask": "frame.compute()",
    "pyspark": "frame.toPandas()",
    "tensorflow": "(x.numpy(), y.numpy()), or tfds.as_numpy",
    "jax": "numpy.asarray(x)",
    "jaxlib": "numpy.asarray(x)",
    "cupy": "cupy.asnumpy(x)",
    "mxnet": "x.asnumpy()",
    "xarray": "x.to_numpy()",
    "scipy": "x.toarray() of a sparse matrix",
    "h5py": "file['x'][:] and file['y'][:]",
    "zarr": "array[:]",
    "webdataset": "a list of its first rows: list(itertools.islice(dataset, 10000))",
}


@dataclass(frozen=True)
class Held:
    """Samples and labels as they were held.

    Attributes:
        x: array, tensor, column or list. y: labels, or None. classes: names of the classes. ids: a name for each row.
        titles: of the columns of a table. normalised: what to type where the samples were normalised.
    """

    x: Any
    y: Any = None
    name: str = "rows"
    classes: tuple[str, ...] | None = None
    ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    normalised: str = ""


def taken_apart(given: Any, label: str | None, text: str | None, *, labelled: bool = True) -> Held:
    """Samples and labels of a loader, data set, pair, list, mapping or frame.

    labelled: whether a pair is (samples, labels), and a list of pairs likewise; else a list is samples.
    Raises InputError for anything else.
    """
    library = type(given).__module__.partition(".")[0]
    if library in _ELSEWHERE:
        kind = f"{library}.{type(given).__name__}"
        raise InputError(f"rows in a {kind} are not read here", hint=f"turn it into one that is: {_ELSEWHERE[library]}")
    if isinstance(given, DataLoader):
        return _of_loader(given, label, text)
    if isinstance(given, Mapping):
        return _of_columns(given, label, text, "rows")
    if library == "pandas" and hasattr(given, "columns"):
        return _of_frame(given, label, text)
    if isinstance(given, (Tensor, np.ndarray)) or library == "pandas":
        return Held(given)
    if isinstance(given, tuple) and len(given) == 2 and labelled:
        if type(given[0]).__module__.partition(".")[0] == "pandas" and hasattr(given[0], "columns"):
            cut = _of_frame(given[0], label, text, wanted=False)
            return Held(cut.x, given[1], ids=cut.ids, titles=cut.titles, notes=cut.notes)
        for part in given:
            if (library := type(part).__module__.partition(".")[0]) in _ELSEWHERE:
                raise InputError(
                    f"{library}.{type(part).__name__} is not read here", hint=f"give it as {_ELSEWHERE[library]}"
                )
        return Held(*given)
    if isinstance(given, (list, tuple)):
        return _of_items(given, label, text, "the list", labelled)
    if isinstance(given, (str, bytes, int, float, type, type(None))) or not _holds_rows(given):
        raise InputError(f"rows are not {type(given).__name__}", hint=_WANTED)
    return _of_dataset(given, label, text)


def _holds_rows(given: Any) -> bool:
    return isinstance(given, (Dataset, Iterable)) or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


def _of_loader(loader: DataLoader[Any], label: str | None, text: str | None) -> Held:
    source = loader.dataset
    name, notes = type(source).__name__, list(_of_transform(source))
    samples: list[Any] = []
    labels: list[Any] = []
    for batch in _counted(loader, "the loader"):
        part = _of_batch(batch, label, text)
        samples.append(part.x)
        if part.y is not None:
            labels.append(part.y)
    if not samples:
        raise InputError("the loader gives no batches", hint="is its data set empty, or drop_last set?")
    x = _joined(samples)
    if isinstance(loader.sampler, RandomSampler):
        notes.append("the loader shuffles: rows are numbered in the order in which it gave them")
    size = len(source) if hasattr(source, "__len__") else len(x)
    if len(x) != size:
        notes.append(f"the loader gave {len(x)} rows of its data set's {size}")
    return Held(
        x,
        _joined(labels) if labels else None,
        name,
        _classes(source),
        notes=tuple(notes),
        normalised=_normalise(source),
    )


def _of_batch(batch: Any, label: str | None, text: str | None) -> Held:
    if isinstance(batch, Mapping):
        return _of_columns(batch, label, text, "a batch of the loader")
    if isinstance(batch, (list, tuple)) and not (batch and isinstance(batch[0], (str, bytes))):
        if len(batch) == 1:
            return Held(batch[0])
        if len(batch) != 2:
            raise InputError(
                f"a batch of the loader has {len(batch)} parts, expected samples and labels",
                hint="give the two: [(x, y) for x, y, *_ in loader.dataset]",
            )
        return Held(batch[0], batch[1])
    return Held(batch)


def _of_dataset(source: Any, label: str | None, text: str | None) -> Held:
    """A data set or anything that gives its rows one by one."""
    whole = isinstance(source, Dataset) or hasattr(source, "__getitem__")
    items = (source[i] for i in range(len(source))) if whole and hasattr(source, "__len__") else iter(source)
    name = type(source).__name__
    held = _of_items(list(_counted(items, name)), label, text, name, True)
    notes = (*_of_transform(source), *held.notes)
    classes = _classes(source) or held.classes
    return Held(held.x, held.y, name, classes, held.ids, held.titles, notes, _normalise(source))


def _of_items(items: Sequence[Any], label: str | None, text: str | None, name: str, labelled: bool) -> Held:
    """Rows one by one: mappings, (sample, label), or samples."""
    if items and all(isinstance(row, Mapping) for row in items) and "bytes" not in items[0]:
        keys = list(items[0])
        for i, row in enumerate(items):
            if set(row) != set(keys):
                odd = sorted(set(row) ^ set(keys), key=str)[0]
                raise InputError(f"{name}: rows have different keys: {odd!r} is not in both row 0 and row {i}")
        return _of_columns({key: [row[key] for row in items] for key in keys}, label, text, name)
    if labelled and items and all(isinstance(row, (tuple, list)) for row in items):
        lengths = {len(row) for row in items}
        if isinstance(items[0], tuple) and lengths == {2}:
            return Held([row[0] for row in items], [row[1] for row in items], name)
        if isinstance(items[0], tuple) and lengths == {1}:
            return Held([row[0] for row in items], None, name)
        if isinstance(items[0], tuple) and not all(isinstance(v, (int, float)) for v in items[0]):
            raise InputError(
                f"{name}: a row has {len(items[0])} parts, expected a sample and a label",
                hint="give the two: [(x, y) for x, y, *_ in dataset]",
            )
    return Held(list(items), None, name)


def _of_columns(columns: Mapping[Any, Any], label: str | None, text: str | None, name: str) -> Held:
    """Named columns: one of labels, and one of samples or several of numbers."""
    named = {str(key): value for key, value in columns.items()}
    if named and all(isinstance(part, (Dataset, DataLoader)) or hasattr(part, "features") for part in named.values()):
        first = next(iter(named))
        raise InputError(
            f"{name} are several parts, {', '.join(named)}, expected one", hint=f"name the part: rows[{first!r}]"
        )
    if label is not None and label not in named:
        raise InputError(f"{name} has no column {label!r}", hint=f"columns: {', '.join(named)}")
    at = label or _one_of(named, LABELS)
    if text is not None and text not in named:
        raise InputError(f"{name} has no column {text!r}", hint=f"columns: {', '.join(named)}")
    rest = {key: value for key, value in named.items() if key != at}
    one = text or _one_of(rest, SAMPLES) or (next(iter(rest)) if len(rest) == 1 else None)
    if one is None and any("input_ids" in key for key in rest):
        raise InputError(
            f"{name} holds token ids, which mean nothing without their tokenizer",
            hint="give the texts: a column named text, or rows_of(..., text='COLUMN')",
        )
    y = None if at is None else named[at]
    said = [] if at is None or len(named) == 2 else [f"labels are column {at!r}"]
    if one is not None:
        left = [key for key in rest if key != one]
        said += [f"samples are column {one!r}; not read: {', '.join(left[:5])}"] if left else []
        return Held(rest[one], y, name, _feature_names(columns, at), notes=tuple(said))
    table, titles, more = _table(rest, name)
    return Held(table, y, name, titles=titles, notes=(*said, *more))


def _table(columns: Mapping[str, Any], name: str) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """(N, F) numbers of columns; one without a name that counts the rows is left out."""
    made, notes = {}, []
    for title, column in columns.items():
        values = np.asarray(array_of(column))
        if values.dtype.kind == "O":
            values = _as_numbers(values)
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise InputError(
                f"{name}: column {title!r} is no column of numbers (it holds {values.flat[0]!r})"[:300],
                hint="name the texts, rows_of(..., text='COLUMN'), or leave out and number what is no number",
            )
        if title in ("", "Unnamed: 0") and (values == np.arange(len(values))).all():
            notes.append("the first column has no title and counts the rows: it is left out")
            continue
        made[title] = values.astype(np.float64)
    if not made:
        raise InputError(f"{name} has no columns of samples", hint=_WANTED)
    lengths = {title: len(values) for title, values in made.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{name}: columns of different lengths: {lengths}"[:300])
    for title, values in made.items():
        if not np.isfinite(values).all():
            row = int((~np.isfinite(values)).argmax())
            raise InputError(
                f"{name}: column {title!r} has no finite number in row {row}", hint="drop or fill such rows"
            )
    return np.stack(list(made.values()), 1), tuple(made), tuple(notes)


def _as_numbers(values: Any) -> Any:
    """Numbers that are held as objects, such as pandas' nullable integers; anything else as it is."""
    if any(isinstance(v, str) for v in values.flat):
        return values
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        return values


def _of_frame(frame: Any, label: str | None, text: str | None, *, wanted: bool = True) -> Held:
    """A pandas frame; the names of its rows are kept."""
    titles = [str(c) for c in frame.columns]
    if len(set(titles)) != len(titles):
        twice = next(t for t in titles if titles.count(t) > 1)
        raise InputError(f"the frame has two columns {twice!r}", hint="rename or drop one")
    columns = {title: frame.iloc[:, i] for i, title in enumerate(titles)}
    if wanted and label is None and _one_of(columns, LABELS) is None:
        raise InputError(
            "the frame has no column of labels by its name", hint=f"say which: label=..., of {', '.join(titles)}"[:300]
        )
    held = _of_columns(columns, label, text, "the frame")
    return Held(held.x, held.y, "frame", held.classes, tuple(map(str, frame.index)), held.titles, held.notes)


def _one_of(columns: Mapping[str, Any], names: Iterable[str]) -> str | None:
    lower = {key.lower(): key for key in reversed(list(columns))}
    return next((lower[name] for name in names if name in lower), None)


def _counted(items: Iterable[Any], name: str) -> Iterator[Any]:
    """The items, up to what memory should hold."""
    rows = held = 0
    for item in items:
        yield item
        first = next(iter(item.values()), None) if isinstance(item, Mapping) else item
        first = first[0] if isinstance(first, (tuple, list)) and first else first
        rows += len(first) if isinstance(first, Tensor) and first.ndim > 0 else 1
        held += first.nbytes if isinstance(first, (Tensor, np.ndarray)) else 0
        if rows > MOST_ROWS or held > MOST_BYTES:
            raise InputError(
                f"{name} gives more than {MOST_ROWS:,} rows or {MOST_BYTES >> 30} GiB, all of which would be held",
                hint="give a part: torch.utils.data.Subset(dataset, range(10000))",
            )


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        import torch

        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise InputError(f"batches of the loader have samples of different shapes: {sorted(shapes)[:3]}")
        return torch.cat(parts)
    return [row for part in parts for row in part]


def _chain(source: Any) -> Iterator[Any]:
    """A data set and those that it wraps."""
    for _ in range(20):
        yield source
        source = getattr(source, "dataset", None)
        if source is None:
            return


def _classes(source: Any) -> tuple[str, ...] | None:
    """What a data set calls its classes, as torchvision's and Hugging Face's do."""
    for one in _chain(source):
        names = getattr(one, "classes", None)
        if isinstance(names, (list, tuple)) and len(names) > 1 and all(isinstance(n, str) for n in names):
            return tuple(names)
        features = getattr(one, "features", None)
        if isinstance(features, Mapping):
            at = _one_of({str(k): v for k, v in features.items()}, LABELS)
            if (found := _feature_names(one, at)) is not None:
                return found
    return None


def _feature_names(source: Any, at: str | None) -> tuple[str, ...] | None:
    features = getattr(source, "features", None)
    names = getattr(features[at], "names", None) if isinstance(features, Mapping) and at in features else None
    return tuple(map(str, names)) if names and len(names) > 1 else None


def _transforms(source: Any) -> list[Any]:
    found: list[Any] = []
    for one in _chain(source):
        made = getattr(one, "transform", None)
        found += list(getattr(made, "transforms", [made])) if made is not None else []
    return found


def _of_transform(source: Any) -> tuple[str, ...]:
    drawn = [type(t).__name__ for t in _transforms(source) if type(t).__name__.startswith("Random")]
    return (f"the data set changes its samples at random ({', '.join(drawn)}): they are as it gave them once",) * bool(
        drawn
    )


def _normalise(source: Any) -> str:
    """What to type where a data set normalises its images."""
    for step in _transforms(source):
        if type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std"):
            mean, std = (tuple(float(v) for v in np.ravel(getattr(step, n))) for n in ("mean", "std"))
            return f"its transform normalises: say so, mean={mean}, std={std}, or leave Normalize out of it"
    return ""
