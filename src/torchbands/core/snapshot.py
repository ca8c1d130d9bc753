"""The state of an object as plain values, and put back: how a training that was killed goes on where it was.

Tensors, numbers, texts, containers, random sources, networks and optimisers are kept, and the objects that hold them.
Settings, data and functions never change in a training, so they are taken from whoever it is put back into.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .data import Data
from .errors import InputError
from .method import Method
from .model import Model

_PLAIN = (bool, int, float, str, bytes, type(None))
_KINDS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "deque": collections.deque}
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
#: Of what is the same whenever a training is started.
_SAME = ("same", None)


def snapshot(value: Any) -> Any:
    """Plain values, tensors and containers that `restore` understands and `torch.load` reads without running code."""
    return _taken(value, ())


def _taken(value: Any, inside: tuple[int, ...]) -> tuple[str, Any]:
    if isinstance(value, _PLAIN):
        return "plain", value
    if isinstance(value, Tensor):
        return "tensor", value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return "array", torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return "plain", value.item()
    if isinstance(value, torch.Generator):
        return "generator", value.get_state()
    if isinstance(value, np.random.Generator):
        return "numpy-generator", value.bit_generator.state
    if isinstance(value, Model):
        return _taken(value.module, inside)
    if isinstance(value, (nn.Module, torch.optim.Optimizer)):
        return "state", _copied(value.state_dict())
    if id(value) in inside or isinstance(value, (Method, Data, type, *_CODE)):
        return _SAME
    inside = (*inside, id(value))
    for kind, made in _KINDS.items():
        if type(value) is made:
            return kind, [_taken(v, inside) for v in value]
    if isinstance(value, Mapping):
        return "mapping", [(k, _taken(v, inside)) for k, v in value.items()]
    if hasattr(value, "__dict__"):
        return "object", {k: _taken(v, inside) for k, v in vars(value).items()}
    return _SAME


def restore(value: Any, saved: Any) -> Any:
    """What `snapshot` took, put into `value`, the same thing freshly made. Gives it back, or what stands for it."""
    kind, held = saved
    if kind == "same":
        return value
    if kind == "plain":
        return held
    if kind == "tensor":
        return held.to(value.device) if isinstance(value, Tensor) else held
    if kind == "array":
        return held.numpy()
    if kind in _KINDS:
        old = list(value) if isinstance(value, (list, tuple)) else []
        made = _KINDS[kind](restore(old[i] if i < len(old) else None, v) for i, v in enumerate(held))
        return collections.deque(made, value.maxlen) if isinstance(value, collections.deque) else made
    if kind == "mapping":
        fresh = {k: restore(value[k] if value is not None and k in value else None, v) for k, v in held}
        if not isinstance(value, collections.defaultdict):
            return fresh
        value.clear()
        value.update(fresh)
        return value
    if value is None:
        raise InputError(f"a {kind} that a training made on its way cannot be put back")
    if kind == "generator":
        value.set_state(held)
    elif kind == "numpy-generator":
        value.bit_generator.state = held
    elif kind == "state":
        (value.module if isinstance(value, Model) else value).load_state_dict(held)
    else:
        for name, part in held.items():
            object.__setattr__(value, name, restore(getattr(value, name, None), part))
    return value


def _copied(state: Any) -> Any:
    """A state dict of its own: it must not change as training goes on."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, Mapping):
        return {k: _copied(v) for k, v in state.items()}
    return [_copied(v) for v in state] if isinstance(state, (list, tuple)) else state
