"""From --arch and weights to a Model: known networks by name, or the user's own importable factory."""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from torchbands.core.devices import default_device
from torchbands.core.errors import InputError, NotApplicable, Unspecified
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.registry import build, listing
from torchbands.networks.layers import Normalize

from .limits import MAX_CLASSES
from .location import Home
from .own_code import from_file, is_file
from .refusal import plain
from .tensors import Shape
from .weights import Numbers, State, Weights, fits, match, misfit, quantised

#: classes or None (the factory's own) -> a module.
Maker = Callable[[int | None], nn.Module]


def model_of(
    weights: Weights,
    arch: str | None,
    modality: Modality | None,
    classes: int | None,
    likely: int | None,
    output: str | None,
    mean: Numbers | None,
    std: Numbers | None,
    home: Home,
    state: State,
) -> Model:
    """The weights in the module that `arch` names. home: where it lies; nothing is imported from there."""
    if arch is None:
        known = ", ".join(cls.name for cls in listing("network"))
        raise Unspecified(
            f"a file of weights does not say its architecture; known names: {known}",
            hint='type --arch NAME, --arch \'{"name": "resnet", "params": {"depth": 20}}\', '
            "or --arch package.module:factory",
        )
    if modality is None:
        raise Unspecified(
            "what does the model read? its modality was not given",
            hint="name a few of its inputs with --data (in Python: modality=Image(channels=3, size=32))",
        )
    if ":" in arch and not arch.lstrip().startswith("{"):
        maker, sized = _factory(arch, modality, home)
        what = arch
    else:
        network = network_of(arch)
        maker, sized, what = (lambda k: network.build(modality, k or 2)), True, network.label()
        state.facts["network"] = network.spec()
    module = fitted(weights, maker, sized, classes, what, state, modality, likely)
    module = standardised(module, modality, mean, std, state)
    return finished(module, modality, classes, state)


def untrained(arch: str, modality: Modality, classes: int, home: Home) -> nn.Module:
    """What the user's own factory builds for so many classes, as it comes: in training mode or not."""
    maker, sized = _factory(arch, modality, home)
    return _made(maker, classes if sized else None, arch, modality)


def network_of(arch: str) -> Network:
    """A registered network from its name or JSON spec."""
    spec: Any = arch
    if arch.lstrip().startswith("{"):
        try:
            spec = json.loads(arch)
        except ValueError as error:
            raise InputError(f"not JSON: {arch!r} ({error})", hint='write \'{"name": "resnet"}\'') from None
    made = build(spec, "network")
    assert isinstance(made, Network)
    return made


def fitted(
    weights: Weights,
    make: Maker,
    sized: bool,
    classes: int | None,
    what: str,
    state: State,
    modality: Modality | None = None,
    likely: int | None = None,
) -> nn.Module:
    """A module with the weights in it. Sizes are compared before the module of that size is built.

    Args:
        sized: whether `make` takes the number of classes; where none is given it is read from the head.
        likely: taken where the head does not depend on it.
    """
    have: dict[str, Shape] = {k: tuple(t.shape) for k, t in weights.tensors.items()}
    small = _made(make, 2 if sized else None, what, modality)
    want: dict[str, Shape] = _shapes(small)
    if sized:
        other = _shapes(_made(make, 3, what, modality))
        want = {k: tuple(-1 if a != b else a for a, b in zip(s, other[k])) for k, s in want.items()}
    tied = _tied(small)
    optional = [k for k, _ in _normalisers(small)] + [k for names in tied for k in names]
    found = match(have, want, optional, weights.ordered)
    if found is None:
        raise misfit(have, {k: s for k, s in want.items() if k in have or k not in optional}, what)
    pairs = {k: weights.tensors[v] for k, v in found.names.items()}
    _check_tied(tied, pairs, have, want, what)
    if not all(fits(want[k], tuple(t.shape)) for k, t in pairs.items()):
        raise misfit({k: tuple(t.shape) for k, t in pairs.items()}, {k: want[k] for k in pairs}, what)
    if sized:
        inferred = {n for k, t in pairs.items() for n, w in zip(t.shape, want[k]) if w == -1}
        inferred = inferred or {classes or likely or 2}
        if len(inferred) != 1 or (classes is not None and {classes} != inferred):
            raise InputError(f"the head of the weights is for {sorted(inferred)} classes, given: {classes or 'none'}")
        if not 2 <= (count := inferred.pop()) <= MAX_CLASSES:
            raise InputError(f"the weights claim {count:,} classes; 2 to {MAX_CLASSES:,} can be judged")
        small = small if count == 2 else _made(make, count, what, modality)
    with torch.no_grad():
        own = small.state_dict()
        for name, tensor in pairs.items():
            if own[name].shape != tensor.shape:
                raise misfit({name: tuple(tensor.shape)}, {name: tuple(own[name].shape)}, what)
            if own[name].is_floating_point() != tensor.is_floating_point() and tensor.ndim:
                raise quantised([name])
            own[name].copy_(tensor)
    state.facts["weights_matched"] = found.how
    if found.unused:
        state.facts["weights_not_used"] = list(found.unused[:50])
    if "order" in found.how:
        state.facts["weights_matched_note"] = "names differ; check the accuracy on known data"
    _default_normalisation(small, found.missing, state)
    return small


