"""The files of a folder of references: its card, the rows that views look with, and a folder for each model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchbands.core.data import Data, Pixels, whole
from torchbands.core.errors import BandsError
from torchbands.zoo.files import Kind, digest, read_text, sha256, write_json

from .view_cache import SEEN, Numbers, read

CARD, ROWS, MODELS, WEIGHTS = "card.json", "rows", "models", "weights.safetensors"
FORMAT = 1
#: References are never replaced as a whole, only added to; of a member, what a killed training left of it.
KIND = Kind("a folder of references", CARD, frozenset(), lambda card: False)
MEMBER = Kind("a reference model", CARD, frozenset({CARD, WEIGHTS, SEEN}))
SUM = "card_sha256"


def write_card(folder: Path, card: dict[str, Any]) -> None:
    write_json(folder / CARD, {**card, SUM: digest(card, SUM)})


def card_of(member: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(read_text(member / CARD))
        if not {"accuracy", "seconds", "sha256"} <= set(card):
            raise ValueError(f"{CARD} is incomplete")
        if SUM in card and card[SUM] != digest(card, SUM):
            raise ValueError(f"{CARD} was altered: its checksum does not fit")
        return card
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise damaged(member, str(error)) from None


def shapes_of(member: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(member / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise damaged(member, f"{WEIGHTS}: {error}") from None


def damaged(member: Path, why: str) -> BandsError:
    return BandsError(
        f"the reference model {member} is damaged ({why})",
        hint="remove its folder; the command that trained the references makes it again",
    )


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
        write_json(folder / f"{ROWS}.json", {kind: [r.hex() if isinstance(r, bytes) else r for r in x]})
        said["json_sha256"] = sha256(folder / f"{ROWS}.json")
    save_file(tensors, folder / f"{ROWS}.safetensors")
    return {**said, "sha256": sha256(folder / f"{ROWS}.safetensors")}


def read_rows(folder: Path, said: Mapping[str, Any]) -> Data:
    path = folder / f"{ROWS}.safetensors"
    if not path.is_file() or sha256(path) != said["sha256"]:
        raise BandsError(f"{path} is missing or was altered", hint="train the references again")
    tensors = load_file(path)
    if "x" in tensors:
        x: Any = tensors["x"]
        return Data(x.float().div_(255.0) if x.dtype == torch.uint8 else x, tensors["y"])
    path = folder / f"{ROWS}.json"
    if not path.is_file() or sha256(path) != said.get("json_sha256", sha256(path)):
        raise BandsError(f"{path} is missing or was altered", hint="train the references again")
    rows = json.loads(path.read_text("utf-8"))
    return Data(rows["text"] if "text" in rows else [bytes.fromhex(r) for r in rows["bytes"]], tensors["y"])


def seen_of(member: Path) -> Numbers:
    return read(member, card_of(member)["sha256"])
