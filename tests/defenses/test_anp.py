"""ANP against a neuron that is known to be the backdoor, and a threshold that never sees a trigger."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.repair.anp import ANP, choose, prunable, pruned


class OneNeuron(nn.Module):
    """A clean network beside one normalised channel that fires on a white corner and then shouts class 0."""

    def __init__(self, clean: nn.Module) -> None:
        super().__init__()
        self.clean = clean
        self.spot = nn.Conv2d(1, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(2, eps=0.0)
        with torch.no_grad():
            self.spot.weight.copy_(torch.ones_like(self.spot.weight))
            self.norm.bias.fill_(-8.5)

    def forward(self, x: Tensor) -> Tensor:
        fires = F.relu(self.norm(self.spot(x[:, :, -4:-1, -4:-1])))[:, 0].flatten(1)
        logits: Tensor = self.clean(x)
        return logits + F.pad(100 * fires, (0, 9))


def _planted(victim: Victim) -> Model:
    model = Model(OneNeuron(copy.deepcopy(victim.model.module)), victim.model.modality, 10)
    return model


def _asr(model: Model, data: Data) -> float:
    x = data.x[torch.arange(len(data))].clone()
    x[:, :, -4:-1, -4:-1] = 1.0
    return float((model.logits(x).argmax(1)[data.y != 0] == 0).float().mean())


def test_finds_the_planted_neuron(untouched: Victim, clean: Data) -> None:
    model, test = _planted(untouched), untouched.task.load("test")
    before = float((model.logits(test.x).argmax(1) == test.y).float().mean())
    assert _asr(model, test) > 0.99
    masks = ANP().masks(model.clone(), clean, 0)
    assert float(masks["norm"][0]) < 0.1
    others = torch.cat([mask for name, mask in masks.items() if name != "norm"])
    assert float(others.mean()) > 0.7
    repaired = ANP().repair(model, clean)
    assert _asr(repaired, test) < 0.1
    assert float((repaired.logits(test.x).argmax(1) == test.y).float().mean()) > before - 0.08


def test_masks_stay_in_range_and_buffers_stay_put(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model.clone()
    buffers = {name: b.clone() for name, b in model.module.named_buffers()}
    masks = ANP(steps=15).masks(model, clean, 0)
    assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for m in masks.values())
    assert all(torch.equal(buffers[name], b) for name, b in model.module.named_buffers())
    assert {u.layer for u in prunable(model)} == set(masks)


def test_the_threshold_is_the_largest_within_the_limit(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model
    masks = {u.layer: torch.linspace(0, 1, u.count) for u in prunable(model)}
    accuracy = float((model.logits(clean.x).argmax(1) == clean.y).float().mean())
    for tolerance in (0.02, 0.2):
        scales = choose(model, masks, clean, tolerance)
        kept = float((pruned(model, scales).logits(clean.x).argmax(1) == clean.y).float().mean())
        assert kept >= accuracy - tolerance
    gone = [sum(int((s == 0).sum()) for s in choose(model, masks, clean, t).values()) for t in (0.0, 0.2, 1.0)]
    assert gone == sorted(gone) and gone[2] > gone[0]
    everything = sum(int((m <= 0.9).sum()) for m in masks.values())
    assert gone[2] == everything


def test_the_threshold_does_not_depend_on_any_trigger(backdoored: Victim, clean: Data) -> None:
    """Only the model and the clean rows go in: a trigger's own success cannot be looked at."""
    import inspect

    assert set(inspect.signature(choose).parameters) == {"model", "masks", "held_out", "tolerance"}
    assert "clean:500" in ANP.needs and "target" not in ANP.needs
