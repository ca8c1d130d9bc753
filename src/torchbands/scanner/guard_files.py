"""Save and load a guard directory: card.json, model.safetensors or model.onnx, detector.safetensors. No pickle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchbands import __version__
from torchbands.core.defense import InputDetector
from torchbands.core.devices import default_device
from torchbands.core.errors import BandsError, InputError, NotApplicable
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.registry import build
from torchbands.zoo.artifact import Kind, save_tensors, sums
from torchbands.zoo.files import sha256
from torchbands.zoo.modality import FILES, read_modality, write_modality

from .predictor import predictor

if TYPE_CHECKING:
    from .guard import Guard
    from .opening import Limits

CARD, WEIGHTS, DETECTOR, GRAPH = "card.json", "model.safetensors", "detector.safetensors", "model.onnx"
FORMAT = 1
_AGAIN = "fit it again: bands guard fit MODEL --data CLEAN -o DIR"
KIND = Kind(
    name="a guard",
    card=CARD,
    files=frozenset({CARD, WEIGHTS, DETECTOR, GRAPH, *FILES}),
    is_mine=lambda card: card.get("kind") == "torchbands-guard",
    needs=frozenset({WEIGHTS, DETECTOR}),
    format=FORMAT,
    error=InputError,
    again=_AGAIN,
)


@dataclass(frozen=True)
class Graph:
    """An ONNX file that a guard keeps, for it is opened again for every check. mean, std: of what goes in. output: the
    one with the classes, where there are several."""

    path: Path
    sha256: str
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    output: str | None = None


def save(guard: Guard, folder: str | Path, network: Network | None, graph: Graph | None = None) -> Path:
    """Write the directory; an existing guard of that name is replaced, anything else is refused."""
    folder = Path(folder)
    tensors, facts = guard.fitted.state()
    weights = guard.model.module.state_dict() if "weights" in guard.model.capabilities else {}
    if network is not None and not _builds(network, guard.model):
        network = None
    with KIND.new(folder) as at:
        save_tensors(weights, at / WEIGHTS)
        save_tensors({**tensors, "calibration": guard.calibration}, at / DETECTOR)
        write_modality(guard.model.modality, at)
        if graph is not None:
            shutil.copyfile(graph.path, at / GRAPH)
            if sha256(at / GRAPH) != graph.sha256:
                raise InputError(f"{graph.path} changed while the guard was fitted", hint="fit it again")
        card = {
            "kind": "torchbands-guard",
            "format": FORMAT,
            "torchbands": __version__,
            "network": None if network is None else network.spec(),
            "black_box": not weights,
            "graph": None if graph is None else {"mean": graph.mean, "std": graph.std, "output": graph.output},
            "modality": guard.model.modality.spec(),
            "classes": guard.model.classes,
            "precision": guard.model.precision,
            "detector": guard.detector.spec(),
            "facts": facts,
            "alpha": guard.alpha,
            "seed": guard.seed,
            "overhead": guard.overhead,
            "files": sums(at),
        }
        KIND.write_card(at, card)
    return folder


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card, after every file has been checked against it. InputError names what is missing or altered."""
    return KIND.verified(Path(folder))


def load(
    restored: Callable[..., Guard],
    folder: str | Path,
    given: Any | None = None,
    arch: str | None = None,
    limits: Limits | None = None,
) -> Guard:
    """See `Guard.load`. restored: makes the guard of its parts."""
    folder = Path(folder)
    card = read_card(folder)
    try:
        weights, tensors = KIND.tensors(folder, WEIGHTS), KIND.tensors(folder, DETECTOR)
        detector = build(card["detector"], "input-detector", origin=folder / CARD)
        assert isinstance(detector, InputDetector)
        model = _model(card, weights, given, folder, arch, limits)
        fitted = detector.restore(model, tensors, card["facts"])
        calibration = tensors["calibration"]
        if calibration.ndim != 1 or len(calibration) == 0 or not torch.isfinite(calibration).all():
            raise ValueError("the calibration scores are no finite numbers")
        facts = {name: card[name] for name in ("alpha", "seed", "overhead")}
        return restored(model, detector, fitted, calibration.sort().values, **facts)
    except BandsError:
        raise
    except NotApplicable as error:
        raise InputError(f"{folder}: {error.reason}", hint=_AGAIN) from None
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError) as error:
        said = str(error).splitlines()
        raise InputError(f"{folder} is damaged: {said[-1].strip() if said else error!r}", hint=_AGAIN) from None


