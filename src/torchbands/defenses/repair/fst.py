"""FST: pushes the head away from the possibly backdoored one, so that the features shift as well."""

from __future__ import annotations

import torch
from torch import nn

from torchbands.core.data import Data
from torchbands.core.defense import Repair, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import seeded
from torchbands.learners.finetune import Closure, finetune


@method(
    "fst", paper="Min et al., NeurIPS 2023, arXiv:2310.01875", needs=("gradients", "weights", "clean:2500"), version=2
)
class FST(Repair):
    """Feature shift tuning: reinitialises the head and minimises cross-entropy + alpha <W, W0> over all weights.

    W0 is the head as it was given. After every step the head is scaled back to the norm of W0, so that the inner
    product cannot fall without bound.

    Deviations from the paper: batches of 64 instead of 128, for there are fewer clean rows here; a cosine schedule
    instead of a constant rate; no augmentation.
    """

    alpha: float = 0.2
    """Weight of the inner product (paper: 0.2 on CIFAR-10, 0.1 on other data sets, 0.001 on transformers)."""
    epochs: int = 10
    """Epochs over the clean rows."""
    lr: float = 0.01
    """Peak learning rate."""
    batch: int = 64
    """Batch size."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone()
        head = repaired.module.get_submodule(repaired.head) if repaired.head else None
        if not isinstance(head, nn.Linear):
            raise NotApplicable("no linear head was found, so there is none to start anew")
        given = head.weight.detach().clone()
        norm = given.norm()
        with seeded("fst head", seed):
            head.reset_parameters()

        def shifted(closure: Closure, optimizer: torch.optim.Optimizer) -> None:
            closure()
            with torch.no_grad():
                if head.weight.grad is not None:
                    head.weight.grad.add_(given, alpha=self.alpha)  # the gradient of alpha <W, W0>
            optimizer.step()
            with torch.no_grad():
                head.weight.mul_(norm / head.weight.norm().clamp_min(1e-12))

        finetune(repaired, clean, epochs=self.epochs, lr=self.lr, batch=self.batch, step=shifted, seed=seed)
        return repaired
