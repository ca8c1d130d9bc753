"""How references are trained: one recipe, a pool around a guess, or the user's own training function."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from torchbands.core.data import Data, whole
from torchbands.core.errors import Diverged, InputError
from torchbands.core.hook import Hook
from torchbands.core.method import Spec
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Network, Progress, TrainingFacts
from torchbands.core.seeding import seeded
from torchbands.learners.sgd import SGD

#: Steps that a recipe of no task takes at least, and epochs that it takes at most.
STEPS, MOST_EPOCHS = 400, 40
#: A training that diverged, or that learned next to nothing, is done again with a rate this much smaller, so often.
SLOWER, TRIES = 0.2, 2
#: What is learned where a clean model knows less than this many times what guessing gives.
LEARNED = 1.5


@dataclass(frozen=True)
class OwnNetwork(Network):
    """An architecture that is built by code and not by a spec: a user's own, or one like a suspect's.

    Attributes:
        make: a new untrained module; drawn from torch's global generator, which is seeded around the call.
        named: what to call it in the card: a network's spec, or "package.module:factory".
    """

    name: ClassVar[str] = "own network"
    make: Callable[[], nn.Module]
    named: Any

    def build(self, modality: Modality, classes: int) -> nn.Module:
        return self.make()


def called(network: Network) -> Any:
    """What a card calls an architecture."""
    return network.named if isinstance(network, OwnNetwork) else network.spec()


@dataclass(frozen=True)
class OwnTraining(Learner):
    """The user's own training function, `fit(network, x, y)` or `fit(network, x, y, seed)`.

    It trains the untrained network that it is given on raw samples (images are float32 in [0, 1], any normalisation is
    inside the network) and their int64 labels, and returns None, or the network to keep, of the same weights' shapes.
    The card names it, and never runs it: it comes from the command line or from Python alone.
    """

    name: ClassVar[str] = "own training"
    function: Callable[..., Any]
    named: str

    def __post_init__(self) -> None:
        takes = inspect.signature(self.function).parameters
        given = [p for p in takes.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(given) < 3 and not any(p.kind is p.VAR_POSITIONAL for p in takes.values()):
            raise InputError(
                f"{self.named} takes ({', '.join(takes)}), expected (network, x, y) or (network, x, y, seed)",
                hint="def fit(network, x, y, seed): train the network in place, or return a trained one",
            )

    @classmethod
    def read(cls, text: str) -> OwnTraining:
        """From `package.module:function` or `./file.py:function`, as the user typed it."""
        from .opening.own_code import own_attribute

        found = own_attribute(text, "--train")
        if not callable(found):
            raise InputError(f"--train {text!r} names {type(found).__name__}, expected a function")
        return cls(found, text)

    def learn(
        self,
        model: Model,
        source: Data,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        x, y = whole(source.x), source.y
        if isinstance(x, Tensor):
            x, y = x.to(model.device), y.to(model.device)
        shapes = {k: t.shape for k, t in model.module.state_dict().items()}
        takes = inspect.signature(self.function).parameters
        seeds = "seed" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
        with model.training(), seeded("own training", seed):
            made = self.function(model.module, x, y, **({"seed": seed} if seeds else {}))
        made = model.module if made is None else made
        if not isinstance(made, nn.Module) or {k: t.shape for k, t in made.state_dict().items()} != shapes:
            raise InputError(
                f"{self.named} returned {type(made).__name__}, which has not the weights of the network that it was "
                "given",
                hint="train that network in place and return it, or nothing",
            )
        if made is not model.module:
            model.module.load_state_dict(made.state_dict())
        model.module.eval().requires_grad_(True)
        return {}

    def spec(self) -> Spec:
        return {"own training": self.named, "source_sha256": _source(self.function)}

    def label(self) -> str:
        return told(self.spec())


def _source(function: Callable[..., Any]) -> str:
    """A digest of the file that a function is written in, so that another version is another recipe."""
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        return ""


def long_enough(learner: Learner, rows: int) -> Learner:
    """With epochs for at least `STEPS` steps, where nothing says how long the suspect was trained."""
    if not isinstance(learner, SGD):
        return learner
    return learner.but(epochs=max(learner.epochs, min(MOST_EPOCHS, math.ceil(STEPS / math.ceil(rows / learner.batch)))))


def pool_around(base: Learner, modality: Modality, fixed: Collection[str] = ()) -> tuple[Learner, ...]:
    """The base and what people vary around it: augmentation, nesterov, decay, schedule, smoothing, optimizer, length.

    Args:
        fixed: settings that the user named, which stay as they are in every recipe.
    """
    if not isinstance(base, SGD):
        return (base,)
    adam = {"optimizer": "adamw", "lr": 2e-3}
    shift = {} if not modality.has_pixels else {"augment": "shift"}
    varied: list[dict[str, Any]] = [
        {},
        {**shift, "epochs": 2 * base.epochs},
        {"nesterov": False, "weight_decay": 0.0, "schedule": "constant", "lr": base.lr / 5},
        {**adam, "weight_decay": 1e-2},
        {"label_smoothing": 0.1},
        {**shift, "schedule": "cosine", "weight_decay": 1e-3},
        {"optimizer": "adamw", "lr": 1e-3, "schedule": "constant", "weight_decay": 0.0},
        {"nesterov": False, "schedule": "cosine", "epochs": 2 * base.epochs},
    ]
    made: list[Learner] = []
    for changes in varied:
        # a rate belongs to its optimizer: where one of the two is given, the other does not go to another one
        if changes.get("optimizer", base.optimizer) != base.optimizer and {"optimizer", "lr"} & set(fixed):
            changes = {k: v for k, v in changes.items() if k not in ("optimizer", "lr")}
        learner = base.but(**{k: v for k, v in changes.items() if k not in fixed})
        if learner not in made:
            made.append(learner)
    return tuple(made)


def settled(learner: Learner, fit: Callable[[Learner], Model], learns: Callable[[Model], bool]) -> Model:
    """A model that learned something: a training that diverged or learned next to nothing is done again, slower."""
    for again in range(TRIES + 1):
        rate = getattr(learner, "lr", None)
        slower = learner if rate is None else learner.but(lr=rate * SLOWER**again)
        try:
            model = fit(slower)
        except Diverged:
            if slower is learner and again:
                raise
            continue
        if learns(model):
            return model
    raise InputError(
        f"a reference trained by {learner.label()} learned next to nothing on clean rows",
        hint="name a recipe that suits the network (--lr, --epochs, --optimizer), or your own training with --train",
    )


def told(spec: Mapping[str, Any]) -> str:
    """A recipe of a card in a few words, building nothing that the card names."""
    if "own training" in spec:
        return f"own training ({spec['own training']})"
    if "own checkpoints" in spec:
        return "own checkpoints"
    params = spec.get("params")
    if not isinstance(params, Mapping):
        return str(spec.get("name", spec))
    default = SGD().spec()["params"] if spec.get("name") == "sgd" else {}
    changed = [f"{k}={v}" for k, v in params.items() if default.get(k, ...) != v]
    return f"{spec.get('name')}({', '.join(changed)})" if changed else str(spec.get("name"))
