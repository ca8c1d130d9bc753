"""Training rows as tokens, for filters that count them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Batch, Data, take
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.modality import Encoded, Modality

#: Rows that are read, and pairs of a row and a token that are sorted, at once.
TOGETHER, PAIRS = 1 << 14, 1 << 24


def tokens_of(method: Method, modality: Modality, data: Data) -> tuple[Tensor, Tensor]:
    """(N, L) int64 token ids of all rows on the CPU and their (N, L) mask.

    Raises NotApplicable where samples are not made of tokens.
    """
    if not modality.discrete:
        raise NotApplicable(f"{method.name} counts tokens, and {modality.name} samples are made of none")
    parts = [_read(modality, take(data.x, rows)) for rows in torch.arange(len(data)).split(TOGETHER)]
    longest = max((part.values.shape[1] for part in parts), default=1)
    ids = torch.zeros(len(data), longest, dtype=torch.int64)
    mask = torch.zeros(len(data), longest, dtype=torch.bool)
    done = 0
    for e in parts:
        place = slice(done, done + len(e.values)), slice(0, e.values.shape[1])
        ids[place] = e.values.long()
        mask[place] = True if e.mask is None else e.mask
        done += len(e.values)
    return ids, mask


def _read(modality: Modality, part: Batch) -> Encoded:
    """Rows as the model reads them, trimmed; the ids in the fewest bytes that will do, for all parts are held."""
    modality.check(part)
    e: Encoded = modality.encode(part).to(torch.device("cpu")).trimmed()
    return Encoded(e.values.int(), e.mask)


def once(row: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) rows and (P,) features that they hold, each pair once, in the order of the rows."""
    width = int(feature.max()) + 1 if len(feature) else 1
    if bool((row[1:] < row[:-1]).any()):
        order = row.argsort(stable=True)
        row, feature = row[order], feature[order]
    rows, features = [row[:0]], [feature[:0]]
    for part in _runs(row):
        pairs = (row[part] * width + feature[part]).unique()
        rows.append(pairs // width)
        features.append(pairs % width)
    return torch.cat(rows), torch.cat(features)


def _runs(row: Tensor) -> Iterator[slice]:
    """Parts of about PAIRS of sorted rows that cut no row in two."""
    start = 0
    while start < len(row):
        stop = min(len(row), start + PAIRS)
        stop = int(torch.searchsorted(row, row[stop - 1], right=True))
        yield slice(start, stop)
        start = stop


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
