"""Converts in-memory data (loaders, data sets, arrays, lists, mappings and data frames) to `Rows`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core import kinds
from torchbands.core.data import Batch, Column, Data, Overlay, Pixels, Some, take, whole
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.networks.layers import Normalize

from .array_rows import images_of, numbers
from .in_memory_columns import Numbers, labels_of, samples
from .in_memory_parts import Held, taken_apart
from .reading import read_rows
from .rows import Rows

#: Columns that are read where they lie.
LAZY = (Pixels, Overlay, Some)


def rows_of(
    given: Any,
    y: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    modality: Modality | None = None,
    label: str | None = None,
    text: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    name: str = "",
) -> Rows:
    """Labelled rows from whatever holds them in memory, or from a path that `read_rows` reads.

    Args:
        given: one of
            a `torch.utils.data.DataLoader` or data set (also one of Hugging Face), of (sample, label) or of mappings;
            a pair (samples, labels), or the samples alone with `y`: tensors, NumPy arrays, lists of texts, of bytes
            (machine code, or encoded images), of PIL images or of arrays, a pandas frame or series;
            a list of pairs or of mappings; a mapping of columns; a pandas frame with a column of labels;
            `Data` and `Rows` as they are; a path or a task's name.
            Images are (N, C, H, W), (N, H, W, C) or (N, H, W), bytes or floats in [0, 1]; tables (N, F).
        y: (N,) labels: whole numbers from 0, or names, which are numbered in sorted order.
        class_names: names of the classes by number; by default the data set's own (`classes`), else the numbers.
        modality: what the samples are, where it is known; by default told from the samples.
        label, text: the columns of labels and of texts of a mapping or frame.
        mean, std: what a loader's Normalize subtracts and divides by, one number or one a channel; undone here, since
            rows are images in [0, 1].
        name: what the rows are called in reports.

    Raises InputError, with what to type next, for anything else, for samples that do not fit each other, and for more
    rows than memory should hold.
    """
    if isinstance(given, Rows):
        return given
    if isinstance(given, (str, Path)):
        return read_rows(str(given), label=label, text=text)
    if isinstance(given, Data):
        made = modality or _modality_of(take(given.x, torch.arange(min(len(given), 1))), given)
        count = max(2, int(given.y.max()) + 1) if len(given) else 2
        names = tuple(class_names) if class_names is not None else tuple(map(str, range(count)))
        return Rows(given.blind(), made, names, name or "rows")
    held = taken_apart(given if y is None else (given, y), label, text)
    called = name or held.name
    if held.y is None:
        raise InputError(
            f"{called} gives samples without labels",
            hint="give (samples, labels), or say which column they are: rows_of(frame, label='...')",
        )
    labels, names, said = labels_of(held.y, called, class_names or held.classes)
    x, found, told = _column(held, called, modality, mean, std)
    if len(x) != len(labels):
        raise InputError(f"{called}: {len(x)} samples but {len(labels)} labels")
    return Rows(Data(x, labels), found, names, called, held.ids, notes=(*held.notes, *said, *told))


def data_of(given: Any, modality: Modality | None = None) -> Data:
    """`Data` as they are, and the rows of anything else that `rows_of` takes."""
    return given if isinstance(given, Data) else rows_of(given, modality=modality).data


def samples_of(given: Any, modality: Modality) -> Batch | Column:
    """Samples of a kind, labelled or not, from what `rows_of` takes; labels are not read.

    Raises InputError for what holds no such samples.
    """
    if isinstance(given, (Rows, Data)):
        return given.data.x if isinstance(given, Rows) else given.x
    if isinstance(given, LAZY) or _fits(given, modality):
        return given
    if isinstance(given, (str, bytes)):
        raise InputError(f"one sample was given, {given[:40]!r}, expected a batch", hint="give a list: [sample]")
    held = taken_apart(given, None, None, labelled=False)
    return _column(held, held.name, modality, None, None)[0]


def reading(module: nn.Module, modality: Modality, mean: Numbers | None, std: Numbers | None) -> nn.Module:
    """A network that takes raw images: the one given, with (x - mean) / std before it where they are given."""
    if mean is None and std is None:
        return module
    shape = modality.row_shape
    if shape is None:
        raise InputError(f"mean and std are for numbers, not for {modality.plural}", hint="leave out mean and std")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return nn.Sequential(_normalize(shape[0], mean, std, 1 + len(shape)).to(device), module)


def _normalize(channels: int, mean: Numbers | None, std: Numbers | None, ndim: int = 4) -> Normalize:
    return Normalize(channels, 0.0 if mean is None else mean, 1.0 if std is None else std, ndim)


def _column(
    held: Held, called: str, modality: Modality | None, mean: Numbers | None, std: Numbers | None
) -> tuple[Any, Modality, tuple[str, ...]]:
    """The samples as a column, their modality, and notes on assumptions made."""
    if isinstance(held.x, LAZY):
        return held.x, modality or _modality_of(take(held.x, torch.arange(1)), held.x), ()
    made: Modality
    x, notes = samples(held.x, called)
    if len(x) == 0:
        raise InputError(f"{called} holds no rows")
    if (mean is not None or std is not None) and isinstance(x, Tensor):
        x = _restored(x, mean, std)
    if modality is not None and _fits(x, modality):
        return x, modality, notes
    if isinstance(x, Tensor) and x.ndim > 2:
        try:
            x, made, said = images_of(x, called)
        except InputError as error:
            raise InputError(error.message, hint=held.normalised or error.hint) from None
        notes = (*notes, said)
    else:
        x = numbers(x, called) if isinstance(x, Tensor) else x
        made = _modality_of(x, x, held.titles)
    if modality is not None:
        modality.check(take(x, torch.arange(len(x))) if isinstance(x, Pixels) else x)
    return x, modality or made, notes


def _restored(x: Tensor, mean: Numbers | None, std: Numbers | None) -> Tensor:
    """What was there before (x - mean) / std; rounding may leave [0, 1] by a little, which is cut."""
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"mean and std are of images (N, C, H, W) of floats, got {x.dtype} of shape {tuple(x.shape)}")
    layer = _normalize(x.shape[1], mean, std)
    back = x.float() * layer.std + layer.mean
    low, high = float(back.min()), float(back.max())
    if low < -0.01 or high > 1.01:
        raise InputError(
            f"with this mean and std undone the images reach from {low:.3g} to {high:.3g}, expected 0 to 1",
            hint="give the mean and std of the loader's own Normalize",
        )
    return back.clamp_(0, 1)


def _fits(x: Any, modality: Modality) -> bool:
    """Whether a batch is what the modality takes, as it is."""
    if not isinstance(x, (Tensor, list, tuple)) or (isinstance(x, Tensor) and x.requires_grad):
        return False
    try:
        modality.check(x)
    except InputError:
        return False
    return True


def _modality_of(first: Any, x: Any, titles: Sequence[str] = ()) -> Modality:
    """The modality, inferred from some samples; its ranges or vocabulary from all of them."""
    found = kinds.of_samples(first, whole(x.x) if isinstance(x, Data) else x, titles)
    if found is not None:
        return found
    kind = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
    raise InputError(
        f"what kind of samples these are cannot be told: {kind}",
        hint="images are (N, C, H, H), tables (N, F), texts lists of str; or say it: rows_of(..., modality=...)",
    )