def _made(make: Maker, classes: int | None, what: str, modality: Modality | None = None) -> nn.Module:
    """A module in float32 whose tensors are there: a lazy one has seen a batch, one on no device is put on the CPU."""
    try:
        module = make(classes)
    except (ValueError, NotApplicable) as error:
        raise InputError(f"{what} cannot be built: {plain(error)}") from None
    if not isinstance(module, nn.Module):
        raise InputError(f"{what} gives {type(module).__name__}, expected a torch.nn.Module")
    module = getattr(module, "_orig_mod", module)  # torch.compile: what it wraps computes the same
    if isinstance(module, nn.DataParallel):
        module = module.module
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(t, (UninitializedParameter, UninitializedBuffer)) for t in tensors):
        if modality is None:
            raise InputError(f"{what} is lazy, and what it reads is not known", hint="give --data with its inputs")
        with torch.no_grad():
            modality.call(module.eval(), modality.encode(modality.random(2, torch.Generator().manual_seed(0))))
    if any(t.is_meta for t in tensors):
        module = module.to_empty(device="cpu")
    return module.float()


def _tied(module: nn.Module) -> list[tuple[str, ...]]:
    """Names of one and the same tensor: files may keep it under any of them, or under each."""
    groups: dict[tuple[int, Shape], list[str]] = {}
    for name, tensor in module.state_dict().items():
        if tensor.numel():
            groups.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _check_tied(
    tied: Sequence[tuple[str, ...]], pairs: dict[str, Tensor], have: dict[str, Shape], want: dict[str, Shape], what: str
) -> None:
    """Raises InputError where a tensor is there under none of its names, or is not the same under each."""
    for names in tied:
        there = [k for k in names if k in pairs]
        if not there:
            raise misfit(have, {names[0]: want[names[0]]}, what)
        if any(not torch.equal(pairs[there[0]], pairs[k]) for k in there[1:]):
            raise InputError(
                f"{what} uses one tensor as {' and '.join(there[:3])}, the file has different ones",
                hint="give the architecture that the file was saved from: --arch package.module:factory",
            )


def _shapes(module: nn.Module) -> dict[str, Shape]:
    return {k: tuple(t.shape) for k, t in module.state_dict().items()}


def _normalisers(module: nn.Module) -> Iterator[tuple[str, Normalize]]:
    for path, layer in module.named_modules():
        if isinstance(layer, Normalize):
            for name in ("mean", "std"):
                yield f"{path}.{name}" if path else name, layer


def _default_normalisation(module: nn.Module, missing: Sequence[str], state: State) -> None:
    """Weights of other makers have no normalisation inside: inputs then go in as they are."""
    for key, layer in _normalisers(module):
        if key in missing:
            getattr(layer, key.rsplit(".", 1)[-1]).fill_(0.0 if key.endswith("mean") else 1.0)
            state.facts["normalisation"] = "none"
        else:
            state.facts["normalisation"] = "in the file"


