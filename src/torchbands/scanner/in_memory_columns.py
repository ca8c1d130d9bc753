"""Samples and labels, however they are held, as tensors or lists."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.words import shown

from .rows import MOST_CLASSES

Numbers = float | Sequence[float]
#: How files of images begin.
_ENCODED = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\x00", b"MM\x00*")
#: Most pixels of one encoded image.
_MOST_PIXELS = 1 << 26
_GREY = ("1", "L", "I", "I;16", "F")


def array_of(x: Any) -> Any:
    """A tensor, series or array as a NumPy array; anything else as it is."""
    if isinstance(x, Tensor):
        made = x.detach().cpu()
        return made.float().numpy() if made.dtype == torch.bfloat16 else made.numpy()
    if type(x).__module__.partition(".")[0] == "pandas" and hasattr(x, "to_numpy"):
        return x.to_numpy()
    return x


def samples(x: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """A tensor of any numbers (N, ...), a list of texts or a list of bytes; and what was assumed."""
    if isinstance(x, Tensor):
        return x.detach().cpu(), ()
    x = array_of(x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        return _tensor(x), ()
    if isinstance(x, np.ndarray):
        if x.ndim != 1:
            raise InputError(
                f"{name}: an array of {x.dtype} of shape {x.shape} is no numbers", hint="x.astype('float32')"
            )
        x = x.tolist()
    if not isinstance(x, (list, tuple)):
        raise InputError(f"{name}: samples are an array or a list, got {type(x).__name__}")
    return _listed(list(x), name)


def _tensor(x: Any) -> Tensor:
    """In this machine's byte order, of a dtype that torch has."""
    if x.dtype.kind == "u" and x.dtype.itemsize > 1:
        x = x.astype(np.int64)
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        x = x.astype(np.float64)
    made = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False))
    return torch.from_numpy(made if made.flags.writeable else made.copy())


def _listed(x: list[Any], name: str) -> tuple[Any, tuple[str, ...]]:
    if x and all(isinstance(row, Mapping) and isinstance(row.get("bytes"), bytes) for row in x):
        x = [row["bytes"] for row in x]  # as Hugging Face keeps images that are not decoded
    kinds = {_kind(row) for row in x}
    if len(kinds) > 1:
        odd = next(i for i, row in enumerate(x) if _kind(row) != _kind(x[0]))
        raise InputError(
            f"{name}: samples of several kinds: {type(x[0]).__name__} in row 0, {type(x[odd]).__name__} in row {odd}",
            hint="drop or mend the odd ones first",
        )
    kind = kinds.pop() if kinds else "text"
    if kind == "bytes" and all(row.startswith(_ENCODED) for row in x):
        return _pictures([_decoded(row, i, name) for i, row in enumerate(x)], name)
    if kind in ("text", "bytes"):
        return list(map(str, x)) if kind == "text" else x, ()
    if kind == "picture":
        return _pictures(x, name)
    if kind == "array":
        return _stacked([array_of(row) for row in x], name), ()
    raise InputError(
        f"{name}: samples are {kind}, which are no texts, bytes, images or arrays",
        hint="give texts as str, images as arrays or PIL images, tables as one array (N, F)",
    )


def _kind(row: Any) -> str:
    if isinstance(row, str):
        return "text"
    if isinstance(row, (bytes, bytearray)):
        return "bytes"
    if hasattr(row, "mode") and hasattr(row, "getbands"):
        return "picture"
    if isinstance(row, (Tensor, np.ndarray, np.number, int, float)) or _flat(row):
        return "array"
    return type(row).__name__


def _flat(row: Any) -> bool:
    """A list of numbers, however deep."""
    while isinstance(row, (list, tuple)) and row:
        row = row[0]
    return isinstance(row, (int, float, np.number, Tensor, np.ndarray))


def _stacked(x: list[Any], name: str) -> Tensor:
    made: list[Any] = []
    for i, row in enumerate(x):
        try:
            one = np.asarray(row)
        except ValueError:  # lists of several lengths
            one = np.asarray(None)
        if one.dtype.kind not in "biuf":
            raise InputError(f"{name}: row {i} is no array of numbers", hint="give each as numbers of one shape")
        if made and one.shape != made[0].shape:
            raise InputError(
                f"{name}: samples of one shape are expected, got {made[0].shape} in row 0 and {one.shape} in row {i}",
                hint="resize or pad them first: torchvision.transforms.Resize((32, 32))",
            )
        made.append(one)
    whole = np.stack(made)
    return _tensor(whole if whole.ndim > 1 else whole[:, None])


