"""The loop that repairs share: smoothing does what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.learners.finetune import finetune
from torchbands.modalities.observation import Observation


def test_smoothed_labels_leave_the_answer_less_sure() -> None:
    y = torch.arange(32) % 2
    rows = Data((y * 2.0 - 1)[:, None], y)
    sure = []
    for smoothing in (0.0, 0.4):
        model = Model(nn.Sequential(nn.Linear(1, 2)), Observation(shape=(1,)), 2)
        settings = {"epochs": 80, "lr": 1.0, "weight_decay": 0.0, "batch": 8, "momentum": 0.0}
        finetune(model, rows, label_smoothing=smoothing, **settings)  # type: ignore[arg-type]
        sure.append(float(model.probabilities(rows.x).amax(1).mean()))
    assert sure[0] > 0.97 and sure[1] == pytest.approx(0.8, abs=0.01)
