"""Save and load a victim directory: card.json, model.safetensors, trigger.safetensors, poison.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchbands import __version__
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import BandsError, DamagedVictim, InputError
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger

from .artifact import Kind, save_tensors, sums
from .poison import FILE as POISON
from .poison import load_poison, save_poison

CARD, WEIGHTS, TRIGGER = "card.json", "model.safetensors", "trigger.safetensors"
FORMAT = 1
#: Of a store, whose folder is named after the victim: one that is damaged is made again in its place. There is no
#: poison where the attacker controls training.
OF_STORE = Kind(
    name="a victim",
    card=CARD,
    files=frozenset({CARD, WEIGHTS, TRIGGER, POISON}),
    entries=frozenset({"task", "attack", "trigger", "seed", "info"}),
    needs=frozenset({WEIGHTS, TRIGGER}),
    format=FORMAT,
    error=DamagedVictim,
    again="make the victim again",
)


def kind_of(victim: Victim | None = None, *, repaired: bool = False) -> Kind:
    """What `save` may replace with this victim, or with one that a repair or an attack will make."""
    mended = repaired if victim is None else "repaired_by" in victim.info

    def is_mine(card: Mapping[str, Any]) -> bool:
        info = card.get("info")
        known = {"attack", "trigger", "seed", "files"} <= set(card)
        return known and isinstance(info, Mapping) and ("repaired_by" in info) is mended

    return replace(OF_STORE, name="a repaired victim" if mended else "a victim", is_mine=is_mine)


def save(victim: Victim, folder: str | Path, kind: Kind | None = None) -> Path:
    """Write a victim directory, whole or not at all.

    An existing victim of that name is replaced where it was made the same way (a repaired one does not replace one
    that was planted, nor the other way round), or is of a `kind` that is given. Raises InputError where the folder
    holds anything else.
    """
    folder = Path(folder)
    kind = kind or kind_of(victim)
    with kind.new(folder) as at:
        save_tensors(victim.model.module.state_dict(), at / WEIGHTS)
        save_tensors(victim.trigger.tensors(), at / TRIGGER)
        if victim.poison is not None:
            save_poison(victim.poison, at)
        card = {
            "format": FORMAT,
            "torchbands": __version__,
            "backdoored": victim.attack.backdoor,
            "task": victim.task.spec(),
            "attack": victim.attack.spec(),
            "seed": victim.seed,
            "trigger": victim.trigger.spec(),
            "info": victim.info,
            "files": sums(at),
        }
        kind.write_card(at, card)
    return folder


def verify(folder: str | Path) -> dict[str, Any]:
    """The card of a victim directory, after every file has been checked against it.

    Raises DamagedVictim, naming the file, when one is missing, truncated or altered.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory", hint="make a victim with: bands attack badnets -o FOLDER")
    return OF_STORE.verified(folder)


def load(folder: str | Path) -> Victim:
    """A victim from its directory. Nothing in the directory is executed; every file is checked first.

    Raises UnsafeFile where its card names a function, files of another folder or what would have to be fetched. Those
    of a victim of your own are named by you: `with torchbands.allowing("my_module:rewrite", "my-images/"): load(...)`.
    """
    folder = Path(folder)
    card, at = verify(folder), folder / CARD
    task, attack = build(card["task"], "task", origin=at), build(card["attack"], "attack", origin=at)
    trigger = build(card["trigger"], "trigger", origin=at)
    if not isinstance(task, Task) or not isinstance(attack, Attack) or not isinstance(trigger, Trigger):
        raise DamagedVictim(f"{folder / CARD} names methods of the wrong role")
    weights, tensors = OF_STORE.tensors(folder, WEIGHTS), OF_STORE.tensors(folder, TRIGGER)
    model = task.fresh(int(card["seed"]))
    try:
        model.module.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise BandsError(f"{folder / WEIGHTS} does not fit the network {task.network.label()}: {first}") from None
    for parameter in model.module.parameters():
        if not torch.isfinite(parameter).all():
            raise DamagedVictim(f"{folder / WEIGHTS} holds values that are not finite")
    poison = load_poison(folder) if POISON in card["files"] else None
    return Victim(task, attack, int(card["seed"]), model, trigger.with_tensors(tensors), dict(card["info"]), poison)