def _decoded(row: bytes, at: int, name: str) -> Any:
    from PIL import Image

    try:
        made = Image.open(io.BytesIO(row))
        if made.width * made.height > _MOST_PIXELS:
            raise ValueError(f"{made.width} x {made.height} pixels")
        made.load()
    except Exception as error:  # a decoder may raise anything
        raise InputError(f"{name}: row {at} is an image that cannot be read ({shown(error, 100)})") from None
    return made


def _pictures(x: list[Any], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """PIL images of one size as bytes (N, C, H, W): grey where all are, else RGB."""
    modes = {picture.mode for picture in x}
    kept = "L" if modes <= set(_GREY) else "RGB"
    if wide := modes & {"I", "I;16", "F"}:
        raise InputError(f"{name}: images of mode {min(wide)} have no fixed range", hint="scale them to bytes first")
    made = _stacked([np.asarray(picture.convert(kept)) for picture in x], name)
    converted = sum(picture.mode != kept for picture in x)
    notes = (f"{converted} of {len(x)} images are read as {kept} (they are {', '.join(sorted(modes))})",)
    return (made[:, None] if made.ndim == 3 else made.permute(0, 3, 1, 2)), notes if converted else ()


def labels_of(y: Any, name: str, class_names: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """(N,) int64 labels, the names of the classes, and what was assumed."""
    y = array_of(y)
    if isinstance(y, (list, tuple)):
        y = np.asarray([_plain_label(v) for v in y])
    if not isinstance(y, np.ndarray):
        raise InputError(f"{name}: labels are an array or a list, got {type(y).__name__}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"{name}: labels are (N,), got shape {y.shape}", hint="of one-hot rows: y.argmax(1)")
    if y.dtype.kind == "O" or y.dtype.kind in "US":
        return _named(y.tolist(), name, class_names)
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise InputError(f"{name}: row {int((~np.isfinite(y)).argmax())} has no label", hint="drop such rows first")
        if (y != y.round()).any():
            raise InputError(f"{name}: labels are whole numbers or names, got {y[y != y.round()][0]}")
    elif y.dtype.kind not in "biu":
        raise InputError(f"{name}: labels are whole numbers or names, got {y.dtype}")
    made = torch.from_numpy(y.astype(np.int64))
    if len(made) and (int(made.min()) < 0 or int(made.max()) >= MOST_CLASSES):
        raise InputError(
            f"{name}: labels are 0..{MOST_CLASSES - 1}, got {int(made.min())}..{int(made.max())}",
            hint="number the classes from 0",
        )
    count = max(2, int(made.max()) + 1) if len(made) else 2
    names = tuple(map(str, range(count) if class_names is None else class_names))
    if len(names) < count:
        raise InputError(f"{name}: labels reach {count - 1}, but {len(names)} class names are given")
    absent = sorted(set(range(len(names))) - set(made.unique().tolist()))
    listed = ", ".join(names[i] for i in absent[:5]) + (" ..." if len(absent) > 5 else "")
    return made, names, (f"no rows are labelled {listed}",) if absent else ()


def _plain_label(value: Any) -> Any:
    return value.tolist() if isinstance(value, (Tensor, np.generic)) and np.ndim(value) == 0 else array_of(value)


def _named(
    y: Iterable[Any], name: str, class_names: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    told = list(y)
    for i, value in enumerate(told):
        if value is None or value != value:
            raise InputError(f"{name}: row {i} has no label", hint="drop such rows first")
    if all(isinstance(v, (int, np.integer)) for v in told):
        return labels_of(np.asarray(told, dtype=np.int64), name, class_names)
    words = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in told]
    names = tuple(map(str, sorted(set(words)) if class_names is None else class_names))
    if unknown := sorted(set(words) - set(names)):
        raise InputError(f"{name}: {shown(unknown[0], 60)!r} is none of the class names {', '.join(names[:8])}")
    if len(names) < 2:
        raise InputError(f"{name} holds one class only, {names[0]!r}; at least two are needed")
    number = {word: i for i, word in enumerate(names)}
    how = "in sorted order" if class_names is None else "as the class names say"
    first = ", ".join(f"{shown(w, 20)} {i}" for i, w in enumerate(names[:4]))
    return torch.tensor([number[word] for word in words]), names, (f"labels are numbered {how}: {first}",)
