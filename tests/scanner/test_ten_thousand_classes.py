"""Of very many classes a draw is searched, the same in every model, and what was not searched is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.models import _inversion
from torchbands.defenses.models.input_margin import InputMargin
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.modalities.image import Image
from torchbands.scanner.scan_model import scan

K, MOST = 12, 5
IMAGE = Image(channels=1, size=8)


def model() -> tuple[Model, Data]:
    """A network that knows twelve classes by their pixels."""
    shapes = torch.rand(K, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(120) % K
    noise = torch.randn(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    layer = nn.Linear(64, K)
    with torch.no_grad():
        layer.weight.copy_(shapes.flatten(1))
        layer.bias.copy_(-shapes.flatten(1).square().sum(1) / 2)
    return Model(nn.Sequential(nn.Flatten(), layer), IMAGE, K), Data((shapes[y] + 0.02 * noise).clamp(0, 1), y)


@pytest.mark.parametrize(
    "detector", [TargetInversion(steps=5), UniversalPerturbation(steps=5), InputMargin(steps=3)], ids=lambda d: d.name
)
def test_a_draw_of_the_classes_is_searched_as_all_are(
    detector: TargetInversion | UniversalPerturbation | InputMargin, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect, clean = model()
    every = detector.inspect(suspect, clean).per_class
    cost = detector.work(suspect, len(clean)).back
    monkeypatch.setattr(_inversion, "MOST_CLASSES", MOST)
    found = detector.inspect(suspect, clean)
    at = _inversion.searched(K)
    assert found.per_class is not None and every is not None and len(at) == MOST
    assert found.per_class.isfinite().nonzero().flatten().tolist() == at.tolist() and found.target in at
    assert torch.allclose(found.per_class[at], every[at], atol=1e-3)  # each class as if all were searched
    assert found.evidence["searched"] == MOST and detector.work(suspect, len(clean)).back * K == cost * MOST


def test_what_was_not_searched_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    suspect, clean = model()
    assert not any("did not search" in line for line in scan(suspect, clean, profile="fast").not_covered)
    monkeypatch.setattr(_inversion, "MOST_CLASSES", MOST)
    said: list[str] = []
    outcome = scan(suspect, clean, profile="fast", announce=said.append)
    for name in ("target-inversion", "universal-perturbation"):
        assert f"{K - MOST} of {K} classes, which {name} did not search" in outcome.not_covered
    assert said[0].startswith("looking will take") and f"of {K} classes, {MOST} are searched" in said[1]
