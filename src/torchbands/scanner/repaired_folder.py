"""A repaired model as a folder that opens like its suspect: weights, what they need to be opened, and repair.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from torchbands import __version__
from torchbands.core.errors import NotApplicable
from torchbands.core.words import command_line, quoted
from torchbands.networks.layers import Normalize
from torchbands.zoo.artifact import Kind, save_tensors, sums
from torchbands.zoo.files import write_json

from .opening import Suspect
from .opening.files import Folder
from .opening.limits import MAX_JSON, MAX_TOKENIZER
from .outcome import Outcome
from .repair_model import RepairResult

CARD, WEIGHTS, VICTIM = "repair.json", "model.safetensors", "card.json"
FORMAT = 1
#: What a Hugging Face folder needs besides its weights. Nothing else is taken over from a suspect's folder.
_BESIDE = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json")
KIND = Kind(
    name="a repaired model",
    card=CARD,
    files=frozenset({CARD, WEIGHTS, VICTIM, "tokenizer.json", *_BESIDE}),
    is_mine=lambda card: {"suspect", "scan_before", "files"} <= set(card),
    needs=frozenset({WEIGHTS}),
    format=FORMAT,
    unsummed=True,
    again="repair the suspect again: bands repair SUSPECT --data CLEAN -o FOLDER",
)


def check_folder(folder: str | Path) -> Path:
    """The folder, if a repaired model may be written there: it is new, empty, or holds an earlier one."""
    folder = Path(folder)
    KIND.check(folder)
    return folder


def write(
    folder: str | Path,
    mended: RepairResult,
    suspect: Suspect,
    before: Outcome,
    after: Outcome | None = None,
    *,
    arch: str | None = None,
    flags: str = "",
) -> dict[str, Any]:
    """Write the repaired model, whole or not at all, and return its card; an earlier repair there is replaced.

    Args:
        arch: what the suspect was opened with, where it does not say itself. flags: what else is typed to scan it.
    """
    folder = check_folder(folder)
    if mended.model is None:
        raise NotApplicable("no repair held, so there is no model to write")
    module, outside = _inner(mended.model.module)
    with KIND.new(folder) as at:
        save_tensors(module.state_dict(), at / WEIGHTS)
        if suspect.format == "torchbands":
            write_json(at / VICTIM, {"task": suspect.facts["task"], "files": sums(at), "repaired": True})
        if suspect.format == "huggingface":
            _take_over(Path(suspect.path), at)
        card = describe(mended, suspect, before, after) | {
            "open_with": _command(folder, suspect, arch, outside) + flags,
            "files": sums(at),
        }
        KIND.write_card(at, card)
    return card


def describe(mended: RepairResult, suspect: Suspect, before: Outcome, after: Outcome | None = None) -> dict[str, Any]:
    """What was tried and what came of it, JSON-ready."""
    subject = suspect.subject()
    return {
        "format": FORMAT,
        "torchbands": __version__,
        "suspect": {"path": subject.path, "sha256": subject.sha256, "format": subject.format},
        "scan_before": _summary(before),
        "scan_after": None if after is None else _summary(after),
        **mended.to_json(),
    }


def reported(
    mended: RepairResult,
    before: Outcome,
    after: Outcome | None,
    target: str,
    folder: str | Path | None,
    again: str = "",
) -> Outcome:
    """The repair as an outcome that every format of report can show.

    Args:
        again: the command that scans what was written.
    """
    last = mended.steps[-1] if mended.steps else None
    shown: dict[str, Any] = {"folder": None if mended.model is None else str(folder), "target": target}
    if mended.model is None or last is None:
        shown |= {"title": "No repair held", "sentence": f"No model was written: {mended.reason}."}
        shown |= {"verdict": "indicated"}  # the backdoor that was found is still there
    else:
        title = "Repaired" if last.calibrated else "Repaired, but unproven"
        shown |= {"title": title, "sentence": f"{title} by {last.repair}: {mended.reason}."}
        shown |= {"verdict": "none" if last.calibrated else "inconclusive"}
    shown["steps"] = [
        {
            "repair": step.repair,
            "verdict": step.verdict,
            "accuracy before": step.accuracy_before,
            "accuracy after": step.accuracy,
            "accuracy lost": None if step.lost is None else list(step.lost),
            "trigger before": step.trials[0].suspect if step.trials else None,
            "trigger after": step.trials[0].repaired if step.trials else None,
            "p before": None if before.trigger is None else before.trigger.p,
            "p after": step.p_trigger,
            "why": step.reason,
        }
        for step in mended.steps
    ]
    shown["rows"] = dict(mended.rows)
    steps = ("do not use the model: train it anew, on data that were looked at (bands scan data)",)
    if mended.model is not None:
        again = again or f"bands scan model {quoted(str(folder))}"
        steps = (f"scan what was written: {again}",)
    made = after if after is not None and mended.model is not None else before
    return replace(made, subject=before.subject, pictures=before.pictures, repair=shown, next_steps=steps)


def _summary(outcome: Outcome) -> dict[str, Any]:
    answers = {"trigger": outcome.trigger, "recipe": outcome.recipe}
    return {
        "verdict": outcome.verdict,
        "sentence": outcome.sentence(),
        "p": {name: None if answer is None else answer.p for name, answer in answers.items()},
        "alpha": outcome.alpha,
        "profile": outcome.profile,
        "methods": list(outcome.methods),
        "reasons": list(outcome.reasons),
        "target": outcome.target,
        "source": outcome.source,
    }


def _inner(module: nn.Module) -> tuple[nn.Module, dict[str, list[float]]]:
    """The network in the words of its own file, and the normalisation that was put around it by flags."""
    outside: dict[str, list[float]] = {}
    if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[0], Normalize):
        outside = {k: getattr(module[0], k).flatten().tolist() for k in ("mean", "std")}
        module = module[1]
    if type(module).__name__ == "Logits" and isinstance(getattr(module, "body", None), nn.Module):
        module = module.body  # type: ignore[assignment]
    return module, outside


def _take_over(suspect: Path, at: Path) -> None:
    """Settings and tokenizer, read with the limits that opening has."""
    folder = Folder(suspect)
    for name in (*_BESIDE, "tokenizer.json"):
        if name in folder.names:
            (at / name).write_bytes(bytes(folder.read(name, MAX_TOKENIZER if name == "tokenizer.json" else MAX_JSON)))


def _command(folder: Path, suspect: Suspect, arch: str | None, outside: Mapping[str, list[float]]) -> str:
    words = ["bands", "scan", "model", str(folder)]
    if arch and suspect.format not in ("torchbands", "huggingface"):
        words += ["--arch", arch]
    if suspect.format != "huggingface":
        for name, values in outside.items():
            words += [f"--{name}", ",".join(f"{v:g}" for v in values)]
    return command_line(words)
