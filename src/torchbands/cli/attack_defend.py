"""`bands attack` and `bands defend`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torchbands import bench, zoo
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.learners.round_state import forget
from torchbands.zoo.victims import kind_of

from . import console
from .flags import method_of, with_settings


def attack(given: argparse.Namespace) -> int:
    """Train a victim, keep it, and say what it does."""
    method = with_settings(given.start, given)
    task = method_of(given.task, "task")
    assert isinstance(method, Attack)
    if not isinstance(task, Task):
        raise InputError(f"{given.task!r} is a {task.role}, not a task", hint="see: bands list task")
    given_control = _given_control(given.control)
    out = given.out or Path("victims") / f"{task.name.replace('/', '-')}-{method.name}-{given.seed}"
    kind_of().check(out)
    rounds = out.with_name(f".{out.name}.rounds")  # of a training that is killed: the same command goes on from there
    with console.progress_bar() as bar:
        told = partial(_told, bar, method.name)
        victim = method.run(task, given.seed, progress=told, folder=rounds / "victim")
        zoo.save(victim, out)
        control = given_control or _train_control(given.control, victim, bar, rounds / "control")
        bar(1, 1, "measuring")
        found = bench.assess(victim, control)
    forget(rounds / "victim", rounds / "control", rounds)
    facts = {"victim": str(out), "attack": method.spec(), "task": task.spec(), "seed": given.seed, "info": victim.info}
    if given.json:
        console.print_json(facts | {k: found[k] for k in ("metrics", "stealth")})
        return 0
    _print_metrics(f"{method.label()} on {task.name}, seed {given.seed}", found["metrics"], _EFFECT)
    print(f"victim: {out}")
    return 0


def defend(given: argparse.Namespace) -> int:
    """Run a defense of any role on a victim."""
    method = with_settings(given.start, given)
    if not given.victim.is_dir():
        raise InputError(f"{given.victim} is not a victim directory", hint="make one: bands attack badnets -o DIR")
    if given.out is not None and method.role != "repair":
        raise InputError(f"{method.name} is a {method.role}: it makes no model to keep", hint="leave -o out")
    if given.out is not None:
        kind_of(repaired=True).check(given.out)
    made: list[Model] = []
    with console.progress_bar() as bar:
        bar(0, None, "loading the victim")
        victim = zoo.load(given.victim)
        bar(0, None, f"running {method.name}")
        found = bench.judge(victim, method, seed=given.seed, keep=made.append)
    if given.out is not None:
        zoo.save(replace(victim, model=made[0], info={**victim.info, "repaired_by": method.spec()}), given.out)
    if given.json:
        facts = {"victim": str(given.victim), "defense": method.spec(), "role": method.role, "seed": given.seed}
        console.print_json(facts | found)
        return 0
    title = f"{method.label()} ({method.role}) on {victim.attack.label()}, {victim.task.name}, seed {victim.seed}"
    _print_metrics(title, found["metrics"])
    cost = found["cost"]
    used = f"{cost['seconds']:.1f} s, {cost['forward_passes'] or 0:,.0f} forward passes"
    if found.get("target") is not None:
        print(f"suspected class: {found['target']} ({victim.task.class_names[found['target']]})")
    print(f"cost: {used}, {cost['clean_samples']} clean samples")
    if given.out is not None:
        print(f"repaired model: {given.out}")
    return 0


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


def _told(bar: console.Bar, name: str, done: int, total: int, what: str) -> None:
    bar(done, total, f"{name}: {what}")


def _train_control(text: str, victim: Victim, bar: console.Bar, folder: Path) -> Victim | None:
    if text != "train":
        return None
    if victim.attack.name == "clean":
        return victim
    clean = build("clean", "attack")
    assert isinstance(clean, Attack)
    return clean.run(victim.task, victim.seed, progress=partial(_told, bar, "control"), folder=folder)


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
