"""Fine-tuning on clean data: the baseline that every repair must beat."""

from __future__ import annotations

from typing import Any, ClassVar

from torchbands.core.data import Data
from torchbands.core.defense import Repair, require
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.learners.finetune import finetune


@method(
    "fine-tune",
    paper="Liu et al., RAID 2018, arXiv:1805.12185 (as a baseline)",
    needs=("gradients", "weights", "clean:2500"),
    version=2,
)
class FineTune(Repair):
    """Fine-tunes all weights on clean rows: SGD with momentum and a cosine schedule.

    Deviations: the public benchmark's recipe (lr .01, momentum .9, weight decay 5e-4), but 20 epochs of batch 64
    instead of 100 of 256: as many updates in a fifth of the passes, seconds on a CPU; no augmentation.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"lr": 0.5}

    epochs: int = 20
    """Epochs over the clean rows."""
    lr: float = 0.01
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay, on every parameter."""
    batch: int = 64
    """Batch size."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone()
        finetune(
            repaired,
            clean,
            epochs=self.epochs,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch=self.batch,
            seed=seed,
        )
        return repaired
