"""The files of a folder of references: its card, the rows that views look with, and a folder for each model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchbands.core.data import Data, Pixels, whole
from torchbands.zoo.artifact import Kind, save_tensors
from torchbands.zoo.files import read_text, sha256, write_json
from torchbands.zoo.modality import FILES

from .view_cache import SEEN, Numbers, read

CARD, ROWS, MODELS, WEIGHTS = "card.json", "rows", "models", "weights.safetensors"
FORMAT = 1
TENSORS, TEXTS = f"{ROWS}.safetensors", f"{ROWS}.json"


def _rows(card: Mapping[str, Any]) -> dict[str, str]:
    """The rows that views look with. Older versions wrote no checksum of rows that are no tensors."""
    said = card["rows"]
    return {TENSORS: said["sha256"], **({TEXTS: said["json_sha256"]} if "json_sha256" in said else {})}


#: References are never replaced as a whole, only added to.
KIND = Kind(
    name="a folder of references",
    card=CARD,
    files=frozenset({CARD, MODELS, TENSORS, TEXTS, *FILES}),
    replaced=False,
    entries=frozenset({"architecture", "modality", "rows", "recipes"}),
    sums=_rows,
    needs=frozenset({TENSORS}),
    format=FORMAT,
    unsummed=True,
    again="train the references again",
)
#: What a killed training left of a member is replaced. What views saw of it is added later, with a checksum of its own.
MEMBER = Kind(
    name="a reference model",
    card=CARD,
    files=frozenset({CARD, WEIGHTS, SEEN}),
    entries=frozenset({"accuracy", "seconds"}),
    sums=lambda card: {WEIGHTS: card["sha256"]},
    needs=frozenset({WEIGHTS}),
    format=None,
    unsummed=True,
    again="remove its folder; the command that trained the references makes it again",
)


def shapes_of(member: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(member / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MEMBER.damaged(member, f"{WEIGHTS}: {error}") from None


def write_rows(folder: Path, clean: Data) -> dict[str, Any]:
    x = clean.x.bytes if isinstance(clean.x, Pixels) else whole(clean.x)
    said: dict[str, Any] = {"n": len(clean)}
    tensors = {"y": clean.y.contiguous()}
    if isinstance(x, Tensor):
        as_bytes = (x * 255).round() if x.is_floating_point() else x.float()
        exact = x.is_floating_point() and bool(((as_bytes / 255 - x).abs() < 1e-6).all()) and x.numel() > 0
        exact = exact and float(x.min()) >= 0 and float(x.max()) <= 1 and x.ndim == 4
        tensors["x"] = as_bytes.to(torch.uint8).contiguous() if exact else x.contiguous()
    else:
        kind = "bytes" if isinstance(x[0], bytes) else "text"
        write_json(folder / TEXTS, {kind: [r.hex() if isinstance(r, bytes) else r for r in x]})
        said["json_sha256"] = sha256(folder / TEXTS)
    save_tensors(tensors, folder / TENSORS)
    return {**said, "sha256": sha256(folder / TENSORS)}


def read_rows(folder: Path) -> Data:
    """The rows of a folder whose files were checked."""
    tensors = KIND.tensors(folder, TENSORS)
    if "x" in tensors:
        x: Any = tensors["x"]
        return Data(x.float().div_(255.0) if x.dtype == torch.uint8 else x, tensors["y"])
    rows = json.loads(read_text(folder / TEXTS))
    return Data(rows["text"] if "text" in rows else [bytes.fromhex(r) for r in rows["bytes"]], tensors["y"])


def seen_of(member: Path) -> Numbers:
    return read(member, MEMBER.read_card(member)["sha256"])
