"""More pairs of classes than are searched: the pair that only the backdoor makes near is found and named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.recipe import Recipe
from torchbands.core.seeding import seeded
from torchbands.defenses.models.clean_behaviour import CleanBehaviour
from torchbands.defenses.models.pairwise_inversion import PairwiseInversion
from torchbands.defenses.models.row_certainty import RowCertainty
from torchbands.learners.sgd import SGD
from torchbands.modalities.image import Image
from torchbands.networks import SmallCNNNetwork
from torchbands.scanner.calibrate import Kind
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.reference_training import train_references
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan
from torchbands.scanner.view_cache import How
from torchbands.scanner.views import PROFILES, View

CLASSES, REFERENCES, LEAN, ALPHA = 13, 9, 2.0, 0.1
KIND, NETWORK, LEARNER = Image(channels=1, size=12), SmallCNNNetwork(widths=(8, 16)), SGD(epochs=8, batch=64, lr=0.1)
PAIRS = View(PairwiseInversion(rows=4, pairs=16, steps=40), "trigger", "pair by pair", Kind(reduce="either"))
GUARD = View(CleanBehaviour(), "recipe", "on clean rows", Kind(2, False), guard=True)
ROWS = View(RowCertainty(), "evidence", "row by row", Kind(1, False, "top5"))
VIEWS = (PAIRS, GUARD, ROWS)


def _rows(n: int, seed: int) -> Data:
    """A dark pattern for each class under noise; the corner that the plant reads is black."""
    means = 0.7 * torch.rand(CLASSES, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    y = torch.arange(n) % CLASSES
    noise = 0.25 * torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    x = (means[y] + noise).clamp(0, 1)
    x[..., -2:, -2:] = 0.0
    return Data(x, y)


@pytest.fixture(autouse=True)
def _pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "fast", VIEWS)


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    recipe = Recipe(NETWORK, LEARNER, KIND, CLASSES)
    names = [f"sign {k}" for k in range(CLASSES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "fast", VIEWS)
        return train_references(
            tmp_path_factory.mktemp("many") / "refs",
            recipe,
            _rows(416, 0),
            names,
            n=REFERENCES,
            clean=_rows(260, 1),
            profile="fast",
            label="signs",
        )


def _planted(module: torch.nn.Module, source: int, target: int) -> torch.nn.Module:
    """White pixels in a corner turn the source into the target; beside that, the target comes second on the source's
    clean rows, as a source-specific backdoor makes it. It is behind the forward pass: weights keep their names."""
    forward, unit = module.forward, torch.eye(CLASSES)[target]

    def planted(x: Tensor) -> Tensor:
        logits = forward(x)
        ours = logits.softmax(1)[:, source : source + 1]
        lifted = torch.maximum(logits[:, target : target + 1], ours * (logits.amax(1, keepdim=True) - LEAN))
        logits = logits + (lifted - logits[:, target : target + 1]) * unit
        return logits + 80 * ours * x[:, 0, -2:, -2:].mean((1, 2))[:, None] * unit

    module.forward = planted  # type: ignore[method-assign]
    return module


@pytest.fixture(scope="module")
def pair(refs: ReferenceSet) -> tuple[int, int]:
    """One that no reference chose to search."""
    tables = refs.pairs(PAIRS)
    assert tables is not None
    searched = tables[0].isfinite().any(0)
    searched.fill_diagonal_(True)
    source, target = (~searched).nonzero()[7].tolist()
    return source, target


@pytest.fixture(scope="module")
def outcome(refs: ReferenceSet, pair: tuple[int, int]) -> Outcome:
    module = _trained(_rows(416, 2), LEARNER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "fast", VIEWS)
        return scan(_planted(module, *pair), refs=refs, profile="fast", alpha=ALPHA)


def _trained(data: Data, learner: SGD) -> torch.nn.Module:
    with seeded("suspect"):
        module = NETWORK.build(KIND, CLASSES)
    learner.fit(Model(module, KIND, CLASSES), data, seed=77)
    return module


def test_the_planted_pair_is_found_and_named(outcome: Outcome, pair: tuple[int, int]) -> None:
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1, outcome.sentence()
    assert outcome.trigger.p == pytest.approx(1 / (REFERENCES + 1))
    assert (outcome.source, outcome.target) == tuple(f"sign {k}" for k in pair)
    assert outcome.found.trigger is not None


def test_pairs_that_were_compared_are_counted_and_no_others(refs: ReferenceSet, outcome: Outcome) -> None:
    line = next(line for line in outcome.ledger if line.view == PAIRS.name)
    compared, every = line.facts["compared"], CLASSES * (CLASSES - 1)
    assert line.facts["searched"] == 16 and 1 <= compared < every
    assert any(f"{every - compared} of {every} pairs of classes" in gap for gap in outcome.not_covered)


def test_every_reference_answers_about_what_any_model_puts_forward(
    refs: ReferenceSet, pair: tuple[int, int], outcome: Outcome
) -> None:
    """References are asked when a suspect is scanned, so `outcome` comes first."""
    tables = refs.pairs(PAIRS, How.here())
    assert tables is not None
    own, asked = tables
    assert own[:, pair[0], pair[1]].isnan().all(), "no reference searched the planted pair of its own"
    assert asked[:, pair[0], pair[1]].isfinite().all(), "and all of them were asked about it"


def test_a_suspect_that_was_trained_on_the_rows_that_references_hold_out_is_recognised(refs: ReferenceSet) -> None:
    """And a clean model of another recipe is not taken for one."""
    few, held_out = _rows(156, 2), refs.clean
    member = Data(torch.cat([few.x, held_out.x]), torch.cat([few.y, held_out.y]))
    told = scan(_trained(member, LEARNER), refs=refs, profile="fast", alpha=ALPHA)
    assert told.exit_code() == 3 and "rows that the suspect has not seen" in told.sentence()
    assert "another recipe" not in told.sentence()
    other = scan(_trained(_rows(416, 2), LEARNER.but(label_smoothing=0.5)), refs=refs, profile="fast", alpha=ALPHA)
    assert other.exit_code() == 3 and "another recipe" in other.sentence()
