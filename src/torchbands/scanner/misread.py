"""Checks, before a scan, that a model's predictions on clean rows are better than chance, and suggests what is wrong.

A missing normalisation and labels in another order are tried: either makes a good model answer at chance level, and
statistics of such a model would be meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.words import quoted

from .normalisation import flags, usual

#: Rows that the accuracy is told from; fewer than `FEWEST` are compared with references only.
ROWS, FEWEST = 512, 30
#: A suspect this far below the references' lowest accuracy (or below this many times guessing) reads something else.
FAR, GUESSING = 0.6, 1.5
#: So many points of accuracy under its own claim are said.
UNDER = 0.1
#: Standard errors that an accuracy is above guessing, or above another.
SURE = 2.0
#: Least accuracy that an order of the labels must explain, and least gain.
EXPLAINED, GAIN = 0.5, 0.2
#: How the command begins that reads the rows rightly.
AGAIN = "scan it so: bands scan model SUSPECT --data CLEAN"
#: What two mistakes at once must explain more than one.
BOTH = 0.1
#: Most classes whose order is written out, and whose order is looked for.
LISTED, ORDERED = 50, 2000


@dataclass(frozen=True)
class Claim:
    """The accuracy that a model's own files state, and where."""

    accuracy: float
    where: str


@dataclass(frozen=True)
class Misread:
    """Clean rows that the suspect does not read.

    Attributes:
        chance: whether it knows them no better than a guesser who gives each answer as often as it does.
        expected: lowest accuracy of its references. claim: what its own files say.
        name, mean, std: a normalisation with which it knows `better` of the rows, where there is one.
        order: of each label, the class that the model gives its rows, where such an order explains `better` of rows
            that it was not found from.
    """

    accuracy: float
    rows: int
    chance: bool = False
    expected: float | None = None
    claim: Claim | None = None
    name: str = ""
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    order: tuple[int, ...] = ()
    better: float = 0.0

    @property
    def unread(self) -> bool:
        """Whether nothing can be judged: at chance, or something is known to be read wrongly."""
        return self.chance or bool(self.mean) or bool(self.order)

    def reason(self, names: Sequence[str] = ()) -> str:
        """What is wrong, in a sentence."""
        known = f"the suspect knows {self.accuracy:.0%} of {self.rows} clean rows"
        if self.chance:
            known += ", no more than guessing would"
        if self.expected is not None:
            known += f", where the references know {self.expected:.0%} or more"
        if self.claim is not None:
            known += f", where {self.claim.where} says {self.claim.accuracy:.0%}"
        if not self.mean and not self.order:
            return (
                f"{known}: it was trained on other rows, on other classes or in another order of them, or it reads "
                "them another way (neither the usual normalisations nor another order of the labels explains it)"
            )
        causes = []
        if self.mean:
            causes.append(f"with {self.name} normalisation")
        if self.order:
            causes.append(f"with its classes in another order ({self._moved(names)})")
        left = "the normalisation was forgotten" if self.mean else ""
        mixed = "the labels of the rows are numbered otherwise than the model's classes" if self.order else ""
        return (
            f"{known}; {' and '.join(causes)} it knows {self.better:.0%}: {' and '.join(filter(None, (left, mixed)))}"
        )

    def next_step(self, names: Sequence[str] = ()) -> str:
        """What to type."""
        if not self.mean and not self.order:
            return "check --data, --class-names, --labels and --mean/--std: what the model was trained with"
        typed = [flags(self.mean, self.std)] if self.mean else []
        if self.order:
            typed.append(self._flag(names))
        return f"{AGAIN} {' '.join(typed)}"

    def labels(self, names: Sequence[str] = ()) -> dict[str, int]:
        """Of each label of the rows, the class of the model."""
        return {_name(names, k): c for k, c in enumerate(self.order)}

    def _moved(self, names: Sequence[str]) -> str:
        moved = [f"rows labelled {_name(names, k)!r} are its class {c}" for k, c in enumerate(self.order) if k != c]
        more = f" and {len(moved) - 4} more" if len(moved) > 4 else ""
        return ", ".join(moved[:4]) + more

    def _flag(self, names: Sequence[str]) -> str:
        every = [_name(names, self.order.index(c)) for c in range(len(self.order))]
        if len(every) > LISTED or any("," in name for name in every):
            return "--labels FILE.json (a JSON object of each label and its class, as the JSON report has it)"
        return f"--class-names {quoted(','.join(every))}"


