"""Arrays from `.npz` and `.safetensors` files: sizes are checked against the file before anything is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.modalities.image import Image
from torchbands.modalities.tabular import Tabular

from .rows import MOST_CLASSES, Rows

#: Most bytes that one array may take when it is unpacked.
MOST_BYTES = 8 << 30
#: What small files may not unpack to: times their size, beyond so many bytes.
MOST_RATIO, SMALL = 100, 64 << 20
_WANTED = "expected arrays x (samples) and y (integer labels): numpy.savez('rows.npz', x=images, y=labels)"


def read_arrays(path: Path, size: int | None = None, channels: int | None = None) -> Rows:
    """Images or a table with labels from a `.npz` (pickled objects are refused) or `.safetensors` file.

    Raises InputError, naming what was found, for anything that is not samples with labels.
    """
    x, y = _npz(path) if path.suffix.lower() == ".npz" else _safetensors(path)
    assert y is not None
    labels = checked_labels(y, path)
    if len(x) != len(labels):
        raise InputError(f"{path}: {len(x)} samples in x but {len(labels)} labels in y")
    if len(x) == 0:
        raise InputError(f"{path} holds no rows")
    return _rows(x, labels, max(2, int(labels.max()) + 1), path, size, channels)


def read_samples(path: Path, size: int | None, channels: int | None, classes: int) -> Rows:
    """The samples of such a file, or of a `.npy` file, as inputs of a model: labels are 0, whatever `y` may say."""
    kind = path.suffix.lower()
    x = _npy(path) if kind == ".npy" else (_npz if kind == ".npz" else _safetensors)(path, ("x",))[0]
    if len(x) == 0:
        raise InputError(f"{path} holds no rows")
    return _rows(x, torch.zeros(len(x), dtype=torch.int64), classes, path, size, channels)


def _rows(x: Tensor, labels: Tensor, classes: int, path: Path, size: int | None, channels: int | None) -> Rows:
    names = tuple(map(str, range(classes)))
    if x.ndim == 2:
        data: Any = numbers(x, path)
        modality: Modality = Tabular.of_table(data, [f"column {i}" for i in range(x.shape[1])])
        return Rows(Data(data, labels), modality, names, path.name)
    data, image, note = images_of(x, path)
    for what, given, found in (("size", size, image.size), ("channels", channels, image.channels)):
        if given not in (None, found):
            raise InputError(f"{path} holds images of {what} {found}, but {given} was asked for")
    return Rows(Data(data, labels), image, names, path.name, notes=(note,))


def checked_labels(y: Tensor, path: Path) -> Tensor:
    """(N,) int64 labels from 0; InputError otherwise."""
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or y.is_complex():
        shape = tuple(y.shape)
        raise InputError(f"{path}: y is integers of shape (N,), got {y.dtype} of shape {shape}", hint="y.argmax(1)")
    y = y.long()
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= MOST_CLASSES):
        raise InputError(f"{path}: labels are 0..{MOST_CLASSES - 1}, got {int(y.min())}..{int(y.max())}")
    return y


def numbers(x: Tensor, path: Path | str) -> Tensor:
    """Finite float32."""
    if x.is_complex() or x.dtype == torch.bool:
        raise InputError(f"{path}: x is {x.dtype}, expected real numbers")
    x = x.float()
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise InputError(f"{path}: x holds values that are not finite, first in row {row}")
    return x


def images_of(x: Tensor, path: Path | str) -> tuple[Any, Image, str]:
    """A column of square images of any layout, what they are, and how they were read. InputError for others."""
    shape = tuple(x.shape)
    if x.ndim == 3:
        x, order = x[:, None], "(N, H, W)"
    elif x.ndim != 4:
        raise InputError(f"{path}: x is images of 3 or 4 dimensions or a table of 2, got shape {shape}")
    else:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first == last:
            said = "could be (N, C, H, W) as well as (N, H, W, C)" if first else "has no axis of 1 or 3 channels"
            raise InputError(f"{path}: x of shape {shape} {said}", hint="save images as (N, C, H, W)")
        x, order = (x, "(N, C, H, W)") if first else (x.permute(0, 3, 1, 2), "(N, H, W, C)")
    if x.shape[2] != x.shape[3] or x.shape[2] == 0:
        raise InputError(f"{path}: images are squares, got {x.shape[2]} x {x.shape[3]}", hint="pad or scale them first")
    image = Image(channels=x.shape[1], size=x.shape[2])
    if x.dtype == torch.uint8:
        return Pixels(x.contiguous()), image, f"x is read as {order}, bytes"
    if not x.is_floating_point():
        raise InputError(f"{path}: images are uint8, or floats in [0, 1], got {x.dtype}", hint="x.astype('uint8')")
    x = numbers(x, path).contiguous()
    image.check(x)
    return x, image, f"x is read as {order}, floats in [0, 1]"


def _npy(path: Path) -> Tensor:
    """One array. What its header promises must lie in the file, and pickled objects are refused."""
    try:
        with path.open("rb") as file:
            _check_header(file, "x.npy", path.stat().st_size, path)
        return torch.from_numpy(_native(np.load(path, allow_pickle=False)))
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{path} is not a readable .npy file: {str(error).splitlines()[0:1]}", hint=_WANTED) from None


def _npz(path: Path, wanted: Sequence[str] = ("x", "y")) -> tuple[Tensor, Tensor | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {name: archive.getinfo(name).file_size for name in archive.namelist()}
            packed = sum(archive.getinfo(name).compress_size for name in archive.namelist())
            if (whole := sum(sizes.values())) > max(SMALL, MOST_RATIO * packed):
                raise InputError(
                    f"{path} unpacks {packed:,} bytes to {whole:,}: no real rows do (a zip bomb?)",
                    hint="save it uncompressed, numpy.savez, where you trust it",
                )
            for name in (f"{w}.npy" for w in wanted):
                if name not in sizes:
                    raise InputError(f"{path} holds {', '.join(sorted(sizes)[:8]) or 'nothing'}", hint=_WANTED)
                with archive.open(name) as member:
                    _check_header(member, name, sizes[name], path)
        with np.load(path, allow_pickle=False) as arrays:
            x = torch.from_numpy(_native(arrays["x"]))
            return x, torch.from_numpy(_native(arrays["y"])) if "y" in wanted else None
    except InputError:
        raise
    except Exception as error:  # a damaged archive may raise anything
        raise InputError(f"{path} is not a readable .npz file: {str(error).splitlines()[0:1]}", hint=_WANTED) from None


def _check_header(member: IO[bytes], name: str, stored: int, path: Path) -> None:
    """What an array's header promises must be what the file holds."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise InputError(f"{path}: {name[0]} holds Python objects, which would have to be unpickled", hint=_WANTED)
    promised = math.prod(shape) * dtype.itemsize
    if promised > stored:
        raise InputError(f"{path}: {name[0]} promises {promised:,} bytes, its file holds {stored:,}")
    # images of bytes stay so; whatever else becomes float32 beside itself
    held = promised if dtype.itemsize == 1 and len(shape) > 2 else promised + 4 * math.prod(shape)
    if held > MOST_BYTES:
        raise InputError(f"{path}: {name[0]} takes {held:,} bytes in memory, the most is {MOST_BYTES:,}")


def _native(array: Any) -> Any:
    """In this machine's byte order, and of a dtype that torch has."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array of {array.dtype} is no numbers", hint=_WANTED)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))


def _safetensors(path: Path, wanted: Sequence[str] = ("x", "y")) -> tuple[Tensor, Tensor | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            names = sorted(tensors.keys())
            if not set(wanted) <= set(names):
                raise InputError(f"{path} holds {', '.join(names[:8]) or 'nothing'}", hint=_WANTED)
            return tensors.get_tensor("x"), tensors.get_tensor("y") if "y" in wanted else None
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a readable .safetensors file: {error}", hint=_WANTED) from None