def standardised(
    module: nn.Module, modality: Modality, mean: Numbers | None, std: Numbers | None, state: State
) -> nn.Module:
    """The module with (x - mean) / std before it, in its own Normalize layer where it has one."""
    if mean is None and std is None:
        return module
    if state.facts.get("normalisation") == "in the file":
        raise InputError("the file brings its own normalisation", hint="leave out mean and std")
    probe = modality.encode(modality.random(1, torch.Generator().manual_seed(0))).values
    if not probe.is_floating_point():
        raise InputError(f"mean and std are for numbers, not for {modality.name}", hint="leave out mean and std")
    given = {"mean": 0.0 if mean is None else mean, "std": 1.0 if std is None else std}
    try:
        layer = Normalize(probe.shape[1], given["mean"], given["std"], probe.ndim)
    except ValueError as error:
        raise InputError(str(error)) from None
    state.facts["normalisation"] = {k: list(v) if isinstance(v, Sequence) else v for k, v in given.items()}
    own = next((norm for _, norm in _normalisers(module)), None)
    if own is None:
        return nn.Sequential(layer, module)
    own.mean.copy_(layer.mean.expand_as(own.mean))
    own.std.copy_(layer.std.expand_as(own.std))
    return module


def finished(
    module: nn.Module,
    modality: Modality,
    classes: int | None,
    state: State,
    *,
    likely: int | None = None,
    output: str | None = None,
) -> Model:
    """The module as a Model, after a forward pass on noise has shown its number of classes and what it gives."""
    from torchbands.scanner.heads import answering

    module = module.to(default_device()).eval()
    device = next((t.device for t in module.state_dict().values()), torch.device("cpu"))
    e = modality.encode(modality.random(2, torch.Generator().manual_seed(0))).to(device)
    module, found, notes = answering(module, modality, e, likely=classes or likely, output=output)
    for note in notes:
        state.tell(f"the model: {note}")
    if found > MAX_CLASSES or classes not in (None, found):
        raise InputError(f"the model has {found} classes, given: {classes or 'none'}")
    state.facts["classes"] = found
    return Model.wrap(module, modality, found)


def _factory(arch: str, modality: Modality, home: Home) -> tuple[Maker, bool]:
    """The user's factory, and whether it takes the number of classes."""
    if is_file(arch):  # typed by the user, who may keep a checkpoint beside its code
        return _maker(arch, from_file(arch, "--arch"), modality, home)
    path, _, attribute = arch.partition(":")
    parts = path.split(".")
    with home.left_out():
        for i in range(1, len(parts) + 1):
            home.refuse(".".join(parts[:i]))
            try:
                module = importlib.import_module(".".join(parts[:i]))
            except ImportError as error:
                if (found := home.beside(parts[0])) is not None:
                    raise InputError(
                        f"--arch {arch!r}: {plain(found.name)} lies beside the suspect, and nothing is imported from "
                        "there by its name alone",
                        hint=f"if you wrote it yourself: --arch {shlex.quote(_named(found, parts, attribute))}",
                    ) from None
                raise InputError(
                    f"--arch {arch!r}: cannot import {'.'.join(parts[:i])!r} ({error})",
                    hint="name a module that is installed or lies in the current folder, as package.module:factory",
                ) from None
    try:
        make: Any = module
        for name in attribute.split("."):
            make = getattr(make, name)
    except AttributeError:
        raise InputError(
            f"--arch {arch!r}: module {path!r} has no {attribute!r}",
            hint="name a class or a function that builds the network, as package.module:factory",
        ) from None
    return _maker(arch, make, modality, home)


def _named(found: Path, parts: Sequence[str], attribute: str) -> str:
    """A file beside the suspect as --arch names it."""
    path = found if len(parts) == 1 else found.parent.joinpath(*parts[1:]).with_suffix(".py")
    here = Path.cwd()
    shown = f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)
    return f"{shown}:{attribute}"


def _maker(arch: str, make: Any, modality: Modality, home: Home) -> tuple[Maker, bool]:
    if not callable(make):
        raise InputError(f"--arch {arch!r} names {type(make).__name__}, expected a class or function")
    takes = inspect.signature(make).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    count = next((n for n in ("classes", "num_classes") if n in takes), "classes" if anything else None)
    fixed = {"modality": modality} if "modality" in takes or anything else {}

    def maker(classes: int | None) -> nn.Module:
        with home.left_out():
            made: nn.Module = make(**fixed, **({count: classes} if count and classes is not None else {}))
        return made

    return maker, count is not None
