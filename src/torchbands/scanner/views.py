"""The ledger: which detectors look at a model, what each may say, and how its numbers are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable, UnknownName
from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.defenses.models._inversion import searched
from torchbands.defenses.models.batchnorm_mismatch import BatchNormMismatch
from torchbands.defenses.models.clean_behaviour import CleanBehaviour
from torchbands.defenses.models.clean_logits import CleanLogits
from torchbands.defenses.models.debackdoor import DeBackdoor
from torchbands.defenses.models.input_margin import InputMargin
from torchbands.defenses.models.pairwise_inversion import PairwiseInversion
from torchbands.defenses.models.row_certainty import RowCertainty
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.defenses.models.token_effects import TokenEffects
from torchbands.defenses.models.token_search import TokenSearch
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.defenses.models.weight_spectrum import WeightSpectrum
from torchbands.measures.cost import measured

from .attempt import Attempt
from .calibrate import Kind
from .forecast import announced, forecast

Says = Literal["trigger", "recipe", "evidence"]


@dataclass(frozen=True)
class View:
    """A detector in the ledger.

    Attributes:
        says: "trigger" views alone may say "backdoor"; "recipe" views say "unusual"; "evidence" is shown and not
            counted, because an attacker evades it for free.
        about: for a reader.
        black_box: whether it is used where only predictions are given and no other trigger view can look.
        tokens: True where it is for samples made of tokens only, False where for all others, None where for both.
        guard: whether it tells if the references are of the suspect's recipe at all.
    """

    detector: ModelDetector
    says: Says
    about: str
    kind: Kind = Kind()
    black_box: bool = False
    guard: bool = False
    tokens: bool | None = None

    @property
    def name(self) -> str:
        return self.detector.name

    def key(self) -> str:
        """Changes when its numbers may."""
        return f"{self.detector.name}-{self.detector.key()}"

    def rows(self, clean: Data, seed: int) -> Data:
        """The clean rows that it looks with."""
        needed = min(self.detector.clean_needed(), len(clean))
        return clean.sample(needed, "view", seed, balanced=True) if needed else clean[:0]


_TARGET = "the smallest patch that sends samples of every class to one class"
_PAIR = "the smallest patch from one class to another, pair by pair"
_UNIVERSAL = "the smallest shift of all samples together that makes one class of them"
_MARGIN = "how far one class can be raised above all others, starting from noise"
_TOKEN = "tokens that speak for a class as they do in no reference model"
_WORDS = "the inserted tokens that send samples of every class to one class"
_TEMPLATE = "the best trigger of a few templates, found by asking for predictions only"
_EACH_TOKEN = Kind(centre=False, reduce="either", floor=0.1)
_RECIPE = (
    View(CleanLogits(), "recipe", "mean logits of every true class on clean rows", Kind(2, False)),
    View(WeightSpectrum(), "recipe", "sizes, spectra and tails of the weights", Kind(2, False, "top5")),
    View(CleanBehaviour(), "recipe", "accuracy, confidence and calibration on clean rows", Kind(2, False), guard=True),
    View(
        RowCertainty(), "evidence", "how sure it is of clean rows that the references hold out", Kind(1, False, "top5")
    ),
    View(BatchNormMismatch(), "evidence", "running statistics against those of clean rows", Kind(2, False, "top5")),
)

#: What each profile looks with. `fast` takes fewer samples and steps than `full` and leaves out pairs of classes.
PROFILES: dict[str, tuple[View, ...]] = {
    "fast": (
        View(TokenEffects(passes=20_000), "trigger", _TOKEN, _EACH_TOKEN, tokens=True),
        View(TargetInversion(rows=8, steps=30, lr=0.35), "trigger", _TARGET, tokens=False),
        View(UniversalPerturbation(rows=16, steps=30), "trigger", _UNIVERSAL),
        View(DeBackdoor(passes=10_000), "trigger", _TEMPLATE, Kind(reduce="either"), black_box=True),
        *_RECIPE,
    ),
    "full": (
        View(TokenEffects(), "trigger", _TOKEN, _EACH_TOKEN, tokens=True),
        View(TokenSearch(), "trigger", _WORDS, tokens=True),
        View(PairwiseInversion(), "trigger", _PAIR, Kind(reduce="either"), tokens=False),
        View(TargetInversion(), "trigger", _TARGET, tokens=False),
        View(UniversalPerturbation(), "trigger", _UNIVERSAL),
        View(InputMargin(), "trigger", _MARGIN, tokens=False),
        View(DeBackdoor(), "trigger", _TEMPLATE, Kind(reduce="either"), black_box=True),
        *_RECIPE,
    ),
}


def white_box(profile: str, *, tokens: bool) -> tuple[View, ...]:
    """The views of a profile for models that give gradients, of samples made of tokens or of others."""
    return tuple(v for v in PROFILES[profile] if not v.black_box and v.tokens in (None, tokens))


def views_of(profile: str, model: Model) -> tuple[View, ...]:
    """The views of a profile for a model: black-box views only where gradients are not given."""
    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    white = "gradients" in model.capabilities
    fitting = [v for v in PROFILES[profile] if v.tokens is None or v.tokens == model.modality.discrete]
    return tuple(v for v in fitting if not v.black_box or not white)


@dataclass(frozen=True)
class Seen:
    """What one view saw of one model, or why it saw nothing. failed: it raised an error, and did not decline."""

    view: View
    finding: Finding | None
    reason: str = ""
    seconds: float = 0.0
    passes: int = 0
    asked: Tensor | None = None
    """(K, K) what it found in pairs of classes that it was asked about, NaN elsewhere."""
    failed: bool = False

    def numbers(self) -> Tensor | None:
        """The tensor that is compared with the references': the finest that the view has."""
        f = self.finding
        if f is None:
            return None
        for found in (f.per_trigger, f.per_pair, f.per_class, f.statistics):
            if found is not None:
                return found.detach().float().cpu()
        return torch.tensor([f.score])


def look(
    model: Model,
    clean: Data,
    views: Sequence[View],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[Seen, ...]:
    """Let every view look at a model. A view that does not apply, or fails, says why; the others go on.

    Args:
        announce: told beforehand how long they will take.
    """
    out, drawn = [], dict[int, Data]()
    if announce is not None:
        said = "how long looking will take could not be told"
        with Attempt():  # that is no reason not to look
            said = announced([v.name for v in views], forecast(model, clean, [v.detector for v in views]))
        announce(said)
        if (some := len(searched(model.classes))) < model.classes:
            announce(f"of {model.classes:,} classes, {some:,} are searched one by one; the others are not covered")
    with model.shared():
        for at, view in enumerate(views):
            if progress is not None:
                progress(at, len(views), view.name)
            finding = None
            with measured(model) as cost, Attempt() as tried:
                require(view.detector, model, clean)
                needed = min(view.detector.clean_needed(), len(clean))
                if needed not in drawn:
                    drawn[needed] = view.rows(clean, seed)
                rows = drawn[needed]
                if "logits" in view.detector.needs and needed and model.capabilities >= {"features"}:
                    with suppress(NotApplicable):  # one pass, for every view that asks for these rows
                        model.outputs(rows.x)
                finding = view.detector.inspect(model, rows, seed=seed)
            out.append(Seen(view, finding, tried.reason, cost.seconds, cost.forward_passes, failed=tried.failed))
    return tuple(out)
