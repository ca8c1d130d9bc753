"""In the child: the tensors of a torch file, read with `weights_only=True` and never without.

Files that hold objects of other classes (a whole module, TorchScript, a training state) are read with inert stand-ins:
each foreign class or function of the pickle is replaced by a class that does nothing but keep what it is given, so the
tensors inside can be reached while no code of theirs is imported or called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

#: Where checkpoints keep their weights, in order of preference.
KEYS = ("state_dict", "model_state_dict", "model", "net", "netC", "weights", "module", "model_ema", "ema")
_MAX_DEPTH = 50


class Inert:
    """Keeps what it is given."""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args = args


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Write the tensors of job["file"] to job["out"] as safetensors. job["foreign"]: names to stand in for."""
    from torch._weights_only_unpickler import _get_allowed_globals

    known = _get_allowed_globals()
    stands: list[Any] = [(type("Inert", (Inert,), {}), name) for name in job["foreign"] if name not in known]
    with torch.serialization.safe_globals(stands):
        found = torch.load(job["file"], map_location="cpu", weights_only=True)
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
    return {"order": list(kept), "dropped": dropped[:20], "where": where}


def weights_of(found: Any) -> tuple[dict[str, Tensor], str]:
    """The weights inside whatever a checkpoint is, and where they were. Empty where there are none."""
    if isinstance(found, Inert):
        return dict(_module(found, "", 0, set())), "object"
    if not isinstance(found, Mapping):
        return {}, type(found).__name__
    plain = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    for key in KEYS:
        inner = found.get(key)
        if isinstance(inner, (Mapping, Inert)):
            state, where = weights_of(inner)
            if len(state) > len(plain):
                return state, f"{key}" if where == "state dict" else f"{key}, {where}"
    return plain, "state dict"


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