def misread(model: Model, clean: Data, expected: float | None = None, claim: Claim | None = None) -> Misread | None:
    """Whether the model knows clean rows as well as it should; None where it does, or where too few rows tell.

    Args:
        expected: the lowest accuracy of its references. claim: the accuracy that its own files state.
    """
    rows = clean.sample(ROWS, "accuracy", 0, balanced=True) if len(clean) > ROWS else clean
    few = len(rows) < FEWEST or len(rows.y.unique()) < 2
    if len(rows) == 0 or (few and expected is None):
        return None
    y = rows.y.cpu()
    said = _said(model, rows)
    accuracy = float((said == y).float().mean())
    chance = not few and at_chance(said, y, model.classes)
    under = expected is not None and accuracy < FAR * expected
    short = claim is not None and claim.accuracy - accuracy > max(UNDER, SURE * _error(claim.accuracy, len(y)))
    found = Misread(accuracy, len(y), chance, expected if under or chance else None, claim if short or chance else None)
    if not few or under:
        found = _explained(found, model, rows, said, expected)
    return found if chance or under or short or found.order else None


def at_chance(said: Tensor, y: Tensor, classes: int) -> bool:
    """Whether predictions agree with labels no more often than if they did not know them."""
    shares = [torch.bincount(t, minlength=classes).double() / len(t) for t in (said, y)]
    by_luck, accuracy = float((shares[0] * shares[1]).sum()), float((said == y).double().mean())
    few = classes > 2 and accuracy < GUESSING / classes
    return few or accuracy <= by_luck + SURE * _error(by_luck, len(y))


def _error(share: float, rows: int) -> float:
    return math.sqrt(max(share * (1 - share), 1e-4) / rows)


def _said(model: Model, rows: Data) -> Tensor:
    return model.logits(rows.x).argmax(1).cpu()


def _explained(found: Misread, model: Model, rows: Data, said: Tensor, expected: float | None) -> Misread:
    """With the normalisation, or the order of the labels, or both, that make the most of the rows known."""
    y, k = rows.y.cpu(), model.classes
    wanted = max(min(2 * found.accuracy, found.accuracy + GAIN), FAR * expected if expected is not None else 0.0)
    tried: list[Misread] = []
    order = _order(said, y, k)
    if order is not None and order[1] - found.accuracy > GAIN:
        tried.append(replace(found, order=order[0], better=order[1]))
    wrong = found.chance or found.expected is not None or found.claim is not None
    for name, mean, std, other in usual(model, rows) if wrong else ():
        answers = _said(other, rows)
        with_it = replace(found, name=name, mean=mean, std=std, better=float((answers == y).float().mean()))
        if not at_chance(answers, y, k):
            tried.append(with_it)
        if (order := _order(answers, y, k)) is not None:
            tried.append(replace(with_it, order=order[0], better=order[1]))
    likely = [t for t in tried if t.better > wanted]
    return max(likely, key=lambda t: t.better - (BOTH if t.mean and t.order else 0.0), default=found)


def _order(said: Tensor, y: Tensor, classes: int) -> tuple[tuple[int, ...], float] | None:
    """The order of the labels that makes the most of one half of the rows known, and its accuracy on the other half;
    None where they would be known as they are, or hardly any."""
    if classes > ORDERED or len(y) < FEWEST:
        return None
    from scipy.optimize import linear_sum_assignment

    turn = torch.arange(len(y))[y.argsort(stable=True)]  # halves with the same classes
    found, held = turn[::2], turn[1::2]

    def assigned(rows: Tensor) -> Tensor:
        table = torch.bincount(y[rows] * classes + said[rows], minlength=classes * classes).view(classes, classes)
        return torch.from_numpy(linear_sum_assignment((-table - 0.5 * torch.eye(classes)).numpy())[1])

    order = assigned(found)
    answers = order[y[held]] == said[held]
    accuracy = float(answers.float().mean())
    if torch.equal(order, torch.arange(classes)) or accuracy < EXPLAINED:
        return None
    inverse = order.argsort()
    if at_chance(inverse[said[held]], y[held], classes):
        return None
    return tuple(assigned(torch.arange(len(y))).tolist()), accuracy


def _name(names: Sequence[str], k: int) -> str:
    return names[k] if k < len(names) else str(k)
