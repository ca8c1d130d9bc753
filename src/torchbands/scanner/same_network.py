"""Whether two modules are one architecture, with normalisation in front of either or not."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import safe_open
from torch import nn

from torchbands.core.model import Model
from torchbands.networks.layers import Normalize

from .normalisation import accuracy_of, normalised
from .reference_files import WEIGHTS
from .references import ReferenceSet

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a module's weights."""
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


def same_network(module: nn.Module, theirs: Shapes) -> bool:
    """Whether a module has these weights, leaving out constants that only normalise and the place in a Sequential."""
    return shapes_of(module) == theirs or _core(_learned(module)) == _core(_without_normalisation(theirs))


def behind_normalisation(module: nn.Module, theirs: Shapes) -> nn.Module | None:
    """A module of exactly these weights, made of this one (or of what stands behind its own normalisation)."""
    if shapes_of(module) == theirs:
        return module
    channels = next((shape[1] for name, shape in theirs.items() if name == "0.mean" and len(shape) > 1), 0)
    for inner in (module, *module.children()):
        if shapes_of(inner) == theirs:
            return inner
        if channels:
            made = nn.Sequential(Normalize(channels, [0.0] * channels, [1.0] * channels, len(theirs["0.mean"])), inner)
            if shapes_of(made) == theirs:
                return made
    return None


def as_references_read(model: Model, reference_set: ReferenceSet) -> Model:
    """The suspect with the references' normalisation, where it brings none and knows more of the clean rows with it."""
    theirs = reference_set.shapes()
    if "weights" not in model.capabilities or "0.mean" not in theirs or shapes_of(model.module) == theirs:
        return model
    with safe_open(reference_set.members()[0] / WEIGHTS, framework="pt") as file:
        mean, std = (file.get_tensor(f"0.{name}").flatten().tolist() for name in ("mean", "std"))
    made = normalised(model, mean, std)
    if made is None or len(theirs["0.mean"]) != 4 or shapes_of(made.module) != theirs:
        return model
    return made if accuracy_of(made, reference_set.clean) > accuracy_of(model, reference_set.clean) else model


def _learned(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Weights and running statistics: no buffers of layers that learn nothing."""
    out: dict[str, tuple[int, ...]] = {}
    for path, layer in module.named_modules():
        constant = next(iter(layer.parameters(recurse=False)), None) is None and not hasattr(layer, "running_mean")
        if not constant:
            own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
            out |= {f"{path}.{name}".lstrip("."): tuple(t.shape) for name, t in own.items()}
    return out


def _without_normalisation(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    names = {n.rpartition(".")[0] for n in shapes if n.endswith((".mean", "std"))}
    layers = {n for n in names if {m for m in shapes if m.rpartition(".")[0] == n} == {f"{n}.mean", f"{n}.std"}}
    return {name: shape for name, shape in shapes.items() if name.rpartition(".")[0] not in layers}


def _core(shapes: Shapes) -> list[tuple[str, tuple[int, ...]]]:
    """Without the leading parts of names that all share, such as the place in a Sequential."""
    parts = {name: name.split(".") for name in shapes}
    while parts and all(len(p) > 2 for p in parts.values()) and len({p[0] for p in parts.values()}) == 1:
        parts = {name: p[1:] for name, p in parts.items()}
    return sorted((".".join(parts[name]), shape) for name, shape in shapes.items())
