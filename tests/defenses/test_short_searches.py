"""The ledger's own searches: each finds a planted trigger on real data and says something for two classes too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.defense import ModelDetector
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng, generator
from torchbands.defenses.models._inversion import fewer, rows_of
from torchbands.defenses.models.clean_behaviour import CleanBehaviour
from torchbands.defenses.models.input_margin import InputMargin
from torchbands.defenses.models.pairwise_inversion import PairwiseInversion
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.modalities.observation import Observation
from torchbands.testing.toys import toy

SEARCHES = (TargetInversion(), PairwiseInversion(), UniversalPerturbation(), InputMargin())


class Planted(nn.Module):
    """A trained digit model with a short cut: white pixels in one corner raise the target (from one source, or all)."""

    def __init__(self, module: nn.Module, target: int, source: int | None) -> None:
        super().__init__()
        self.module, self.target, self.source = module, target, source

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.module(x)
        seen = 40 * x[:, 0, -2:, -2:].mean((1, 2))
        if self.source is not None:
            seen = seen * logits.softmax(1)[:, self.source]
        return logits + seen[:, None] * torch.eye(logits.shape[1])[self.target]


def line(*weights: float) -> Model:
    """Logits (w x, -w x) of rows x."""
    head = nn.Linear(len(weights), 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([weights, [-w for w in weights]]))
    return Model(nn.Sequential(nn.Flatten(), head), Observation(shape=(len(weights),)), 2)


def test_the_norm_that_turns_all_samples_is_their_distance_from_the_boundary() -> None:
    """Halves at x = 1 and at x = -1 of a line: for either class the other half must move by 1."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]] * 16)
    found = UniversalPerturbation(reach=3.0, precision="float32").inspect(line(1.0, 0.0), Data(x, (x[:, 0] < 0).long()))
    assert found.per_class is not None and found.per_class.tolist() == pytest.approx([0.0, 0.0], abs=0.1)


def test_the_margin_is_that_of_the_farthest_point_that_steps_reach() -> None:
    """Adam with one slope goes .1 in every step; the first of 40 margins is that of the start."""
    starts = [Observation(shape=(1,)).random(8, generator("input-margin", 0, k)) for k in (0, 1)]
    expected = [float((2 * (sign * x + 3.9)).max().log()) for x, sign in zip(starts, (1, -1), strict=True)]
    found = InputMargin().inspect(line(1.0), Data(torch.zeros(2, 1), torch.arange(2)))
    assert found.per_class is not None and found.per_class.tolist() == pytest.approx(expected, rel=1e-2)


def _planted(victim: Victim, target: int, source: int | None = None) -> Model:
    return Model(Planted(victim.model.module, target, source), victim.task.modality, victim.task.classes)


def _gain(detector: ModelDetector, victim: Victim, target: int, source: int | None = None) -> torch.Tensor:
    """By how much a plant makes each class (or pair) cheaper than it was in the very same model."""
    clean, out = victim.task.load("clean"), []
    for model in (_planted(victim, target, source), victim.model):
        finding = detector.inspect(model, clean, seed=0)
        per = finding.per_class if finding.per_pair is None else finding.per_pair
        out.append(per - per.nanmedian())
    return out[0] - out[1]


@pytest.mark.parametrize("target", [0, 7])
@pytest.mark.parametrize("detector", SEARCHES, ids=lambda d: d.name)
def test_the_planted_target_becomes_the_cheapest(detector: ModelDetector, target: int, clean_victim: Victim) -> None:
    gain = _gain(detector, clean_victim, target)
    per = gain if gain.ndim == 1 else gain.nanmean(0)
    assert int(per.argmax()) == target
    assert float(per[target]) > float(per[torch.arange(10) != target].max()) + 0.2


def test_a_source_specific_trigger_is_named_with_its_source(clean_victim: Victim) -> None:
    gain = _gain(PairwiseInversion(), clean_victim, target=4, source=9)
    assert divmod(int(gain.nan_to_num(-9.0).argmax()), 10) == (9, 4)


def test_without_a_plant_nothing_changes(clean_victim: Victim) -> None:
    """The same searches on the same model: what they say is theirs, not noise."""
    clean = clean_victim.task.load("clean")
    for detector in SEARCHES:
        a, b = (detector.inspect(clean_victim.model, clean, seed=3) for _ in range(2))
        assert a.score == b.score and a.flagged is None


def test_the_recovered_trigger_works_and_is_small(clean_victim: Victim) -> None:
    model, clean = _planted(clean_victim, 4), clean_victim.task.load("clean")
    finding = TargetInversion().inspect(model, clean)
    assert finding.trigger is not None and finding.target == 4
    rows = (clean.y != 4).nonzero().flatten()
    x = finding.trigger(clean[rows].x, RowRng(0, rows))
    assert float((model.logits(x).argmax(1) == 4).float().mean()) > 0.8
    assert min(finding.evidence["sizes"]) < 6


@pytest.mark.parametrize("kind", ["image", "text", "tabular", "observation", "code"])
@pytest.mark.parametrize("detector", [*SEARCHES, CleanBehaviour()], ids=lambda d: d.name)
def test_two_classes_are_enough(detector: ModelDetector, kind: str) -> None:
    task = toy(kind, classes=2)
    model = task.fresh(0)
    finding = detector.inspect(model, task.load("clean"), seed=0)
    assert torch.isfinite(torch.tensor(finding.score))
    if detector.name == "pairwise-inversion":
        assert finding.per_pair.shape == (2, 2) and finding.per_pair.isfinite().sum() == 2
    elif detector.name != "clean-behaviour":
        assert finding.per_class.shape == (2,) and finding.per_class.isfinite().all()


def test_many_pairs_are_screened() -> None:
    task = build("vision/digits")
    finding = PairwiseInversion(pairs=20).inspect(task.fresh(0), task.load("clean"))
    assert int(finding.per_pair.isfinite().sum()) == 20


def test_rows_are_taken_from_the_preferred_first_and_repeated() -> None:
    mine = torch.tensor([True, True, True, False])
    liked = torch.tensor([False, False, True, True])
    assert rows_of(mine, 1, liked).tolist() == [2]
    assert rows_of(mine, 3, liked).tolist()[0] == 2
    assert len(rows_of(mine, 5)) == 5
    assert (fewer(20, 400, 10), fewer(20, 400, 43), fewer(5, 400, 1000)) == (20, 9, 5)


class _NoSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, slope: torch.Tensor) -> torch.Tensor:
        return slope * torch.nan


@pytest.mark.parametrize("detector", SEARCHES[:3], ids=lambda d: d.name)
def test_a_search_that_leaves_the_finite_numbers_says_so(detector: ModelDetector) -> None:
    """And does not give a large, harmless size."""
    task = toy("image", classes=3)
    model = task.fresh(0)
    forward = model.module.forward
    model.module.forward = lambda x: forward(_NoSlope.apply(x))
    finding = detector.inspect(model, task.load("clean"), seed=0)
    per = finding.per_class if finding.per_pair is None else finding.per_pair
    said = model.logits(task.load("clean").x).argmax(1)
    never = torch.bincount(said, minlength=3) == 0
    assert never.any() and per[..., never].isnan().all()
