"""Every registered method on a toy on CUDA, twice with one seed. Without a device: one of each role, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from _pytest.mark import ParameterSet

from torchbands.core.attack import Attack
from torchbands.core.defense import InputDetector
from torchbands.core.devices import default_device
from torchbands.core.registry import build, listing
from torchbands.networks.gru import GRUNetwork
from torchbands.testing.behaviour import exercise
from torchbands.testing.contract import EXERCISED, contract_method
from torchbands.testing.fixtures import victim
from torchbands.testing.toys import MODALITIES, toy

On = Callable[[str], None]

#: Ours alone: other tests register methods of their own.
OURS = [cls for cls in listing() if cls.role in EXERCISED and cls.__module__.startswith("torchbands.")]
METHODS = {f"{cls.role}/{cls.name}": cls for cls in OURS}
#: What is tried on the CPU too: one of each role.
HERE = (
    *("attack/badnets", "aggregator/median", "input-detector/scale-up", "model-detector/input-margin"),
    *("data-filter/spectral-signatures", "training/partition-aggregation", "repair/fine-tune", "network/gru"),
)
#: Attacks that take gradients through a network in eval mode, or twice, and work on recurrent ones.
THROUGH_RECURRENCE = ("ripple", "embedding-poisoning", "por", "badencoder", "lws")


def cases(names: Iterable[str], here: Iterable[str]) -> list[ParameterSet]:
    """(device, name): all on CUDA, some on the CPU."""
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
    on_cuda = [pytest.param("cuda", name, marks=[pytest.mark.cuda, absent], id=f"cuda-{name}") for name in names]
    return [*on_cuda, *(pytest.param("cpu", name, id=f"cpu-{name}") for name in here)]


def test_the_list_is_whole() -> None:
    assert set(HERE) <= set(METHODS) and {name.split("/")[0] for name in HERE} == set(EXERCISED)
    assert len(METHODS) == len(OURS) > 60
    listed = [case.values[1] for case in cases(METHODS, HERE) if case.values[0] == "cuda"]
    assert listed == list(METHODS)


@pytest.mark.parametrize(("device", "name"), cases(METHODS, HERE))
def test_method(device: str, name: str, on: On) -> None:
    on(device)
    cls = METHODS[name]
    made = contract_method(cls)
    ran = next((kind for kind in MODALITIES if exercise(made, kind, twice=True).ran), None)
    assert (ran is None) == bool(getattr(cls, "contract_declines", False)), f"{name} runs on no toy"
    assert default_device().type == device
    if cls.role in ("input-detector", "model-detector", "data-filter", "repair"):
        assert ran is not None or getattr(cls, "contract_declines", False)
        assert victim("image", "badnets").model.device.type == device


@pytest.mark.parametrize(("device", "name"), cases(THROUGH_RECURRENCE, ["ripple", "embedding-poisoning"]))
def test_gradients_through_a_recurrent_network(device: str, name: str, on: On) -> None:
    on(device)
    task = toy("text", rows=256).but(network=GRUNetwork(dim=16, width=16))
    attack = build({"role": "attack", "name": name})
    assert isinstance(attack, Attack)
    few = {"steps": 10, "epochs": 1, **getattr(attack, "contract_settings", {})}
    attack = attack.but(**{k: v for k, v in few.items() if hasattr(attack, k)})
    planted = attack.run(task, 0)
    assert planted.model.device.type == device
    rap = build("rap", role="input-detector")
    assert isinstance(rap, InputDetector)
    clean = task.load("clean")[:32]
    scores = rap.but(epochs=1, steps=3).fit(planted.model, clean, seed=0).score(clean.x)
    assert scores.shape == (32,) and bool(scores.isfinite().all())
