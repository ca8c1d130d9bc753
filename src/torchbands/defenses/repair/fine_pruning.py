"""Fine-pruning: removes units that are dormant on clean data, then fine-tunes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Repair, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.learners.finetune import Closure, finetune


@method(
    "fine-pruning",
    paper="Liu et al., RAID 2018, arXiv:1805.12185",
    needs=("features", "weights", "clean:2500"),
    version=2,
)
class FinePruning(Repair):
    """Prunes the penultimate units that are least active on clean rows, then fine-tunes the rest.

    The search stops at the last step whose accuracy on held-out clean rows is within `tolerance` of the whole
    network's. Features are computed once: each step only takes a block of columns out of one product.

    Deviations from the paper: a unit is one input of the linear head (the last layer's activation, after pooling)
    rather than a channel of the last convolution, so that any network with a linear head is served; the mean is of the
    absolute activation, for networks whose features may be negative; pruned inputs stay at zero during
    fine-tuning, which is 20 epochs of batch 64.
    """

    tolerance: float = 0.1
    """Largest drop of held-out clean accuracy by pruning alone, as a fraction."""
    steps: int = 100
    """Number of pruning levels between none and all units."""
    held_out: float = 0.2
    """Fraction of the clean rows held out to judge the pruning."""
    epochs: int = 20
    """Fine-tuning epochs over the clean rows."""
    lr: float = 0.01
    """Peak learning rate of fine-tuning."""
    batch: int = 64
    """Batch size of fine-tuning."""

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out < 1.0:
            raise InputError(f"held_out is a fraction between 0 and 1, got {self.held_out}")

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone()
        head = repaired.module.get_submodule(repaired.head) if repaired.head else None
        if not isinstance(head, nn.Linear):
            raise NotApplicable("no linear head was found, so there are no penultimate units to prune")
        features = repaired.outputs(clean.x).features.to(head.weight)
        order, keep = self.search(features, clean.y.to(head.weight.device), head, seed)
        kept = torch.ones_like(head.weight[0])
        kept[order[:keep]] = 0.0
        with torch.no_grad():
            head.weight.mul_(kept)

        def masked(closure: Closure, optimizer: torch.optim.Optimizer) -> None:
            closure()
            optimizer.step()
            with torch.no_grad():
                head.weight.mul_(kept)

        finetune(repaired, clean, epochs=self.epochs, lr=self.lr, batch=self.batch, step=masked, seed=seed)
        return repaired

    def search(self, features: Tensor, y: Tensor, head: nn.Linear, seed: int) -> tuple[Tensor, int]:
        """The (D,) units in pruning order, and how many of them go.

        Args:
            features: (N, D) penultimate activations of the clean rows; y: (N,) their labels.
        """
        shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
        cut = max(1, round(self.held_out * len(y)))
        judge, rank = shuffled[:cut], shuffled[cut:] if cut < len(y) else shuffled
        order = features[rank].abs().mean(0).argsort()
        with torch.no_grad():
            logits = head(features[judge])
            limit = (logits.argmax(1) == y[judge]).float().mean() - self.tolerance
            pruned = 0
            for block in order.tensor_split(min(self.steps, len(order))):
                logits = logits - features[judge][:, block] @ head.weight[:, block].T
                if (logits.argmax(1) == y[judge]).float().mean() < limit:
                    break
                pruned += len(block)
        return order, pruned
