"""Where a search starts belongs to what is searched: neither its chunk nor what is searched beside it changes it."""

from __future__ import annotations

import pytest
import torch

from torchbands.attacks.label_consistent import LabelConsistent
from torchbands.core.budget import MOST
from torchbands.core.defense import Finding, ModelDetector
from torchbands.core.seeding import RowRng
from torchbands.defenses.models.dbs import DBS
from torchbands.defenses.models.free_eagle import FreeEagle
from torchbands.defenses.models.input_margin import InputMargin
from torchbands.defenses.models.pairwise_inversion import PairwiseInversion
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.testing.toys import toy

SHORT = (
    TargetInversion(steps=4),
    PairwiseInversion(steps=4),
    UniversalPerturbation(rows=8, steps=4),
    InputMargin(steps=4),
    FreeEagle(steps=10),
)


def _numbers(finding: Finding) -> torch.Tensor:
    found = finding.per_class if finding.per_pair is None else finding.per_pair
    assert found is not None
    return found.double().nan_to_num(0.0)


@pytest.mark.parametrize("detector", SHORT, ids=lambda d: d.name)
def test_a_search_does_not_depend_on_how_many_rows_go_through_at_once(
    detector: ModelDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy("image", classes=4)
    model, clean = task.fresh(0), task.load("clean")
    found = []
    for chunk in (256, 6):
        monkeypatch.setitem(MOST, "cpu", chunk)
        found.append(_numbers(detector.inspect(model, clean, seed=0)))
    assert torch.allclose(*found, atol=1e-3), (found[0] - found[1]).abs().max()
    again = _numbers(detector.inspect(model, clean, seed=1))
    assert not torch.allclose(found[0], again, atol=1e-3), "another seed starts elsewhere"


def test_groups_of_classes_draw_the_same_noise() -> None:
    task = toy("text", classes=3, rows=256)
    model, clean = task.fresh(0), task.load("clean")
    found = [
        DBS(rows=8, steps=12, every=2, bound=1e-6, length=2, classes_at_once=k).inspect(model, clean) for k in (1, 3)
    ]
    assert torch.allclose(*[_numbers(f) for f in found], atol=1e-3)


def test_a_row_is_perturbed_alike_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    task, made = toy("image"), []
    data = task.load("train")
    for chunk in (256, 7):
        monkeypatch.setitem(MOST, "cpu", chunk)
        made.append(LabelConsistent(steps=0, eps=0.1).poison(data, task, 0)[:].x)
    assert torch.equal(*made) and not torch.equal(made[0], data[:].x)


def test_some_rows_draw_what_they_draw_among_all() -> None:
    rows = torch.tensor([3, 8, 21])
    among, alone = RowRng(5, rows), RowRng(5, rows).at(torch.tensor([2, 0]))
    for _ in range(2):
        assert torch.equal(among.normal(4)[[2, 0]], alone.normal(4))