def _model(
    card: dict[str, Any],
    weights: dict[str, Tensor],
    given: Any | None,
    folder: Path,
    arch: str | None,
    limits: Limits | None,
) -> Model:
    of_card = folder / CARD
    modality = given.modality if isinstance(given, Model) else read_modality(card["modality"], folder, of_card)
    classes = int(card["classes"])
    if given is not None:
        model = predictor(given, None, modality, classes)
        model = model if isinstance(given, Model) else model.at_precision(card["precision"])
        held = model.module.state_dict() if "weights" in model.capabilities else {}
        if held.keys() != weights.keys() or any(not torch.equal(held[k].cpu(), t) for k, t in weights.items()):
            raise InputError(f"{folder} guards another model: the weights given are not those it was fitted with")
        return model
    if card.get("graph") is not None:
        return _of_graph(folder, card["graph"], modality, classes, limits)
    if card["network"] is not None:
        network = build(card["network"], "network", origin=folder / CARD)
        assert isinstance(network, Network)
        module = network.build(modality, classes)
    elif arch is not None and not card["black_box"]:
        module = _of_own_code(arch, weights, modality, classes, folder)
    else:
        what = "wraps a black box" if card["black_box"] else "does not say how its network is built"
        flags = "--model FILE" if card["black_box"] else "--arch package.module:factory, or with --model FILE"
        raise InputError(
            f"{folder} {what}", hint=f"name it again with {flags}; in Python: Guard.load(folder, model=model)"
        )
    module.load_state_dict(weights)
    return Model(module.to(default_device()), modality, classes, precision=card["precision"])


def _of_graph(folder: Path, facts: Mapping[str, Any], modality: Modality, classes: int, limits: Limits | None) -> Model:
    """The ONNX file that lies in the guard, opened like any other suspect."""
    from .opening import open_suspect

    suspect = open_suspect(
        folder / GRAPH,
        modality=modality,
        classes=classes,
        output=facts.get("output"),
        mean=facts["mean"],
        std=facts["std"],
        limits=limits,
    )
    if suspect.model is None:
        raise InputError(f"{folder / GRAPH} was not opened: {suspect.alerts[0].message if suspect.alerts else '?'}")
    return suspect.model


def _of_own_code(arch: str, weights: dict[str, Tensor], modality: Modality, classes: int, folder: Path) -> nn.Module:
    """What the user's own factory builds, behind the normalisation that the weights bring."""
    from .opening.architecture import network_of, untrained
    from .opening.location import Home
    from .same_network import behind_normalisation

    own = ":" in arch and not arch.lstrip().startswith("{")
    made = untrained(arch, modality, classes, Home.of(folder)) if own else network_of(arch).build(modality, classes)
    found = behind_normalisation(made, {name: tuple(t.shape) for name, t in weights.items()})
    if found is None:
        raise InputError(
            f"--arch {arch} builds another network than {folder} guards", hint="name the one it was fitted with"
        )
    return found.eval()


def _builds(network: Network, model: Model) -> bool:
    """Whether this architecture takes the model's weights."""
    try:
        made = network.build(model.modality, model.classes).state_dict()
    except (NotApplicable, ValueError, RuntimeError):
        return False
    held = model.module.state_dict() if "weights" in model.capabilities else {}
    return {k: t.shape for k, t in made.items()} == {k: t.shape for k, t in held.items()}
