"""Which clients take part in a round, and in which rounds the malicious ones attack."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch

from torchbands.core.errors import InputError

Participation = Literal["random", "fixed"]


def at_random(clients: Sequence[int], count: int, rng: torch.Generator) -> list[int]:
    """So many of the clients, in order."""
    return [clients[i] for i in torch.randperm(len(clients), generator=rng)[:count].sort().values.tolist()]


def at_fixed_rounds(
    clients: Sequence[int], malicious: Collection[int], count: int, due: bool, rng: torch.Generator
) -> list[int]:
    """All malicious clients where they are due and none where they are not, filled up with honest ones at random."""
    bad = [c for c in clients if c in malicious] if due else []
    honest = [c for c in clients if c not in malicious]
    if len(bad) > count:
        raise InputError(
            f"{count} clients take part in a round, fewer than the {len(bad)} malicious ones of a fixed schedule",
            hint="a larger fraction, or participation=random",
        )
    return sorted((*bad, *at_random(honest, count - len(bad), rng)))
