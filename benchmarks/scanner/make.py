"""Train the models and let every view look at them; each model is one file, so the same command goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from torchbands import zoo
from torchbands.core.defense import ModelDetector
from torchbands.core.errors import BandsError, NotApplicable
from torchbands.core.metric import Undefined
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.scanner.pairs import ByPair, ask, forward_of, nothing_asked
from torchbands.scanner.reference_files import CARD, MODELS
from torchbands.scanner.reference_training import references_of, train_one
from torchbands.scanner.references import VIEW_SEED, ReferenceSet
from torchbands.scanner.view_cache import ASKED
from torchbands.scanner.views import PROFILES, View, look, white_box
from torchbands.zoo.files import write_json

from .plan import Job, Setting, jobs, settings
from .same_trigger import show


def views(task: Task) -> tuple[View, ...]:
    """The views of both profiles for a task's kind of sample, each once; black-box views are judged apart."""
    every = {v.key(): v for profile in PROFILES for v in white_box(profile, tokens=task.modality.discrete)}
    return tuple(every.values())


def references(store: Path, setting: Setting, part: int, parts: int) -> None:
    """The reference models, one population in `store`; parts share the work by turns."""
    folder = store / setting.name / "refs"
    if part == 0:
        references_of(setting.task, folder, n=1, profile="fast")
    while not (folder / "card.json").is_file():
        time.sleep(1)
    made, rows = ReferenceSet.load(folder), int(getattr(setting.task, "rows", 0))
    whole = setting.task.but(rows=0) if rows else setting.task
    data = whole.load("train")
    for i in range(part, setting.references, parts):
        member = folder / MODELS / f"{i:04d}"
        if not (member / CARD).is_file():
            train_one(member, [setting.task.recipe], data, made, "fast", 0, i, rows=rows)
            print(setting.name, "reference", i, flush=True)


def complete(store: Path, setting: Setting, part: int, parts: int) -> None:
    """Let the views that are missing look at the references."""
    made = ReferenceSet.load(store / setting.name / "refs")
    for member in made.members()[part::parts]:
        failed = made.complete_one(
            member, lambda: setting.task.network.build(setting.task.modality, setting.task.classes), views(setting.task)
        )
        print(setting.name, member.name, *failed.reasons.items(), flush=True)


def judge(store: Path, setting: Setting, part: int, parts: int, only: Sequence[str] = ()) -> None:
    """Train the models to judge, and let the views look at them."""
    clean = ReferenceSet.load(store / setting.name / "refs").clean
    every = [job for job in jobs(setting) if not only or job.group in only]
    for at, job in enumerate(every):
        if at % parts == part:
            try:
                _judge(store / setting.name, job, clean)
            except (BandsError, NotApplicable) as error:
                print(job.id, "failed:", error, flush=True)


def _victim(folder: Path, job: Job) -> dict[str, Any]:
    """What is known of a job's model, which is trained where it is not there."""
    facts, home = folder / "facts" / f"{job.id}.json", folder / "victims" / job.id
    told: dict[str, Any] = json.loads(facts.read_text()) if facts.is_file() else {}
    spec = [job.task.spec(), job.attack.spec(), job.seed]
    if told.get("spec") == json.loads(json.dumps(spec)):
        return told
    started = time.process_time()
    victim = job.attack.run(job.task, job.seed)
    found = job.task.effect(victim.model, victim)
    values = {"ca": found.ca, "asr": found.asr}
    told = {
        "spec": spec,
        "group": job.group,
        "target": job.attack.target,
        "seconds": round(time.process_time() - started, 2),
        "backdoored": job.attack.name != "clean",
        **{k: None if isinstance(v, Undefined) else round(float(v), 4) for k, v in values.items()},
        "views": {},
    }
    zoo.save(victim, home)
    (folder / "seen" / f"{job.id}.safetensors").unlink(missing_ok=True)
    write_json(facts, told)
    return told


def _judge(folder: Path, job: Job, clean: Any) -> None:
    facts, seen = folder / "facts" / f"{job.id}.json", folder / "seen" / f"{job.id}.safetensors"
    started = time.process_time()
    told = _victim(folder, job)
    numbers = load_file(seen) if seen.is_file() else {}
    missing = [v for v in views(job.task) if v.key() not in numbers]
    if missing:
        model = zoo.load(folder / "victims" / job.id).model
        for line in look(model, clean, missing, seed=VIEW_SEED):
            if line.failed:  # else it would be kept as declined, and never tried again
                raise BandsError(f"{line.view.name}: {line.reason}")
            got = line.numbers()
            numbers[line.view.key()] = torch.zeros(0) if got is None else got.contiguous()
            found_target = None if line.finding is None else line.finding.target
            told["views"][line.view.key()] = {"seconds": round(line.seconds, 3), "target": found_target}
        seen.parent.mkdir(parents=True, exist_ok=True)
        save_file(numbers, seen)
        write_json(facts, told)
    print(folder.name, job.id, told["ca"], told["asr"], f"{time.process_time() - started:.1f} s", flush=True)


def asked_key(view: View) -> str:
    """The name of a suspect's answers about pairs of classes that others put forward."""
    return f"{view.key()}/{ASKED}"


