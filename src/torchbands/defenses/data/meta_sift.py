"""META-SIFT: row weights that split the data so that a model trained on one part predicts the other badly."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Data, take
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.resident import resident
from torchbands.core.seeding import generator, seeded
from torchbands.learners.sgd import shift

from ._sifters import fresh

#: Rows whose random shifts and rotations are drawn together when weights are read, on every device.
TOGETHER = 256


@method(
    "meta-sift", paper="Zeng et al., USENIX Security 2023, arXiv:2210.06516", needs=("gradients", "weights"), version=2
)
class MetaSift(DataFilter):
    """One minus the weight that small networks give a row after bilevel training, without any trusted rows.

    A sifter (a fresh network) is trained for `warm_up` plain epochs, then for `epochs` with rows weighted by a weight
    network of their loss. Before each such step the weights are tried: the sifter makes a virtual step on the weighted
    loss, and the weight network is changed so that the rows it weights low have a high loss after that step. In the
    end every row's weight is read from its loss on a randomly shifted and rotated copy, and averaged over sifters.
    `sifted` picks the rows of highest weight, each class by its share.

    Deviations from the paper: virtual step and its gradient are taken at the linear head alone, where both have closed
    form (the paper's learned gates keep the last layers; no second derivative of the network is needed); the weight
    network is trained by Adam, for with plain steps of the published size it stays as it was drawn on small data; three
    sifters instead of five, of a larger rate; rows that are no images are weighted as they are, unshifted.

    What it is worth: the weight falls with the loss, so it rests on poison being learned later than the rest. Wrong
    labels and rare poison are sifted out. A patch on a third of a class is learned within the first epoch: then a pick
    holds more of it than chance. `cross-split` does not rest on that.
    """

    contract_rate: ClassVar[float] = 0.01

    sifters: int = 3
    """Independent repetitions, averaged."""
    warm_up: int = 1
    """Epochs without weighting."""
    epochs: int = 1
    """Epochs with weighting."""
    batch: int = 64
    """Batch size."""
    lr: float = 1e-3
    """Learning rate of the sifter (AdamW)."""
    meta_lr: float = 0.1
    """Learning rate of the virtual step."""
    weight_lr: float = 5e-3
    """Learning rate of the weight network (Adam)."""
    shift: float = 0.125
    """Largest random shift when weights are read out, as a fraction of the image's side."""
    degrees: float = 25.0
    """Largest random rotation when weights are read out, in degrees."""

    def __post_init__(self) -> None:
        if min(self.sifters, self.batch) < 1 or self.warm_up < 0 or self.epochs < 1:
            raise InputError("meta-sift: sifters, epochs and batch are at least 1 and warm_up at least 0")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        if model.head is None:
            raise NotApplicable("no linear head was found, and the split is tried there")
        weights = torch.stack([self._sift(data, model, n, seed) for n in range(self.sifters)]).mean(0)
        return Suspicion(per_row(1 - weights, len(data), self.name))

    def _sift(self, data: Data, model: Model, number: int, seed: int) -> Tensor:
        """(N,) weights in [0, 1] by one sifter."""
        sifter, rng = fresh(model, number, seed), generator("meta-sift", number, seed)
        with seeded("meta-sift", number, seed):
            weigh = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 150), nn.ReLU(), nn.Linear(150, 1))
            outer = torch.optim.Adam(weigh.parameters(), lr=self.weight_lr)
            inner = torch.optim.AdamW(sifter.module.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.05)
            assert sifter.head is not None
            caught: list[Tensor] = []
            hook = sifter.module.get_submodule(sifter.head).register_forward_pre_hook(
                lambda _, args: caught.append(args[0].detach())
            )
            encoded, y = resident(sifter, data.x), data.y.to(sifter.device)
            weigh, fast = weigh.to(y.device), sifter.dtype is torch.bfloat16
            try:
                with sifter.training():
                    for epoch in range(self.warm_up + self.epochs):
                        for rows in torch.randperm(len(y), generator=rng).to(y.device).split(self.batch):
                            if len(rows) == 1 < len(y):
                                continue  # BatchNorm has no statistics of one row
                            caught.clear()
                            with torch.autocast(y.device.type, dtype=torch.bfloat16, enabled=fast):
                                logits = sifter.run(encoded.at(rows)).float()
                            losses = F.cross_entropy(logits, y[rows], reduction="none")
                            if epoch < self.warm_up:
                                loss = losses.mean()
                            else:
                                self._turn(weigh, outer, logits.detach(), caught[-1].float().flatten(1), y[rows])
                                with torch.no_grad():
                                    weights = _weights(weigh, losses)
                                loss = (weights / weights.sum().clamp_min(1e-8) * losses).sum()
                            inner.zero_grad(set_to_none=True)
                            loss.backward()
                            inner.step()
            finally:
                hook.remove()
        with torch.no_grad():
            parts = []
            for rows in torch.arange(len(data)).split(TOGETHER):
                logits = sifter.logits(self._moved(take(data.x, rows), rng))
                parts.append(_weights(weigh.cpu(), F.cross_entropy(logits, data.y[rows], reduction="none")))
        return torch.cat(parts)

    def _turn(self, weigh: nn.Module, outer: torch.optim.Optimizer, logits: Tensor, h: Tensor, y: Tensor) -> None:
        """One step of the weight network: after a virtual step of the head, the loss of what it leaves out rises."""
        weights = _weights(weigh, F.cross_entropy(logits, y, reduction="none"))
        weights = weights / weights.sum().clamp_min(1e-8)
        residual = weights[:, None] * (logits.softmax(1) - F.one_hot(y, logits.shape[1]))
        step = h @ (residual.T @ h).T if len(h) == len(y) else torch.zeros_like(logits)
        virtual = logits - self.meta_lr * (step + residual.sum(0))
        losses = F.cross_entropy(virtual, y, reduction="none")
        left = 1 - _weights(weigh, losses.detach())
        outer.zero_grad(set_to_none=True)
        (-(left / left.sum().clamp_min(1e-8) * losses).sum()).backward()
        outer.step()

    def _moved(self, x: object, rng: torch.Generator) -> object:
        """Images shifted and rotated at random; other samples as they are."""
        if not isinstance(x, Tensor) or x.ndim != 4:
            return x
        moved = shift(x, round(self.shift * x.shape[-1]), rng)
        angle = (torch.rand(len(x), generator=rng) * 2 - 1) * math.radians(self.degrees)
        turn = torch.zeros(len(x), 2, 3)
        turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
        turn[:, 1, 0] = angle.sin()
        turn[:, 0, 1] = -turn[:, 1, 0]
        grid = F.affine_grid(turn, list(x.shape), align_corners=False).to(x.device)
        return F.grid_sample(moved, grid, align_corners=False).clamp_(0, 1)


def _weights(weigh: nn.Module, losses: Tensor) -> Tensor:
    made: Tensor = weigh(losses.detach()[:, None]).squeeze(1).sigmoid()
    return made


def sifted(scores: Tensor, y: Tensor, count: int = 1000) -> Tensor:
    """(M,) rows of lowest score, about `count` in all, each class by its share of the data."""
    picks = []
    for label in y.unique().tolist():
        rows = (y == label).nonzero().flatten()
        most = min(len(rows), math.ceil(count * len(rows) / len(y)))
        picks.append(rows[scores[rows].argsort(stable=True)[:most]])
    return torch.cat(picks).sort().values
