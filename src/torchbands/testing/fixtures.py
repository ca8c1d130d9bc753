"""What the contract needs around a method: toy victims trained once per process, and guards that see side effects."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.testing.toys import toy


class ContractError(AssertionError):
    """A method breaks a rule of the contract; the message names the method, the rule and what was seen."""


def demand(holds: bool, rule: str) -> None:
    """Raise ContractError when a rule does not hold."""
    if not holds:
        raise ContractError(rule)


@lru_cache(maxsize=96)
def victim(name: str, attack: str, rate: float = 0.2, seed: int = 0) -> Victim:
    """A toy's victim of a named attack (BadNets on a fifth of the rows, or clean), trained once per process."""
    made = build({"role": "attack", "name": attack, **({"rate": rate} if attack != "clean" else {})})
    assert isinstance(made, Attack)
    return made.run(toy(name), seed)


@lru_cache(maxsize=16)
def training_data(name: str, attack: str, rate: float = 0.2) -> tuple[Data, Data]:
    """The victim's training rows with the truth, and as a defender sees them."""
    data = victim(name, attack, rate).training_data()
    return data, data.blind()


def same_rows(a: Any, b: Any) -> bool:
    """Whether two raw batches or columns hold the same samples."""
    return len(a) == len(b) and not differing(a, b).any()


def differing(a: Any, b: Any) -> Tensor:
    """(N,) bool: which rows of two raw columns differ."""
    x, y = whole(a), whole(b)
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        if x.dtype != y.dtype or x.shape != y.shape:
            return torch.ones(len(x), dtype=torch.bool)
        return (x != y).flatten(1).any(1).cpu()
    return torch.tensor([one != two for one, two in zip(x, y, strict=True)], dtype=torch.bool)


def same_weights(a: Model, b: Model) -> bool:
    """Whether two models have equal state."""
    x, y = a.module.state_dict(), b.module.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def _copy(x: Any) -> Any:
    held = whole(x)
    return held.clone() if isinstance(held, Tensor) else list(held)


def _shape(model: Model) -> tuple[Any, ...]:
    module = model.module
    return (
        module.training,
        [p.requires_grad for p in module.parameters()],
        [p.grad is None for p in module.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in module.modules()],
    )


def _random_states() -> dict[str, Any]:
    numpy: Any = np.random.get_state(legacy=True)
    return {
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "numpy.random": (numpy[1].tolist(), *numpy[2:]),
    }


@contextlib.contextmanager
def untouched(*held: Data | Model | None) -> Iterator[None]:
    """Run a method's code and raise ContractError if it changed what it was given, a global generator, or printed."""
    data = [
        (d, _copy(d.x), d.y.clone(), {k: v.clone() for k, v in d.meta.items()}) for d in held if isinstance(d, Data)
    ]
    models = [
        (m, {k: v.clone() for k, v in m.module.state_dict().items()}, _shape(m)) for m in held if isinstance(m, Model)
    ]
    importlib.import_module("sklearn.covariance")  # its first import draws from `random`
    before, printed = _random_states(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    try:
        drawn = [name for name, state in _random_states().items() if state != before[name]]
        demand(not drawn, f"drew from the global generator of {' and '.join(drawn)}: use core.seeding")
        demand(not printed.getvalue(), f"printed to stdout: {printed.getvalue()[:80]!r}; report through `progress`")
        for d, x, y, meta in data:
            demand(same_rows(d.x, x) and torch.equal(d.y, y), "changed the data it was given: clone before writing")
            demand(all(torch.equal(d.meta[k], v) for k, v in meta.items()), "changed the meta of the data it was given")
        for m, state, shape in models:
            now = m.module.state_dict()
            demand(
                all(torch.equal(now[k], v) for k, v in state.items()), "changed the model's weights: use model.clone()"
            )
            demand(_shape(m) == shape, "left the model in train mode, or with gradients, frozen weights or hooks")
    except ContractError:
        victim.cache_clear()  # what others would be given is spoilt
        raise
