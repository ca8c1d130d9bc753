"""`bands repair`."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import InputError, NotApplicable

from . import console
from .output import Reports, write_whole
from .printed_command import concrete, opening, rows
from .suspect_flags import Opened, open_with

if TYPE_CHECKING:
    from torchbands.core.data import Data
    from torchbands.core.model import Model
    from torchbands.scanner.outcome import Outcome
    from torchbands.scanner.repair_model import RepairResult, Step

REPAIRED, NONE_HELD, NOTHING_TO_REPAIR = 0, 1, 3
#: A repaired model was written, but no calibrated scan judged it.
UNPROVEN = 5
_UNCALIBRATED = "there are no reference models, so nothing is calibrated"


def repair(given: argparse.Namespace) -> int:
    """Scan, repair, judge, keep. 0 repaired, 1 no repair held, 3 nothing to repair against, 5 repaired but unproven."""
    from torchbands.scanner.repair_model import repair_model
    from torchbands.scanner.repaired_folder import check_folder, describe, reported, write

    reports = Reports.of(given)
    check_folder(given.out)
    with console.progress_bar() as bar:
        bar(0, None, "opening the suspect")
        opened = open_with(given, given.suspect, given.data, given.refs)
        model, clean = opened.suspect.model, _rows(opened)
        if model is None:
            return _nothing("the model was not opened: " + _why(opened))
        look = _scanner(given, opened, clean)
        before = look(model)
        if (reason := _no_aim(opened, before)) is not None:
            _write(reports, before, given)
            return _nothing(concrete(reason, given))
        seen: list[Outcome] = []

        def judge(repaired: Model) -> Outcome:
            seen.append(look(repaired) if opened.refs is not None else _unasked(before))
            return seen[-1]

        try:
            mended = repair_model(
                model,
                clean,
                judge,
                trigger=before.found.trigger,
                target=before.found.target,
                source=before.found.source,
                references=_references(opened, model),
                max_drop=given.max_drop,
                seed=given.seed,
                progress=lambda done, total, what: bar(done, total, what),
            )
        except NotApplicable as declined:
            return _nothing(declined.reason)
    after = seen[-1] if seen and opened.refs is not None else None
    if mended.model is not None:
        flags = opening(given, leave=("arch", "mean", "std", "settings")) + rows(given)
        card = write(given.out, mended, opened.suspect, before, after, arch=given.arch, flags=flags)
    else:
        card = describe(mended, opened.suspect, before, after)
    target = opened.class_names[mended.target] if opened.class_names else str(mended.target)
    _write(reports, reported(mended, before, after, target, given.out, card.get("open_with", "")), given)
    if reports.screen == "json":
        console.print_json(card)
    else:
        _print(mended, card, opened)
    if mended.model is None:
        return NONE_HELD
    return REPAIRED if mended.steps[-1].calibrated else UNPROVEN


def _rows(opened: Opened) -> Data:
    if opened.rows is not None:
        return opened.rows.data
    if opened.refs is not None:
        console.note(
            f"note: repairing with the {len(opened.refs.clean)} clean rows of the references; more data would help"
        )
        return opened.refs.clean
    raise InputError("a repair needs clean labelled data", hint="name them: --data SOURCE")


def _scanner(given: argparse.Namespace, opened: Opened, clean: Data) -> Callable[[Model], Outcome]:
    from torchbands.scanner.scan_model import scan

    return lambda model: scan(
        model,
        clean,
        opened.refs,
        profile=given.profile,
        alpha=given.alpha,
        seed=given.seed,
        class_names=opened.class_names,
        subject=opened.suspect.subject(),
    )


def _no_aim(opened: Opened, before: Outcome) -> str | None:
    """Why there is nothing to repair against. Without references, what was recovered is tried, uncalibrated."""
    if opened.refs is not None and not any(a.rule == "BD-TRG-01" for a in before.alerts):
        return f"the scan indicates no trigger: {before.sentence()}"
    if before.found is None and before.reasons:
        return "; ".join((*before.reasons, *before.next_steps))
    if before.found is None or before.found.target is None:
        return "no trigger view applies to this model, so there is no trigger to repair against"
    if opened.refs is None:
        console.note(f"note: {_UNCALIBRATED}; what is repaired may not be a backdoor")
    return None


def _unasked(before: Outcome) -> Outcome:
    from torchbands.scanner.outcome import Answer, Outcome

    return Outcome(before.subject, trigger=Answer(None, reason=_UNCALIBRATED), reasons=(_UNCALIBRATED,))


def _references(opened: Opened, suspect: Model) -> list[Model]:
    """A few references of the suspect's architecture, as controls."""
    from torchbands.scanner.reactivation import CONTROLS

    if opened.refs is None or "weights" not in suspect.capabilities:
        return []
    try:
        return [
            opened.refs.model(member, lambda: copy.deepcopy(suspect.module))
            for member in opened.refs.members()[:CONTROLS]
        ]
    except RuntimeError:
        console.note("note: the references have another architecture; other classes are the control of re-activation")
        return []


def _why(opened: Opened) -> str:
    return opened.suspect.alerts[0].message if opened.suspect.alerts else "it holds no model that is known here"


def _nothing(reason: str) -> int:
    console.note(f"nothing to repair against: {reason}")
    return NOTHING_TO_REPAIR


def _write(reports: Reports, outcome: Outcome, given: argparse.Namespace) -> None:
    """The report of the repair (or of the scan, where nothing was tried), in the files that were asked for."""
    from torchbands.report.scan import render

    for kind, path in reports.files:
        write_whole(path, render(outcome, kind, fail_on=given.fail_on))


def _print(mended: RepairResult, card: dict[str, Any], opened: Opened) -> None:
    names = opened.class_names
    target = names[mended.target] if names else str(mended.target)
    print(f"repairs tried against the trigger that leads to class {target}")
    columns = ("repair", "verdict", "accuracy", "trigger", "after retuning", "p", "why")
    console.print_table(columns, [_row(step) for step in mended.steps], right=(2, 3, 4, 5))
    if mended.model is None:
        print(f"no model was written: {mended.reason}")
        return
    print(f"accepted: {mended.steps[-1].repair}: {mended.reason}")
    if not mended.steps[-1].calibrated:
        print(f"no calibrated scan judged it: this repair is unproven, and the exit code is {UNPROVEN}")
    print("the attacker's own trigger is not known: what was tried in its place no longer works")
    print(f"scan it again: {card['open_with']}")


def _accuracy(step: Step) -> str:
    if step.accuracy is None or step.lost is None:
        return ""
    _, low, high = step.lost
    return f"{step.accuracy_before:.1%} → {step.accuracy:.1%} (lost {low:+.1%} to {high:+.1%})"


def _row(step: Step) -> tuple[str, ...]:
    first = step.trials[0] if step.trials else None
    back = [t.retuned for t in step.trials if t.retuned is not None]
    return (
        step.repair if len(step.repair) <= 40 else step.spec["name"] + " (thorough)",
        step.verdict,
        _accuracy(step),
        "" if first is None else f"{first.suspect:.0%} → {first.repaired:.0%}",
        f"{max(back):.0%}" if back else "",
        "" if step.p_trigger is None else f"{step.p_trigger:.3g}",
        step.reason,
    )