def pairs(store: Path, setting: Setting, part: int, parts: int) -> None:
    """Ask every model about the pairs of classes that others put forward, once all have been looked at."""
    made, task = ReferenceSet.load(store / setting.name / "refs"), setting.task
    known = {
        path: load_file(path) for path in sorted((store / setting.name / "seen").glob("*.safetensors"))
    }  # suspects; each is judged in a pool of its own, with the references
    for view in views(task):
        theirs = made.pairs(view)
        if theirs is None:
            continue
        mine = {path: seen[view.key()] for path, seen in known.items() if seen.get(view.key(), torch.zeros(0)).numel()}
        wanted = forward_of(torch.cat([theirs[0], *(own[None] for own in mine.values())]))
        made.ask(
            lambda: task.network.build(task.modality, task.classes), view, wanted, only=made.members()[part::parts]
        )
        assert isinstance(view.detector, ByPair)
        for path, own in list(mine.items())[part::parts]:
            model = zoo.load(store / setting.name / "victims" / path.stem).model
            wanted = forward_of(torch.cat([theirs[0], own[None]]))
            asked = known[path].get(asked_key(view), nothing_asked(own))
            rows = view.rows(made.clean, VIEW_SEED)
            known[path][asked_key(view)] = ask(view.detector, model, rows, own, asked, wanted, seed=VIEW_SEED)
            save_file(known[path], path)
            print(setting.name, path.stem, "asked about pairs", flush=True)


#: Published detectors, with their own settings and rules.
BASELINES = ("neural-cleanse", "dbs", "mm-bd", "channel-lipschitz", "free-eagle", "ban")


def chosen(setting: Setting, each: int) -> list[Job]:
    """`each` models of every family and ten times as many fresh ones, in turn, so that a part of them is a fair one."""
    groups: dict[str, list[Job]] = {}
    for job in jobs(setting):
        if not job.group.startswith("foreign"):
            groups.setdefault(job.group, []).append(job)
    fresh = groups.pop("fresh")[: 10 * each]
    bad = [job for i in range(each) for mine in groups.values() for job in mine[i : i + 1]]
    turns = [job for pair in zip(bad, fresh) for job in pair]
    return [*turns, *bad[len(fresh) :], *fresh[len(bad) :]]


def baselines(store: Path, setting: Setting, part: int, parts: int, each: int = 1) -> None:
    """Run the published detectors on some models of every family and some fresh ones, trained where missing."""
    clean, folder = setting.task.load("clean"), store / setting.name
    for job in chosen(setting, each)[part::parts]:
        path = folder / "baselines" / f"{job.id}.json"
        specs = {name: build(name, "model-detector").spec() for name in BASELINES}
        seen = json.loads(path.read_text()) if path.is_file() else {}
        if {name: t.get("spec") for name, t in seen.items()} == json.loads(json.dumps(specs)):
            continue
        try:
            _victim(folder, job)
        except (BandsError, NotApplicable) as error:
            print(job.id, "failed:", error, flush=True)
            continue
        told: dict[str, dict[str, Any]] = {}
        model = zoo.load(folder / "victims" / job.id).model
        for name in BASELINES:
            detector = build(name, "model-detector")
            assert isinstance(detector, ModelDetector)
            started = time.process_time()
            try:
                rows = clean.sample(detector.clean_needed(), "baseline", balanced=True)
                finding = detector.inspect(model, rows, seed=0)
                told[name] = {"score": float(finding.score), "flagged": finding.flagged}
            except NotApplicable as declined:
                told[name] = {"score": None, "flagged": None, "reason": declined.reason}
            told[name]["spec"] = specs[name]
            told[name]["seconds"] = round(time.process_time() - started, 2)
        write_json(path, told)
        print(setting.name, "baselines", job.id, {n: t["seconds"] for n, t in told.items()}, flush=True)


def controls(store: Path, setting: Setting) -> None:
    """What a never-poisoned model makes of every victim's trigger: without it, attack success says nothing."""
    folder = store / setting.name
    control = zoo.load(folder / "victims" / "fresh-00").model
    for job in jobs(setting):
        path = folder / "facts" / f"{job.id}.json"
        if not path.is_file():
            continue
        told = json.loads(path.read_text())
        if told["backdoored"] and "control_asr" not in told:
            victim = zoo.load(folder / "victims" / job.id)
            triggered = victim.stamped(job.task.load("test", job.seed).sample(1000, "control"))
            told["control_asr"] = round(float(victim.goal.outcomes(control, triggered)[0].float().mean()), 4)
            write_json(path, told)


def run(
    store: Path,
    names: Sequence[str],
    stages: Sequence[str],
    part: int,
    parts: int,
    only: Sequence[str] = (),
    each: int = 1,
    same: Path | None = None,
) -> None:
    """Carry out some stages of some settings; `only` names groups of models to judge."""
    torch.set_num_threads(1)
    known = settings()
    for name in names:
        if "references" in stages:
            references(store, known[name], part, parts)
        if "complete" in stages:
            complete(store, known[name], part, parts)
        if "judge" in stages:
            judge(store, known[name], part, parts, only)
        if "pairs" in stages:
            pairs(store, known[name], part, parts)
        if "same-trigger" in stages:
            show(store, known[name], same or store / "same-trigger", part, parts)
        if "baselines" in stages:
            baselines(store, known[name], part, parts, each)
        if "controls" in stages and part == 0:
            controls(store, known[name])
