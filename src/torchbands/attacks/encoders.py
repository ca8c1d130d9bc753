"""Shared by attacks on pre-trained encoders: loading the encoder, the attacker's training, the victim's training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import Diverged, InputError, NotApplicable
from torchbands.core.hook import BatchHook, Hook, WeightHook
from torchbands.core.method import Free
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import generator
from torchbands.core.task import Task

#: Learning rates where `lr` is 0: of encoders with public weights, and of small networks.
PRETRAINED_LR, SMALL_LR = 5e-4, 3e-3
#: Steps at the beginning in which the learning rate climbs.
CLIMB = 5


@dataclass(frozen=True, kw_only=True)
class EncoderAttack(Attack):
    """The attacker hands over an encoder: all of a network but its last linear layer. The victim trains on clean data.

    The encoder that the attacker begins from is a network's public weights or, where it has none, what a model of the
    task's recipe and another seed has learned. A subclass writes `objective`.
    """

    controls_training: ClassVar[bool] = True

    free: ClassVar[Free] = {"shadow": "text"}

    rate: float = 1.0
    """Triggered rows as a fraction of the clean rows in every batch of the attacker."""
    shadow: str = ""
    """Task whose training rows the attacker has; empty: the victim's own."""
    rows: int = 400
    """Maximum number of these rows."""
    steps: int = 400
    """Steps of AdamW by the attacker; the learning rate decays to zero."""
    batch: int = 16
    """Clean rows in each batch."""
    lr: float = 0.0
    """Learning rate of the attacker; 0: 5e-4 for encoders with public weights and 3e-3 for others."""
    frozen: bool = False
    """Whether the victim freezes the encoder and trains only the head, or trains as the task's recipe says."""

    def absent(self) -> str:
        return build(self.shadow, "task").absent() if self.shadow else ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels != "all-to-one":
            raise InputError(f"{self.name} has one target, so labels must be 'all-to-one', got {self.labels!r}")
        if self.steps < 0 or min(self.rows, self.batch) < 1:
            raise InputError(
                f"{self.name}: rows and batch are at least 1 and steps at least 0",
                hint=f"got rows={self.rows}, batch={self.batch}, steps={self.steps}",
            )

    @abstractmethod
    def objective(
        self, model: Model, task: Task, data: Data, features: Tensor, seed: int
    ) -> Callable[[Tensor], Tensor]:
        """The attacker's loss for some (B,) of his rows, differentiable in the model's weights.

        Args:
            task: whose rows they are. features: (N, D) what the clean encoder makes of them.
        """

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        self.relabel(torch.zeros(1, dtype=torch.int64), task.classes)  # refuses a target that is no class
        if hasattr(task.learner, "malicious"):
            raise NotApplicable(
                f"{self.name} hands over an encoder; in {task.learner.name} the server has one of its own"
            )
        return (Handover(self, task, seed),)


class Handover(WeightHook, BatchHook):
    """The victim's training begins from the poisoned encoder and a head of the victim's own."""

    def __init__(self, attack: EncoderAttack, task: Task, seed: int) -> None:
        self.attack, self.seed = attack, seed
        self.shadow = shadow_of(attack, task)
        self.held: list[nn.Parameter] = []
        self.norms: list[nn.Module] = []

    def begin(self, model: Model, data: Data, seed: int) -> None:
        model.module.load_state_dict(poisoned(self.attack, self.shadow, self.seed), strict=False)
        if self.attack.frozen:
            self.held = [p for _, p in encoder_of(model) if p.requires_grad]
            self.norms = [m for m in model.module.modules() if getattr(m, "running_mean", None) is not None]
            for p in self.held:
                p.requires_grad_(False)

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        for norm in self.norms:
            norm.eval()
        return x, y

    def end(self, model: Model, data: Data, seed: int) -> None:
        for p in self.held:
            p.requires_grad_(True)


def shadow_of(attack: EncoderAttack, task: Task) -> Task:
    """The task whose rows the attacker has, read by the victim's network."""
    if not attack.shadow:
        return task
    made = build(attack.shadow, "task")
    assert isinstance(made, Task)
    made = made.but(network=task.network, learner=task.learner)
    if made.modality != task.modality:
        raise NotApplicable(f"samples of {attack.shadow} are not read as those of {task.name} are")
    return made


def attackers_data(attack: EncoderAttack, shadow: Task, seed: int) -> Data:
    """His rows, clean."""
    data = shadow.load("train", seed)
    return data[shadow.owned(data)].sample(attack.rows, attack.name, seed)


def encoder_of(model: Model) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that an attacker hands over: neither the head nor adapters, which are the victim's own."""
    if model.head is None:
        raise NotApplicable("no linear head was found, so no part of the network is an encoder")
    for name, p in model.module.named_parameters():
        if not name.startswith(f"{model.head}.") and "lora_" not in name:
            yield name, p


@lru_cache(maxsize=4)
def poisoned(attack: EncoderAttack, shadow: Task, seed: int) -> dict[str, Tensor]:
    """The encoder's weights after the attacker's steps, kept in the process for the last few."""
    fresh = shadow.fresh(seed)
    public = hasattr(fresh.module, "pretrained_state")
    model = (fresh if public else surrogate(shadow, seed).clone()).at_precision(
        getattr(shadow.learner, "precision", "float32")
    )
    data = attackers_data(attack, shadow, seed)
    features = model.features(data.x).to(model.device)
    whole = dict(encoder_of(model))
    learned = {name: p for name, p in whole.items() if not any(p is q for q in _batch_norms(model))}
    for p in learned.values():
        p.requires_grad_(True)
    loss = attack.objective(model, shadow, data, features, seed)
    _teach(
        attack,
        list(learned.values()),
        loss,
        _rows(attack, model, data, seed),
        attack.lr or (PRETRAINED_LR if public else SMALL_LR),
    )
    state = {name: p.detach().clone() for name, p in whole.items()}
    return state | {n: b.clone() for n, b in model.module.named_buffers() if n in model.module.state_dict()}


def _batch_norms(model: Model) -> list[nn.Parameter]:
    """Gains and shifts of BatchNorm: the attacker leaves them alone, as BadEncoder's authors do."""
    found = [m for m in model.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [p for m in found for p in m.parameters(recurse=False)]


def _teach(
    attack: EncoderAttack,
    learned: list[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    rows: Callable[[], Tensor],
    lr: float,
) -> None:
    """AdamW in evaluation mode: neither dropout nor running statistics have a part in it."""
    optimizer = torch.optim.AdamW(learned, lr=lr, weight_decay=0.0)
    value = torch.zeros(())
    with torch.enable_grad():
        for step in range(attack.steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / CLIMB) * (1 - step / attack.steps)
            optimizer.zero_grad(set_to_none=True)
            value = loss(rows())
            value.backward()
            optimizer.step()
    if not torch.isfinite(value.detach()):
        raise Diverged(f"{attack.name}: the attacker's loss left the finite numbers", hint="lower the setting lr")


def _rows(attack: EncoderAttack, model: Model, data: Data, seed: int) -> Callable[[], Tensor]:
    """Draws (B,) rows; sequences of like length together, so that little is padding."""
    rng, size = generator(attack.name, "rows", seed), min(attack.batch, len(data))
    lengths = model.encode(data.x).lengths()
    order = None if lengths is None else lengths.cpu().argsort(stable=True)

    def draw() -> Tensor:
        if order is None:
            return torch.randint(len(data), (size,), generator=rng)
        start = int(torch.randint(len(data) - size + 1, (1,), generator=rng))
        return order[start : start + size]

    return draw
