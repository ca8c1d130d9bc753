"""In the child: the tensors of a torch file, read with `weights_only=True` and never without.

Files that hold objects of other classes (a whole module, TorchScript, a training state) are read with inert stand-ins:
each foreign class or function of the pickle is replaced by a class that does nothing but keep what it is given, so the
tensors inside can be reached while no code of theirs is imported or called.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

#: Where checkpoints keep their weights, in order of preference.
KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "netC", "weights", "module", "network", "params"),
    *("model_state", "net_state_dict", "student", "model_ema", "state_dict_ema", "ema", "params_ema", "teacher"),
)
#: Tables of tensors that are no weights.
_ELSE = ("optim", "sched", "scaler", "rng", "loss", "criterion", "hparams", "hyper_parameters", "metrics", "args")
_MAX_DEPTH, _MAX_PLACES = 50, 20_000


class Inert:
    """Keeps what it is given."""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        """Attributes, as an object's state is; anything else is let go."""
        if isinstance(state, Mapping):
            self.__dict__.update({str(k): v for k, v in state.items()})


def _table(*_: Any) -> OrderedDict[Any, Any]:
    """In the place of a defaultdict, which fills itself by calling what the file names."""
    return OrderedDict()


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Write the tensors of job["file"] to job["out"] as safetensors. job["foreign"]: names to stand in for."""
    from torch._weights_only_unpickler import _get_allowed_globals

    known = _get_allowed_globals()
    names = [*job["foreign"], *(n.replace("__builtin__", "builtins") for n in job["foreign"])]
    stands: list[Any] = [
        (_table if name == "collections.defaultdict" else type("Inert", (Inert,), {}), name)
        for name in dict.fromkeys(names)
        if name not in known
    ]
    with torch.serialization.safe_globals(stands):
        found = torch.load(job["file"], map_location="cpu", weights_only=True)
    if few := [name for name, value in walk(found) if isinstance(value, Tensor) and value.is_quantized]:
        return {"quantised": few[:20]}
    if momenta := optimizer_of(found):
        return {"optimizer": momenta}
    state, where = weights_of(found)
    room, kept, dropped = job["megabytes"] << 20, dict[str, Tensor](), []
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
            dropped.append(name)
            continue
        room -= tensor.numel() * tensor.element_size()
        if room < 0:
            return {
                "error": f"its tensors need more than {job['megabytes']} MB: {name[:80]!r} is {tuple(tensor.shape)}"
            }
        kept[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    save_file(kept, job["out"])
    return {"order": list(kept), "dropped": dropped[:20], "where": where, "claims": _numbers(found)}


def optimizer_of(found: Any) -> int:
    """How many parameters' momenta a file holds that is an optimizer's state and nothing else; 0 for any other.

    Momenta have the shapes of weights, and would be taken for them."""
    if not isinstance(found, Mapping):
        return 0
    if isinstance(found.get("param_groups"), list) and isinstance(found.get("state"), Mapping):
        groups = [g for g in found["param_groups"] if isinstance(g, Mapping)]
        return max(1, sum(len(g["params"]) for g in groups if isinstance(g.get("params"), (list, tuple))))
    if weights_of(found)[0]:
        return 0
    inner = (value for key, value in found.items() if str(key).lower().startswith("optim"))
    return next((n for n in map(optimizer_of, inner) if n), 0)


def _numbers(found: Any) -> dict[str, float]:
    """Plain numbers beside the weights, such as an accuracy."""
    pairs = itertools.islice(found.items(), 200) if isinstance(found, Mapping) else ()
    made = {}
    for key, value in pairs:
        value = (
            float(value) if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point() else value
        )
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            made[str(key)[:40]] = float(value)
    return made


def weights_of(found: Any, depth: int = 0) -> tuple[dict[str, Tensor], str]:
    """The weights inside whatever a checkpoint is, and where they were. Empty where there are none.

    A known key comes first, in the order of KEYS; then the place with most tensors, at most three levels down. Other
    places with weights of their own, such as an average of the weights beside them, are named: they are not judged.
    """
    if isinstance(found, Inert):
        return dict(_module(found, "", 0, set())), "object"
    if isinstance(found, (tuple, list)):
        parts = {str(i): value for i, value in enumerate(found[:20])}
        plain: dict[str, Tensor] = {}
    elif isinstance(found, Mapping):
        parts = {str(k): v for k, v in found.items()}
        plain = {k: v for k, v in parts.items() if isinstance(v, Tensor)}
    else:
        return {}, type(found).__name__
    if depth > 3:
        return plain, "state dict"
    inner = {}
    for key, value in parts.items():
        if isinstance(value, (Mapping, Inert, tuple, list)) and not key.lower().startswith(_ELSE):
            state, where = weights_of(value, depth + 1)
            if len(state) > len(plain):
                inner[key] = (state, key if where == "state dict" else f"{key}, {where}")
    if not inner:
        return plain, "state dict" if isinstance(found, Mapping) else type(found).__name__
    first = next((k for k in KEYS if k in inner), None) or max(inner, key=lambda k: len(inner[k][0]))
    state, where = inner[first]
    others = [k for k, (twin, _) in inner.items() if k != first and len(twin) >= len(state)]
    return state, where + (f" (not judged: {', '.join(others[:3])})" if others else "")


def walk(found: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value inside tables and lists, with its key, down to a depth that ordinary files do not reach."""
    if depth > 6:
        return
    pairs: Any = found.items() if isinstance(found, Mapping) else ()
    pairs = enumerate(found) if isinstance(found, (tuple, list)) else pairs
    for key, value in itertools.islice(pairs, _MAX_PLACES):
        yield str(key), value
        yield from walk(value, depth + 1)


def _module(thing: Inert, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """A pickled nn.Module (or a TorchScript object) as (name, tensor), named as its state dict would."""
    if depth > _MAX_DEPTH or id(thing) in seen:
        return
    seen.add(id(thing))
    held = vars(thing)
    if isinstance(held.get("_parameters"), Mapping):
        gone = held.get("_non_persistent_buffers_set") or ()
        buffers = {k: v for k, v in (held.get("_buffers") or {}).items() if k not in gone}
        parts: dict[str, Any] = {**held["_parameters"], **buffers, **(held.get("_modules") or {})}
    else:
        parts = held
    for name, value in parts.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Inert):
            yield from _module(value, f"{prefix}{name}.", depth + 1, seen)
