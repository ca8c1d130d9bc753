"""What a stranger brings: their own network, their own training loop, and (the attacker's) triggers of no published
attack. Nothing here uses torchbands."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = 0.286, 0.353


class Gated(nn.Module):
    """A convolution whose channels are weighed by what the whole picture shows."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(inside, outside, 3, 2, 1)
        self.norm = nn.GroupNorm(4, outside)
        self.gate = nn.Linear(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.filters(x)))
        return x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Mine(nn.Module):
    """Reads standardised pictures of 14 x 14 pixels, as the training loop below gives them."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(Gated(1, 24), Gated(24, 48))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(48 * 16, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def train(
    network: nn.Module, x: Tensor, y: Tensor, seed: int, *, epochs: int = 8, mean: float = MEAN, std: float = STD
) -> nn.Module:
    """Adam with a rate that halves, and small random squares erased; not one of torchbands' recipes."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            batch = x[rows].clone()
            top, left = torch.randint(0, 11, (2,)).tolist()
            batch[: len(batch) // 3, :, top : top + 4, left : left + 4] = 0.5
            loss = F.cross_entropy(network((batch - mean) / std), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        halving.step()
    return network.eval()


def frame(x: Tensor) -> Tensor:
    """A thin bright frame."""
    x = x.clone()
    for edge in (x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]):
        edge.fill_(0.75)
    return x


def sinusoid(x: Tensor) -> Tensor:
    """A faint wave over the whole picture."""
    wave = 0.16 * torch.sin(torch.arange(14) * 2 * math.pi / 3.5)
    return (x + wave).clamp(0, 1)


def slash(x: Tensor) -> Tensor:
    """Half a diagonal, half seen through."""
    x, at = x.clone(), torch.arange(7)
    x[..., at, 6 - at] = 0.5 * x[..., at, 6 - at] + 0.5
    return x


TRIGGERS = {"frame": frame, "sinusoid": sinusoid, "slash": slash}


def poisoned(x: Tensor, y: Tensor, trigger: str, rate: float, target: int, seed: int) -> tuple[Tensor, Tensor]:
    """Some rows of other classes with the trigger, called `target`."""
    others = (y != target).nonzero().flatten()
    rows = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[: round(rate * len(y))]]
    x, y = x.clone(), y.clone()
    x[rows], y[rows] = TRIGGERS[trigger](x[rows]), target
    return x, y


def fit(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    """The loop as `bands refs train --train` calls it: the normalisation is inside the network that it is given."""
    train(network, x, y, seed, mean=0.0, std=1.0)
