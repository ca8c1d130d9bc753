"""`bands attack` and `bands defend`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from torchbands import bench, zoo
from torchbands.core.attack import Attack, Victim
from torchbands.core.defense import DEFENSE_ROLES
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.core.registry import build, listing
from torchbands.core.spec_text import name_of
from torchbands.core.task import Task
from torchbands.zoo.victims import kind_of

from . import console
from .flags import method_of, parse


@dataclass(frozen=True, kw_only=True)
class AttackFlags:
    """What every attack may be told."""

    task: Annotated[str, tyro.conf.arg(help="A task: its name, name(setting=value), or a JSON object.")] = (
        "vision/fashion-mnist"
    )
    seed: Annotated[int, tyro.conf.arg(help="Tells this repetition from another.")] = 0
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            aliases=["-o"], metavar="DIR", help="Where the victim is kept; victims/TASK-ATTACK-SEED when not given."
        ),
    ] = None
    control: Annotated[
        str,
        tyro.conf.arg(
            metavar="train|none|DIR",
            help="The never-poisoned model that every triggered number is compared to: trained too, left out, or a "
            "victim directory of the clean attack.",
        ),
    ] = "train"
    json: Annotated[bool, tyro.conf.arg(help="Print JSON and nothing else on stdout.")] = False


@dataclass(frozen=True, kw_only=True)
class DefendFlags:
    """What every defense may be told."""

    victim: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VICTIM", help="Made by `bands attack`.")]
    seed: Annotated[int, tyro.conf.arg(help="Tells this repetition from another.")] = 0
    out: Annotated[
        Path | None,
        tyro.conf.arg(aliases=["-o"], metavar="DIR", help="Where a repair's model is kept, as a victim directory."),
    ] = None
    json: Annotated[bool, tyro.conf.arg(help="Print JSON and nothing else on stdout.")] = False


def attack(given: argparse.Namespace) -> int:
    """Train a victim, keep it, and say what it does."""
    method, flags = parse(build(given.name, "attack"), AttackFlags, given.rest, f"bands attack {given.name}")
    task = method_of(flags.task, "task")
    assert isinstance(method, Attack)
    if not isinstance(task, Task):
        raise InputError(f"{flags.task!r} is a {task.role}, not a task", hint="see: bands list task")
    given_control = _given_control(flags.control)
    out = flags.out or Path("victims") / f"{task.name.replace('/', '-')}-{method.name}-{flags.seed}"
    kind_of().check(out)
    with console.progress_bar() as bar:
        victim = method.run(task, flags.seed, progress=lambda a, b, w: bar(a, b, f"{method.name}: {w}"))
        zoo.save(victim, out)
        control = given_control or _train_control(flags.control, victim, bar)
        bar(1, 1, "measuring")
        found = bench.assess(victim, control)
    facts = {"victim": str(out), "attack": method.spec(), "task": task.spec(), "seed": flags.seed, "info": victim.info}
    if flags.json:
        console.print_json(facts | {k: found[k] for k in ("metrics", "stealth")})
        return 0
    _print_metrics(f"{method.label()} on {task.name}, seed {flags.seed}", found["metrics"], _EFFECT)
    print(f"victim: {out}")
    return 0


def defend(given: argparse.Namespace) -> int:
    """Run a defense of any role on a victim."""
    start = build(given.name, _defense(name_of(given.name)).role)
    method, flags = parse(start, DefendFlags, given.rest, f"bands defend {given.name}")
    if not flags.victim.is_dir():
        raise InputError(f"{flags.victim} is no victim directory", hint="make one: bands attack badnets -o DIR")
    if flags.out is not None and method.role != "repair":
        raise InputError(f"{method.name} is a {method.role}: it makes no model to keep", hint="leave -o out")
    if flags.out is not None:
        kind_of(repaired=True).check(flags.out)
    made: list[Model] = []
    with console.progress_bar() as bar:
        bar(0, None, "loading the victim")
        victim = zoo.load(flags.victim)
        bar(0, None, f"running {method.name}")
        found = bench.judge(victim, method, seed=flags.seed, keep=made.append)
    if flags.out is not None:
        zoo.save(replace(victim, model=made[0], info={**victim.info, "repaired_by": method.spec()}), flags.out)
    if flags.json:
        facts = {"victim": str(flags.victim), "defense": method.spec(), "role": method.role, "seed": flags.seed}
        console.print_json(facts | found)
        return 0
    title = f"{method.label()} ({method.role}) on {victim.attack.label()}, {victim.task.name}, seed {victim.seed}"
    _print_metrics(title, found["metrics"])
    cost = found["cost"]
    used = f"{cost['seconds']:.1f} s, {cost['forward_passes'] or 0:,.0f} forward passes"
    if found.get("target") is not None:
        print(f"suspected class: {found['target']} ({victim.task.class_names[found['target']]})")
    print(f"cost: {used}, {cost['clean_samples']} clean samples")
    if flags.out is not None:
        print(f"repaired model: {flags.out}")
    return 0


def _defense(name: str) -> type[Method]:
    defenses = [cls for cls in listing() if cls.role in DEFENSE_ROLES]
    found = [cls for cls in defenses if name in (cls.name, f"{cls.role}/{cls.name}")]
    if not found:
        raise UnknownName("defense", name, [cls.name for cls in defenses], hint="see them all with: bands list")
    if len(found) > 1:
        options = " or ".join(f"{cls.role}/{cls.name}" for cls in found)
        raise InputError(f"{name!r} names {len(found)} defenses", hint=f"say which: {options}")
    return found[0]


def _given_control(text: str) -> Victim | None:
    """Refused before any training, not after it."""
    if text in ("train", "none"):
        return None
    if not Path(text).is_dir():
        raise InputError(f"control is train, none or a victim directory, got {text!r}")
    control = zoo.load(text)
    if control.attack.name != "clean":
        raise InputError(f"{text} holds a {control.attack.name} victim; a control was never poisoned")
    return control


def _train_control(text: str, victim: Victim, bar: console.Bar) -> Victim | None:
    if text != "train":
        return None
    if victim.attack.name == "clean":
        return victim
    clean = build("clean", "attack")
    assert isinstance(clean, Attack)
    return clean.run(victim.task, victim.seed, progress=lambda a, b, w: bar(a, b, f"control: {w}"))


_ONE_MODEL = {
    "flagged": ("Flagged", "Whether the paper's own rule calls the model backdoored."),
    "target_hit": ("Right target", "Whether the suspected class is the attacker's."),
}
_EFFECT = ("ca", "clean_ca", "asr", "control_asr", "lift", "ra")


def _print_metrics(title: str, metrics: dict[str, Any], names: tuple[str, ...] = ()) -> None:
    from torchbands.report.glossary import number, term

    reasons = metrics.get("undefined", {})
    rows = []
    for name in names or [n for n in metrics if n != "undefined"]:
        value = metrics.get(name)
        word, about = _ONE_MODEL.get(name, (term(name).title, term(name).about))
        shown = "–" if value is None else number(name, float(value))
        if name in _ONE_MODEL and value is not None:
            shown = "yes" if value else "no"
        rows.append((word, shown, str(reasons.get(name, "")) or about))
    print(title)
    console.print_table(("", "", ""), rows, right=(1,))
