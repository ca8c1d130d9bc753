"""Randomness by identity: a seed is the hash of what it is for, so adding an axis to a sweep reshuffles nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def seed_of(*identity: object) -> int:
    """A 63-bit seed from anything JSON can write; the same identity gives the same seed on every machine."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*identity: object) -> torch.Generator:
    """A CPU generator seeded by identity."""
    return torch.Generator().manual_seed(seed_of(*identity))


@contextmanager
def seeded(*identity: object) -> Iterator[None]:
    """Run code that draws from torch's global generator (initialisers, dropout) and put that generator back after."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed_of(*identity))
        yield


def _mix(z: Tensor) -> Tensor:
    """The splitmix64 finaliser on int64 (multiplication wraps; shifts are made logical by masking)."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


class RowRng:
    """Random numbers that belong to rows: what a row draws does not depend on the batch it comes in.

    Counter based (splitmix64 over seed, row and draw), so a random trigger is the same alone and in any batch.

    Args:
        seed: what tells this use from another.
        rows: (n,) int64, the identity of each row of the batch.
    """

    def __init__(self, seed: int, rows: Tensor) -> None:
        self.seed = seed
        self.rows = rows.to(torch.int64)
        self._draws = 0

    def __len__(self) -> int:
        return len(self.rows)

    def uniform(self, *shape: int) -> Tensor:
        """(n, *shape) float32 in [0, 1)."""
        count = 1
        for side in shape:
            count *= side
        key = _mix(self.rows * _GOLDEN + (seed_of(self.seed, self._draws) - (1 << 62)))
        self._draws += 1
        steps = torch.arange(1, count + 1, device=self.rows.device, dtype=torch.int64) * _GOLDEN
        bits = (_mix(key[:, None] + steps) >> 40) & 0xFFFFFF
        return (bits.to(torch.float32) / float(1 << 24)).view(len(self.rows), *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """(n, *shape) int64 in [0, high)."""
        return (self.uniform(*shape) * high).long().clamp_(max=high - 1)

    def normal(self, *shape: int) -> Tensor:
        """(n, *shape) standard normal float32 (Box-Muller)."""
        radius = torch.sqrt(-2.0 * torch.log1p(-self.uniform(*shape)))
        return radius * torch.cos(2.0 * torch.pi * self.uniform(*shape))

    def at(self, which: Tensor) -> RowRng:
        """Some of the rows, from their first draw on: each draws what it would draw among all."""
        return RowRng(self.seed, self.rows[which])

    def child(self, name: object) -> RowRng:
        """An independent stream for a part, same rows."""
        return RowRng(seed_of(self.seed, name), self.rows)
