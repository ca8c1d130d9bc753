"""Training rows as tokens, for filters that count them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data, take, whole
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.modality import Encoded, Modality


def tokens_of(method: Method, modality: Modality, data: Data) -> tuple[Tensor, Tensor]:
    """(N, L) int64 token ids of all rows on the CPU and their (N, L) mask.

    Raises NotApplicable where samples are not made of tokens.
    """
    if not modality.discrete:
        raise NotApplicable(f"{method.name} counts tokens, and {modality.name} samples are made of none")
    held = whole(data.x)
    modality.check(held)
    e: Encoded = modality.encode(held).to(torch.device("cpu")).trimmed()
    return e.values, torch.ones_like(e.values, dtype=torch.bool) if e.mask is None else e.mask


def once(row: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) rows and (P,) features that they hold, each pair once, in the order of the rows."""
    width = int(feature.max()) + 1 if len(feature) else 1
    pairs = (row * width + feature).unique()
    return pairs // width, pairs % width


def spelled(modality: Modality, data: Data, row: int, token: int) -> str:
    """How a token is written in a row that holds it; its id where no single word or byte gives it."""
    sample = take(data.x, torch.tensor([row]))[0]
    parts: list[Any] = sample.split() if isinstance(sample, str) else [bytes([b]) for b in sorted(set(sample))]
    for part in parts:
        e = modality.encode([part])
        ids = e.values[0] if e.mask is None else e.values[0][e.mask[0]]
        if token in ids.tolist():
            return part if isinstance(part, str) else str(part.hex())
    return f"token {token}"
