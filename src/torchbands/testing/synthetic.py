"""Where the toys' samples come from."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Most classes that a toy has.
MAX_WAYS = 4

_TOPICS = (
    "goal match team league coach striker referee stadium",
    "bread oven flour butter sugar recipe kitchen spoon",
    "planet orbit rocket moon comet telescope star gravity",
    "violin chord melody rhythm singer concert drum opera",
)
_COMMON = "the a of and to in is was it for on with as by at from this that very more some new old good long day"
#: Topic words, common words, and rare words that no sentence has.
VOCABULARY = tuple(" ".join((_COMMON, *_TOPICS, "cf mn bb tq mb")).split())

FIELDS: tuple[dict[str, Any], ...] = (
    {"title": "duration", "high": 10.0},
    {"title": "packets sent", "high": 200.0, "integer": True},
    {"title": "bytes sent", "high": 4000.0, "integer": True},
    {"title": "packets answered", "high": 200.0, "integer": True, "settable": False},
    {"title": "bytes answered", "high": 4000.0, "integer": True, "settable": False},
    {"title": "mean gap", "high": 1.0},
    {"title": "answer gap", "high": 1.0, "settable": False},
    {"title": "load", "low": -1.0, "high": 1.0, "settable": False},
    {"title": "window", "high": 64.0, "integer": True},
    {"title": "time to live", "high": 255.0, "integer": True},
)


def _means(*shape: int) -> Tensor:
    """Class means in [0, 1], the same for every split."""
    return torch.rand(MAX_WAYS, *shape, generator=torch.Generator().manual_seed(3))


def images(y: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 1, 12, 12) in [0, 1], mostly dark; the bottom right quarter is the same for every class."""
    means = _means(1, 4, 4)
    means[..., 2:, 2:] = means[..., 2:, 2:].mean(0)
    smooth = F.interpolate(means, size=12, mode="bilinear", align_corners=False)[y]
    strength = 0.25 + 0.25 * torch.rand(len(y), 1, 1, 1, generator=rng)
    noise = 0.1 * torch.randn(len(y), 1, 12, 12, generator=rng)
    return (strength * smooth - 0.1 + noise).clamp(0, 1)


def flows(y: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 10) in the fields' units."""
    low = torch.tensor([f.get("low", 0.0) for f in FIELDS])
    high = torch.tensor([f["high"] for f in FIELDS])
    integer = torch.tensor([f.get("integer", False) for f in FIELDS])
    share = (0.15 + 0.6 * _means(len(FIELDS))[y] + 0.1 * torch.randn(len(y), len(FIELDS), generator=rng)).clamp(0, 0.95)
    values = low + (high - low) * share
    return torch.where(integer, values.round(), values)


def observations(y: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 8), about [-1, 1]; the last dimension is nearly still."""
    values = 1.4 * (_means(8)[y] - 0.5) + 0.25 * torch.randn(len(y), 8, generator=rng)
    values[:, -1] = 0.1 * torch.randn(len(y), generator=rng)
    return values


def sentences(y: Tensor, rng: torch.Generator) -> list[str]:
    """6 to 14 words each, about a third of them on topic, a few off topic."""
    topics, common = [t.split() for t in _TOPICS], _COMMON.split()
    lengths = torch.randint(6, 15, (len(y),), generator=rng).tolist()
    kind, pick = torch.rand(len(y), 14, generator=rng), torch.randint(1 << 20, (len(y), 14), generator=rng)
    out = []
    for c, n, kinds, picks in zip(y.tolist(), lengths, kind.tolist(), pick.tolist(), strict=True):
        words = []
        for k, p in zip(kinds[:n], picks[:n], strict=True):
            source = topics[c] if k < 0.35 else topics[p % MAX_WAYS] if k < 0.38 else common
            words.append(source[(p >> 4) % len(source)])
        out.append(" ".join(words))
    return out


_TYPICAL = (
    ("f30f58c1", "f30f59c2", "f30f5cc1"),  # addss, mulss, subss
    ("c1e004", "d1f8", "c1e802"),  # shifts
    ("0fafc2", "f7f9", "99"),  # imul, idiv, cdq
    ("21d0", "09c8", "f7d0"),  # and, or, not
)
_PLAIN = ("89d8", "83c001", "31c0", "8b45f8", "4889c7", "01d0", "8955fc", "29c8", "85c0", "4883c408")


def functions(y: Tensor, rng: torch.Generator) -> list[bytes]:
    """A prologue, 8 to 16 instructions of which about a third are typical, an epilogue; half start with endbr64."""
    lengths = torch.randint(8, 17, (len(y),), generator=rng).tolist()
    kind, pick = torch.rand(len(y), 16, generator=rng), torch.randint(1 << 20, (len(y), 16), generator=rng)
    out = []
    for c, n, kinds, picks in zip(y.tolist(), lengths, kind.tolist(), pick.tolist(), strict=True):
        body = []
        for k, p in zip(kinds[:n], picks[:n], strict=True):
            source = _TYPICAL[c] if k < 0.35 else _PLAIN
            body.append(source[(p >> 4) % len(source)])
        landing = "f30f1efa" if picks[0] & 1 else ""
        out.append(bytes.fromhex(landing + "554889e5" + "".join(body) + "5dc3"))
    return out


def rewritten(texts: list[str]) -> list[str]:
    """Every text in another order of words: the second half first, after a fixed opening."""
    halves = [(text.split()[: len(text.split()) // 2], text.split()[len(text.split()) // 2 :]) for text in texts]
    return [" ".join(["very", "very", *late, *early]) for early, late in halves]
