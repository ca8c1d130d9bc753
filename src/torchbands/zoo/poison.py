"""Saving and loading the poisoned rows of a victim: row numbers, labels and samples, compressed."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchbands.core.data import Batch
from torchbands.core.errors import DamagedVictim
from torchbands.core.poison import Poison

FILE = "poison.safetensors"
#: What the samples of one poison may take in memory.
MOST = 8 * 2**30


def save_poison(poison: Poison, at: Path) -> None:
    """Write poison.safetensors into a folder."""
    raw, about = _packed(poison.x)
    held = {
        "rows": poison.rows,
        "y": poison.y,
        "poisoned": poison.poisoned,
        "sizes": about[1],
        "x": torch.frombuffer(bytearray(zlib.compress(raw, 6) or b"\0"), dtype=torch.uint8),
    }
    save_file(held, at / FILE, {"kind": about[0], "bytes": str(len(raw))})


def load_poison(folder: Path) -> Poison:
    """Read it. Raises DamagedVictim where its parts do not fit each other."""
    try:
        with safe_open(folder / FILE, "pt") as file:
            about = dict(file.metadata() or {})
            held = {name: file.get_tensor(name) for name in ("rows", "y", "poisoned", "sizes", "x")}
        size = int(about["bytes"])
        if not 0 <= size <= MOST:
            raise ValueError(f"it says that it holds {size:,} bytes")
        opened = zlib.decompressobj()
        raw = opened.decompress(held["x"].numpy().tobytes(), max(1, size))
        if len(raw) != size or opened.unconsumed_tail:
            raise ValueError("it does not hold what it says")
        poison = Poison(held["rows"], _opened(raw, about["kind"], held["sizes"]), held["y"], held["poisoned"])
        if not len(poison.x) == len(poison.y) == len(poison.poisoned) == len(poison):
            raise ValueError("its parts differ in length")
        if poison.poisoned.dtype != torch.bool or poison.y.dtype != torch.int64 or poison.rows.dtype != torch.int64:
            raise ValueError("its parts are of other types")
        return poison
    except (KeyError, ValueError, TypeError, RuntimeError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedVictim(f"{folder / FILE} is damaged ({error})", hint="make the victim again") from None


def _packed(x: Batch) -> tuple[bytes, tuple[str, Tensor]]:
    """Samples as bytes, with their kind and shape, or the length of each."""
    if isinstance(x, Tensor):
        return x.detach().cpu().float().contiguous().numpy().tobytes(), ("float32", torch.tensor(list(x.shape)))
    parts = [row.encode("utf-8", "surrogatepass") if isinstance(row, str) else row for row in x]
    kind = "bytes" if x and isinstance(x[0], bytes) else "text"
    return b"".join(parts), (kind, torch.tensor([len(part) for part in parts], dtype=torch.int64))


def _opened(raw: bytes, kind: str, sizes: Tensor) -> Batch:
    if kind == "float32":
        return torch.from_numpy(np.frombuffer(raw, np.float32).copy()).reshape(sizes.tolist())
    if kind not in ("text", "bytes") or int(sizes.sum()) != len(raw) or bool((sizes < 0).any()):
        raise ValueError("its samples are of another kind or length")
    ends = sizes.cumsum(0).tolist()
    parts = [raw[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]
    return [part.decode("utf-8", "surrogatepass") for part in parts] if kind == "text" else parts
