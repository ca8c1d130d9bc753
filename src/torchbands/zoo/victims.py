"""Save and load a victim directory: card.json, model.safetensors, trigger.safetensors, poison.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from torchbands import __version__
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import BandsError, DamagedVictim, InputError
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger

from .files import Kind, digest, new_directory, read_text, sha256, write_json
from .poison import FILE as POISON
from .poison import load_poison, save_poison

CARD, WEIGHTS, TRIGGER = "card.json", "model.safetensors", "trigger.safetensors"
#: All that may lie in a victim directory; there is no poison where the attacker controls training.
HELD = frozenset({CARD, WEIGHTS, TRIGGER, POISON})
FORMAT = 1


def kind_of(victim: Victim | None = None, *, repaired: bool = False) -> Kind:
    """What `save` may replace with this victim, or with one that a repair or an attack will make."""
    mended = repaired if victim is None else "repaired_by" in victim.info

    def is_mine(card: Mapping[str, Any]) -> bool:
        info = card.get("info")
        known = {"attack", "trigger", "seed", "files"} <= set(card)
        return known and isinstance(info, Mapping) and ("repaired_by" in info) is mended

    return Kind("a repaired victim" if mended else "a victim", CARD, HELD, is_mine)


#: Of a store, whose folder is named after the victim: one that is damaged is made again in its place.
OF_STORE = Kind("a victim", CARD, HELD)


def save(victim: Victim, folder: str | Path, kind: Kind | None = None) -> Path:
    """Write a victim directory, whole or not at all.

    An existing victim of that name is replaced where it was made the same way (a repaired one does not replace one
    that was planted, nor the other way round), or is of a `kind` that is given. Raises InputError where the folder
    holds anything else.
    """
    folder = Path(folder)
    with new_directory(folder, kind or kind_of(victim)) as at:
        state = {k: v.detach().cpu().contiguous().clone() for k, v in victim.model.module.state_dict().items()}
        save_file(state, at / WEIGHTS)
        save_file({k: t.contiguous().clone() for k, t in victim.trigger.tensors().items()}, at / TRIGGER)
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
            "files": {name: sha256(at / name) for name in (WEIGHTS, TRIGGER, POISON) if (at / name).exists()},
        }
        write_json(at / CARD, {**card, "card_sha256": digest(card, "card_sha256")})
    return folder


def verify(folder: str | Path) -> dict[str, Any]:
    """The card of a victim directory, after every file has been checked against it.

    Raises DamagedVictim, naming the file, when one is missing, truncated or altered.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no directory", hint="make a victim with: bands attack badnets -o FOLDER")
    if not (folder / CARD).is_file():
        raise DamagedVictim(f"{folder} has no {CARD}", hint="it is no victim directory, or it is incomplete")
    try:
        card: dict[str, Any] = json.loads(read_text(folder / CARD))
        said = card.pop("card_sha256")
        files = card["files"]
        if set(files) - {POISON} != {WEIGHTS, TRIGGER}:
            raise ValueError("unexpected files")
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DamagedVictim(f"{folder / CARD} is damaged ({error})", hint="make the victim again") from None
    if digest(card, "card_sha256") != said:
        raise DamagedVictim(f"{folder / CARD} was altered: its checksum does not fit", hint="make the victim again")
    if card.get("format") != FORMAT:
        raise DamagedVictim(f"{folder} has format {card.get('format')!r}, this torchbands reads format {FORMAT}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedVictim(f"{path} is missing", hint="make the victim again")
        if sha256(path) != expected:
            raise DamagedVictim(f"{path} was truncated or altered: its checksum does not fit its card")
    return card


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
    try:
        weights, tensors = load_file(folder / WEIGHTS), load_file(folder / TRIGGER)
    except SafetensorError as error:
        raise DamagedVictim(f"{folder}: {error}") from None
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
