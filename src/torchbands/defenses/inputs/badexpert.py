"""BaDExpert: briefly fine-tuned on wrong labels, a model forgets its task but keeps its backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Batch, Column, Data
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.resident import resident
from torchbands.core.seeding import generator, seeded
from torchbands.learners.finetune import finetune


@method(
    "badexpert",
    paper="Xie et al., ICLR 2024, arXiv:2308.12439",
    needs=("gradients", "weights", "clean:2000"),
    version=2,
)
class BaDExpert(InputDetector):
    """A backdoor expert agrees with the model on triggered inputs only; a fine-tuned shadow on clean inputs only.

    The expert is a copy trained on clean samples with labels (y + 1) mod K until its clean accuracy collapses. With x
    the expert's confidence in the class that the model predicts and y the fine-tuned copy's, agreement is
    a = min(2 y / x, (1 - x) / (1/2 - y)), the second only where y < 1/2; the score is 1 / (1 + a), in [0, 1]. Flagged:
    above the (1 - `fpr`) quantile of clean samples that neither copy was trained on.

    Needs: gradients, weights, clean labelled samples.

    Deviations from the paper: the paper's expert takes one epoch with Adam at 1e-4. Networks too small to forget in
    that are trained again from the start at the next rate of `lrs`, and the last rate gets as many epochs as it takes
    (at most `epochs`). A fifth of the clean samples is kept back for the threshold.

    Cost: two short fine-tunings, then 3 forward passes per input.
    """

    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """Learning rates of Adam for the expert, tried in order until one epoch makes it forget its task."""
    epochs: int = 20
    """Maximum number of epochs at the last learning rate."""
    batch: int = 128
    """Batch size of the expert."""
    forgotten: float = 0.2
    """The expert has forgotten its task when its clean accuracy falls to this fraction of the model's."""
    shadow_epochs: int = 10
    """Epochs of the fine-tuned shadow model."""
    shadow_lr: float = 0.05
    """Peak learning rate of the shadow model (SGD)."""
    fpr: float = 0.01
    """False positive rate of the rule on clean inputs."""

    def __post_init__(self) -> None:
        if not self.lrs or min(self.epochs, self.batch) < 1 or not 0 < self.fpr < 1:
            raise InputError("badexpert needs a learning rate, epochs and batch of at least 1, and fpr between 0 and 1")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        require(self, model, clean)
        if len(clean) < 5:
            raise InputError(f"badexpert needs at least 5 clean labelled samples, got {len(clean)}")
        order = torch.randperm(len(clean), generator=generator("badexpert", seed))
        kept = len(clean) // 5
        train, rest = clean[order[kept:]], clean[order[:kept]]
        shadow = model.clone()
        finetune(shadow, train, epochs=self.shadow_epochs, lr=self.shadow_lr, seed=seed)
        fitted = FittedBaDExpert(model, shadow, self.expert(model, train, seed))
        fitted.threshold = float(fitted.score(rest.x).quantile(1 - self.fpr))
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        made = FittedBaDExpert(model, model.clone(), model.clone(), float(facts["threshold"]))
        for name, copy in made.copies().items():
            copy.module.load_state_dict(
                {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
            )
        return made

    def expert(self, model: Model, clean: Data, seed: int) -> Model:
        """A copy that has forgotten the task on (y + 1) mod K labels."""
        e, y = resident(model, clean.x), clean.y.to(model.device)
        floor = self.forgotten * _accuracy(model, clean)
        made = model.clone()
        for lr in self.lrs:
            made = model.clone()
            optimizer = torch.optim.Adam(made.module.parameters(), lr=lr)
            rng = generator("badexpert expert", seed)
            for _ in range(self.epochs if lr == self.lrs[-1] else 1):
                with made.training(), seeded("badexpert", seed):
                    for rows in torch.randperm(len(y), generator=rng).to(y.device).split(self.batch):
                        if len(rows) == 1 < len(y):
                            continue  # BatchNorm has no statistics of one row
                        loss = F.cross_entropy(made.run(e.at(rows)).float(), (y[rows] + 1) % model.classes)
                        optimizer.zero_grad(set_to_none=True)
                        loss.backward()
                        optimizer.step()
                if _accuracy(made, clean) <= floor:
                    return made
        return made


@dataclass
class FittedBaDExpert(FittedDetector):
    """The model, its fine-tuned copy and the expert in its backdoor."""

    model: Model
    shadow: Model
    expert: Model
    threshold: float | None = None

    def score(self, x: Batch | Column) -> Tensor:
        """(N,) 1 / (1 + agreement): near 1 where the expert is sure of the predicted class and the copy is not."""
        predicted = self.model.logits(x).argmax(1, keepdim=True)
        expert = self.expert.probabilities(x).gather(1, predicted).squeeze(1)
        shadow = self.shadow.probabilities(x).gather(1, predicted).squeeze(1)
        return per_row(1 / (1 + agreement(expert, shadow)), len(x), "badexpert")

    def copies(self) -> dict[str, Model]:
        """The two models besides the judged one."""
        return {"shadow": self.shadow, "expert": self.expert}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        held = {f"{n}.{k}": t for n, m in self.copies().items() for k, t in m.module.state_dict().items()}
        return held, {"threshold": self.threshold}


def agreement(expert: Tensor, shadow: Tensor) -> Tensor:
    """(N,) how far the pair of confidences is from (1, 0), where backdoored inputs lie; at least 0."""
    ratio = 2 * shadow / expert.clamp_min(1e-8)
    slope = (1 - expert) / (0.5 - shadow).clamp_min(1e-8)
    return torch.where(shadow < 0.5, torch.minimum(ratio, slope), ratio)


def _accuracy(model: Model, data: Data) -> float:
    return int((model.logits(data.x).argmax(1) == data.y).sum()) / len(data)
