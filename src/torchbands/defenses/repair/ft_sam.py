"""FT-SAM: fine-tuning towards flat minima shrinks the weights of backdoor-related neurons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Repair, require
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.learners.finetune import Closure, finetune


@method(
    "ft-sam", paper="Zhu et al., ICCV 2023, arXiv:2304.11823", needs=("gradients", "weights", "clean:2500"), version=2
)
class FTSAM(Repair):
    """Fine-tuning with adaptive sharpness-aware minimisation.

    The neighbourhood is scaled by each weight's own size (ASAM): large weights, which carry backdoors, move most.

    Deviations from the paper: 20 epochs of batch 64 instead of 100 of 256, as many updates in a fifth of the passes;
    running statistics of norms are updated by the first of the two passes only; no augmentation.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"lr": 0.1}

    rho: float = 2.0
    """Radius of the neighbourhood, relative to the size of the weights."""
    eta: float = 0.01
    """Constant added to the size of every weight (the paper's eta)."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy."""
    epochs: int = 20
    """Epochs over the clean rows."""
    lr: float = 0.01
    """Peak learning rate."""
    batch: int = 64
    """Batch size."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone()
        parameters: list[Tensor] = [p for p in repaired.module.parameters() if p.requires_grad]

        def sharpness_aware(closure: Closure, optimizer: torch.optim.Optimizer) -> None:
            closure()
            with torch.no_grad():
                used, slopes = zip(*[(p, p.grad) for p in parameters if p.grad is not None])
                size = [p.abs() + self.eta for p in used]
                scaled = [s * g for s, g in zip(size, slopes)]
                norm = torch.stack([g.norm() for g in scaled]).norm().clamp_min(1e-12)
                moves = [self.rho * s * g / norm for s, g in zip(size, scaled)]
                torch._foreach_add_(used, moves)
            with frozen_statistics(repaired.module):
                closure()
            with torch.no_grad():
                torch._foreach_sub_(used, moves)
            optimizer.step()

        finetune(
            repaired,
            clean,
            epochs=self.epochs,
            lr=self.lr,
            batch=self.batch,
            label_smoothing=self.label_smoothing,
            step=sharpness_aware,
            seed=seed,
        )
        return repaired


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Norms normalise by the batch but leave their running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, before):
            m.momentum = momentum
