"""An untrained network like a suspect's, for its references."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.registry import build
from torchbands.core.reinitialize import redraw
from torchbands.networks.layers import Normalize

from .opening import Suspect
from .recipes import OwnNetwork

#: Builds an untrained module, drawn from torch's global generator.
Fresh = Callable[[], nn.Module]


def untrained_like(suspect: Suspect, arch: str | None) -> OwnNetwork:
    """The suspect's architecture, untrained. Its normalisation stays.

    The network is built anew where its name, the user's own factory (`arch`) or a class of transformers is known, so
    that class tokens, positions and attention begin as their maker begins them; else every layer of the suspect's
    module draws its weights again.

    Raises InputError where neither can be done.
    """
    model = suspect.model
    assert model is not None
    if "weights" not in model.capabilities:
        raise InputError(
            "the suspect gives predictions only: nobody can train another one like it from the file",
            hint="name its network without --like: --arch NAME --data CLEAN",
        )
    template = copy.deepcopy(model.module).cpu()
    spec = suspect.facts.get("network")
    own = bool(arch) and ":" in str(arch).split("{")[0]
    if spec is None and arch and not own:
        from .opening.architecture import network_of

        spec = network_of(arch).spec()
    if spec is not None:
        network = build(spec, "network", origin=Path(suspect.path) / "card.json")
        assert isinstance(network, Network)
        return OwnNetwork(lambda: _with_normalisation(network.build(model.modality, model.classes), template), spec)
    name = arch or suspect.format
    if own:
        assert arch is not None
        return OwnNetwork(_in_place(template, lambda: _of_factory(arch, suspect, model), arch), name)
    if (body := _of_transformers(template)) is not None:
        kind: Any = type(body)
        return OwnNetwork(_in_place(template, lambda: kind(copy.deepcopy(body.config)), kind.__name__), name)
    if left := redraw(copy.deepcopy(template)):
        raise InputError(
            f"the layers of {', '.join(left[:3])} cannot be drawn anew",
            hint="name what builds the network: --arch NAME, or your own package.module:factory or ./file.py:factory",
        )
    return OwnNetwork(lambda: _redrawn(copy.deepcopy(template)), name)


def _of_factory(arch: str, suspect: Suspect, model: Model) -> nn.Module:
    from .opening.architecture import untrained
    from .opening.location import Home

    return untrained(arch, model.modality, model.classes, Home.of(Path(suspect.path)))


def _of_transformers(template: nn.Module) -> Any:
    """The outermost model of transformers in a module, if that library built any of it."""
    if "transformers" not in sys.modules:
        return None
    from transformers import PreTrainedModel

    return next((layer for layer in template.modules() if isinstance(layer, PreTrainedModel)), None)


def _in_place(template: nn.Module, make: Fresh, what: str) -> Fresh:
    """What `make` gives in the place where the suspect has it: behind its normalisation, inside what adapts it."""
    first = make()
    path = next((path for path, layer in template.named_modules() if _alike(layer, first)), None)
    if path is None:
        raise InputError(f"{what} builds another network than the suspect's", hint="name what the suspect was built by")

    def fresh() -> nn.Module:
        made = make()
        _copy_normalisation(made, template.get_submodule(path))
        if not path:
            return made.train()
        whole = copy.deepcopy(template)
        whole.set_submodule(path, made)
        return whole.train()

    return fresh


def _alike(layer: nn.Module, made: nn.Module) -> bool:
    if type(layer).__name__ != type(made).__name__:
        return False
    ours, theirs = layer.state_dict(), made.state_dict()
    return ours.keys() == theirs.keys() and all(ours[k].shape == theirs[k].shape for k in ours)


def _redrawn(module: nn.Module) -> nn.Module:
    redraw(module)
    return module.train()


def _with_normalisation(module: nn.Module, template: nn.Module) -> nn.Module:
    """The same (x - mean) / std as in the suspect, whether it stands inside or before the network."""
    if len(module.state_dict()) != len(template.state_dict()) and isinstance(template, nn.Sequential):
        return nn.Sequential(copy.deepcopy(template[0]), module)
    _copy_normalisation(module, template)
    return module


def _copy_normalisation(module: nn.Module, template: nn.Module) -> None:
    theirs = dict(template.named_modules())
    for name, layer in module.named_modules():
        if isinstance(layer, Normalize) and isinstance(other := theirs.get(name), Normalize):
            layer.load_state_dict(other.state_dict())
