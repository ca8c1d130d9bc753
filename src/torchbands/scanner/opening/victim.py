"""A torchbands victim directory: its task, network and weights. Its card's word on a backdoor is not looked at."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from torchbands.core.errors import DataUnavailable, InputError, UnknownName, UnsafeFile
from torchbands.core.method import Method
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.registry import build
from torchbands.core.task import Task

from . import tensors
from .architecture import finished, fitted, standardised
from .files import Folder, parse_json
from .limits import MAX_CLASSES, MAX_JSON, Limits
from .private import Private
from .process import Child
from .refusal import Refusal, malformed, plain
from .weights import Numbers, State, Weights, misfit

CARD, WEIGHTS = "card.json", "model.safetensors"


def from_victim(
    folder: Folder, state: State, limits: Limits, classes: int | None, mean: Numbers | None, std: Numbers | None
) -> Model:
    """The model of a victim directory. A child process builds it first, so that the card cannot ask for the moon."""
    state.format = "torchbands"
    card = parse_json(folder.read(CARD, MAX_JSON), CARD)
    task, files = card.get("task"), card.get("files")
    if not isinstance(task, dict) or not isinstance(files, dict):
        raise malformed(f"{CARD} names no task and files: it is no victim's card", subject=CARD)
    try:
        made = build(task, "task", origin=folder.path / CARD)
        for part in ("attack", "trigger"):  # not needed to judge the model; what they name is a finding all the same
            with suppress(DataUnavailable, InputError, UnknownName):
                build(card[part], part, origin=folder.path / CARD) if part in card else None
    except UnsafeFile as error:
        if error.code:
            raise Refusal("BD-FILE-01", error.message, subject=CARD) from None
        raise InputError(error.message, hint=error.hint) from None
    data = folder.read(WEIGHTS, limits.bytes)
    if files.get(WEIGHTS) != hashlib.sha256(data).hexdigest():
        raise malformed(f"{WEIGHTS} is not the file that {CARD} was written for: its checksum differs", subject=WEIGHTS)
    weights = Weights(tensors.tensors(data, tensors.header(data)))
    state.facts |= weights.facts()
    weights.afford(limits.bytes)
    weights.check()
    with Private() as at, Child(f"network/{json.dumps(_own_modules(made))}", at, limits) as child:
        reply: dict[str, Any] = child.ask({"task": task})
    if "unavailable" in reply:
        raise InputError(
            f"the card's network {plain(reply['unavailable'])} needs an encoder that is not in the data cache, and "
            "nothing is fetched because a suspect says so",
            hint="train something of your own that begins from that encoder: this fetches it",
        )
    have = {k: tuple(t.shape) for k, t in weights.tensors.items()}
    want = {k: tuple(s) for k, s in reply["shapes"].items()}
    if have != want or not 2 <= reply["classes"] <= MAX_CLASSES:
        raise misfit(have, want, "the network that the card names")
    if classes is not None and classes != reply["classes"]:
        raise InputError(f"the victim has {reply['classes']} classes, given: {classes}")
    at_card = folder.path / CARD
    modality = build(reply["modality"], "modality", origin=at_card)
    network = build(reply["network"], "network", origin=at_card)
    assert isinstance(modality, Modality) and isinstance(network, Network)
    modality = network.reads(modality)  # a tokenizer of the network's own is no part of a spec
    state.facts |= {"task": task, "network": reply["network"], "class_names": reply["class_names"]}
    with torch.random.fork_rng(devices=[]):
        module = fitted(
            weights, lambda k: network.build(modality, k or 2), True, reply["classes"], network.label(), state
        )
    return finished(standardised(module, modality, mean, std, state), modality, reply["classes"], state)


def _own_modules(task: Method) -> dict[str, str]:
    """Modules outside of torchbands that define a task and its parts, by name, and the files of their packages. This
    process runs them already, since the user installed or loaded them; the child finds them nowhere else."""
    found: dict[str, str] = {}
    parts: list[object] = [task]
    while parts:
        part = parts.pop()
        if isinstance(part, (tuple, list)):
            parts += part
        if not isinstance(part, Method):
            continue
        parts += [getattr(part, f.name) for f in dataclasses.fields(part)]
        name = type(part).__module__
        top = name.partition(".")[0]
        if top in ("torchbands", "__main__") or (file := getattr(sys.modules.get(top), "__file__", None)) is None:
            continue
        found[name] = str(Path(file).resolve())
        if isinstance(part, Task):  # those of built-in tasks are built in, and some would have to read data to tell
            parts += [part.modality, part.network]
    return found
