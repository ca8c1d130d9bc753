"""channel-lipschitz: finds a unit made sensitive by hand, stays quiet on a clean model, declines without units."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchbands.core.attack import Victim
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.channel_lipschitz import ChannelLipschitz
from torchbands.modalities.image import Image


def test_finds_a_sensitive_unit_and_stays_quiet_on_a_clean_model(digits: Task, clean_victim: Victim) -> None:
    clean = digits.load("clean")
    quiet = ChannelLipschitz().inspect(clean_victim.model, clean)
    assert quiet.flagged is False
    scale = torch.ones(64)
    scale[11] = 4.0
    loud = ChannelLipschitz().inspect(clean_victim.model.baked({"norms.1": scale}), clean)
    assert loud.flagged is True and loud.score > max(quiet.score, 3.0)
    assert loud.evidence["layer"] == "norms.1" and loud.evidence["unit"] == 11
    assert loud.evidence["outliers"] == {"norms.1": 1}


def test_declines_without_units(digits: Task) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(NotApplicable, match="units"):
        ChannelLipschitz().inspect(Model.wrap(linear, Image(channels=1, size=8), 10), digits.load("clean"))


def test_declines_a_black_box(digits: Task, clean_victim: Victim) -> None:
    box = Model.black_box(clean_victim.model.probabilities, digits.modality, 10)
    with pytest.raises(NotApplicable, match="weights"):
        ChannelLipschitz().inspect(box, digits.load("clean"))
