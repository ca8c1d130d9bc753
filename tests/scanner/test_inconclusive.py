"""What was not asked is no pass: views that cannot be compared, references that are damaged or do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding
from torchbands.core.errors import BandsError, InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.models.pairwise_inversion import PairwiseInversion
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.scanner import pool, view_cache
from torchbands.scanner.comparable import lacks
from torchbands.scanner.next_steps import not_searched
from torchbands.scanner.pairs import NOTHING
from torchbands.scanner.reference_files import CARD, MODELS, WEIGHTS
from torchbands.scanner.reference_training import references_of
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan
from torchbands.scanner.view_cache import SEEN, How, Numbers, read, write
from torchbands.scanner.views import PROFILES, Seen, View, look
from torchbands.testing.toys import toy
from torchbands.zoo.artifact import SUM, digest
from torchbands.zoo.files import sha256

TASK = toy("image", rows=256)
TARGET, UNIVERSAL, GUARD = "target-inversion", "universal-perturbation", "clean-behaviour"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return references_of(TASK, tmp_path_factory.mktemp("one") / "refs", n=1, profile="fast").folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """Twenty references: one model, its weights moved by nothing that counts, with what views saw of it shaken."""
    shutil.copytree(trained, tmp_path / "refs")
    rng = torch.Generator().manual_seed(0)
    first = tmp_path / "refs" / MODELS / "0000"
    for i in range(1, 20):
        member = shutil.copytree(first, first.parent / f"{i:04d}")
        known = read(member, json.loads((member / CARD).read_text())["sha256"])
        weights = load_file(member / WEIGHTS)
        save_file({k: t * (1 + 1e-6 * i) if t.is_floating_point() else t for k, t in weights.items()}, member / WEIGHTS)
        card = {**json.loads((member / CARD).read_text()), "sha256": (own := sha256(member / WEIGHTS))}
        (member / CARD).write_text(json.dumps({**card, SUM: digest(card, SUM)}))
        shaken = {k: t + 0.1 * torch.randn(t.shape, generator=rng) for k, t in known.tensors.items()}
        write(member, Numbers(shaken, known.chunks), own)
    return tmp_path / "refs"


def _suspect(folder: Path) -> Model:
    made = ReferenceSet.load(folder)
    return made.model(made.members()[0], lambda: TASK.network.build(made.modality, TASK.classes))


def _seen(member: Path, change: Callable[[str, Tensor], Tensor]) -> None:
    """Write other numbers, as if views had seen them."""
    weights = json.loads((member / CARD).read_text())["sha256"]
    known = read(member, weights)
    write(member, Numbers({k: change(k, t) for k, t in known.tensors.items()}, known.chunks), weights)


def _rewrite(folder: Path, view: str, change: Callable[[Tensor], Tensor], members: int = 20) -> None:
    for member in ReferenceSet.load(folder).members()[-members:]:
        _seen(member, lambda k, t: change(t) if k.startswith(view) else t)


def test_the_population_of_these_tests_gives_a_p(folder: Path) -> None:
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.reasons == () and outcome.trigger.references == 20 and outcome.exit_code() == 0


def test_trigger_views_that_cannot_be_compared_are_no_pass(folder: Path) -> None:
    for view in (TARGET, UNIVERSAL):
        _rewrite(folder, view, lambda t: torch.full_like(t, torch.nan))
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.trigger.p is None and outcome.verdict == "inconclusive" and outcome.exit_code() == 3
    assert "no trigger view could be compared" in outcome.sentence()


def test_references_that_lack_a_view_are_not_counted(folder: Path) -> None:
    _rewrite(folder, TARGET, lambda t: torch.full_like(t, torch.nan), members=8)
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.trigger.references == 12 and outcome.exit_code() == 3
    assert "12 of 20 reference models" in outcome.sentence() and "at least 19" in outcome.sentence()


def test_without_its_guard_a_scan_is_inconclusive(folder: Path) -> None:
    _rewrite(folder, GUARD, lambda t: torch.full_like(t, torch.nan))
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.exit_code() == 3 and "on clean rows could not be told" in outcome.sentence()


class _NoSlope(torch.autograd.Function):
    """Changes nothing forward, and gives gradients that are not finite."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return slope * torch.nan


def test_a_suspect_whose_gradients_are_not_finite_is_inconclusive(folder: Path) -> None:
    suspect = _suspect(folder).module
    forward = suspect.forward
    suspect.forward = lambda x: forward(_NoSlope.apply(x))
    outcome = scan(suspect, refs=folder, profile="fast")
    assert outcome.exit_code() == 3 and outcome.reasons


def test_later_views_look_at_references_through_the_network_of_the_card(folder: Path) -> None:
    """Not through the suspect's module, which may do more than its weights say and would bring its plant with it."""
    suspect = _suspect(folder).module
    forward = suspect.forward
    suspect.forward = lambda x: forward(x) + 40 * x[:, 0, :2, :2].mean((1, 2))[:, None] * torch.eye(TASK.classes)[1]
    for member in ReferenceSet.load(folder).members():
        (member / SEEN).unlink()
    scan(suspect, refs=folder, profile="fast")
    known = load_file(folder / MODELS / "0000" / SEEN)
    made = ReferenceSet.load(folder)
    again = look(made.model(made.members()[0], made.fresh()), made.clean, [v for v in PROFILES["fast"] if v.guard])[0]
    assert torch.allclose(known[How.here().key(again.view)], again.numbers())


def test_altered_and_damaged_references_are_named(folder: Path) -> None:
    members = ReferenceSet.load(folder).members()
    weights = bytearray((members[0] / WEIGHTS).read_bytes())
    weights[-1] ^= 0xFF
    (members[0] / WEIGHTS).write_bytes(weights)
    with pytest.raises(BandsError, match="altered"):
        _suspect(folder)
    suspect = ReferenceSet.load(folder).model(members[1], lambda: TASK.network.build(TASK.modality, TASK.classes))
    (members[3] / SEEN).write_bytes(b"half")
    with pytest.raises(BandsError, match="0003 is damaged"):
        scan(suspect, refs=folder, profile="fast")
    shutil.copy(members[4] / SEEN, members[3] / SEEN)
    (members[5] / CARD).write_text("{}")
    with pytest.raises(BandsError, match="0005 is damaged"):
        scan(suspect, refs=folder, profile="fast")
    (members[5] / WEIGHTS).unlink()
    with pytest.raises(BandsError, match="0005 is damaged"):
        scan(suspect, refs=folder, profile="fast")


def test_views_of_references_that_were_altered_or_swapped_are_named(folder: Path) -> None:
    suspect, member = _suspect(folder), folder / MODELS / "0003"
    said, tensors = _metadata(member / SEEN), load_file(member / SEEN)
    save_file({k: t + 0.01 for k, t in tensors.items()}, member / SEEN, metadata=said)
    with pytest.raises(BandsError, match=r"0003 is damaged .*altered"):
        scan(suspect, refs=folder, profile="fast")
    write(member, Numbers(tensors, {}), "0" * 64)
    with pytest.raises(BandsError, match=r"0003 is damaged .*other weights"):
        scan(suspect, refs=folder, profile="fast")


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_numbers_of_another_precision_or_device_are_not_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The references are looked at again, as the suspect is; where they cannot be rebuilt, nothing is concluded."""
    monkeypatch.setattr(view_cache, "fast_dtype", lambda device: torch.float16)
    before = set(load_file(folder / MODELS / "0000" / SEEN))
    with monkeypatch.context() as patch:
        patch.setattr(pool, "rebuilt", lambda *_: None)
        outcome = scan(_suspect(folder), refs=folder, profile="fast")
        assert outcome.exit_code() == 3 and outcome.trigger.p is None
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    fresh = set(load_file(folder / MODELS / "0000" / SEEN)) - before
    assert {name.split("@")[1] for name in fresh} == {"cpu-float16"} and len(fresh) == 2
    assert outcome.trigger.p is not None and outcome.calibration["reference_chunks"] == [_suspect(folder).chunk]


def test_one_view_without_references_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for member in ReferenceSet.load(folder).members():
        weights = json.loads((member / CARD).read_text())["sha256"]
        known = read(member, weights)
        left = {k: t for k, t in known.tensors.items() if not k.startswith(TARGET)}
        write(member, Numbers(left, known.chunks), weights)
    monkeypatch.setattr(pool, "rebuilt", lambda *_: None)
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.exit_code() == 3 and outcome.trigger.p is not None
    assert f"{TARGET} could not be compared" in outcome.sentence()


def test_references_of_two_architectures_fit_no_suspect(folder: Path) -> None:
    suspect = _suspect(folder)
    save_file({"other": torch.zeros(2)}, folder / MODELS / "0007" / WEIGHTS)
    outcome = scan(suspect, refs=folder, profile="fast")
    assert outcome.exit_code() == 3 and "another architecture" in outcome.sentence()


def test_text_rows_are_checked_too(tmp_path: Path) -> None:
    references_of(toy("text", rows=128), tmp_path / "refs", n=1, profile="fast")
    path = tmp_path / "refs" / "rows.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps({"text": rows["text"][::-1]}))
    with pytest.raises(BandsError, match="altered"):
        ReferenceSet.load(tmp_path / "refs")


def test_a_card_whose_classes_do_not_fit_is_damaged(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    card |= {"classes": 2, "class_names": ["a", "b"]}
    (folder / CARD).write_text(json.dumps(card | {SUM: digest(card, SUM)}))
    with pytest.raises(BandsError, match="do not fit"):
        ReferenceSet.load(folder)


def test_a_module_with_other_classes_and_names_that_do_not_fit_are_refused(folder: Path) -> None:
    wide = nn.Sequential(nn.Flatten(), nn.LazyLinear(TASK.classes + 3))
    wide(TASK.load("clean")[:1].x)
    with pytest.raises(InputError, match="answers for each sample"):
        scan(wide, refs=folder, profile="fast")
    with pytest.raises(InputError, match="class names"):
        scan(_suspect(folder), refs=folder, profile="fast", class_names=("only",))


def test_a_pair_that_the_suspect_did_not_choose_is_no_lack_and_one_that_failed_is() -> None:
    own = torch.full((4, 4), torch.nan)
    own[0, 1] = -1.0
    theirs = own.clone()
    theirs[2, 3] = -2.0  # every reference chose this pair too
    finding = Finding(score=0.0, per_pair=own, evidence={"searched": 1})
    looked = Seen(View(PairwiseInversion(), "trigger", "pair by pair"), finding)
    pool, model = torch.stack([*[theirs] * 6, own]), TASK.fresh(0)
    assert not lacks(looked, pool, model)
    asked = torch.full((4, 4), torch.nan)
    asked[2, 3] = NOTHING
    assert lacks(replace(looked, asked=asked), pool, model)
    more = replace(finding, evidence={"searched": 2})
    assert lacks(replace(looked, finding=more), pool, model), "one of the two that it chose gave nothing"


def test_pairs_and_views_that_were_left_out_are_told() -> None:
    model = TASK.fresh(0)
    few = View(PairwiseInversion(pairs=5, steps=2), "trigger", "pair by pair")
    declined = Seen(View(UniversalPerturbation(), "trigger", "the smallest shift"), None, "there is no embedding")
    told = not_searched((*look(model, TASK.load("clean"), [few]), declined), model)
    assert told == (
        "7 of 12 pairs of classes, which pairwise-inversion did not compare",
        "the smallest shift (there is no embedding)",
    )


def _raising(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException, only: int | None = None) -> list[Model]:
    """Let a view raise: always, or on the n-th model that it looks at alone."""
    detector, asked = next(type(v.detector) for v in PROFILES["full"] if v.name == name), list[Model]()
    inspect = detector.inspect

    def raising(self: Any, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        asked.append(model)
        if only is None or len(asked) == only:
            raise error
        return inspect(self, model, clean, seed=seed)

    monkeypatch.setattr(detector, "inspect", raising)
    return asked


ERRORS = (
    RuntimeError("shape '[3]' is invalid"),
    torch.OutOfMemoryError("CUDA out of memory"),
    InputError("a matrix is singular"),
)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", [UNIVERSAL, GUARD, "batchnorm-mismatch"])
def test_a_view_that_raises_is_a_line_with_its_reason_and_the_scan_is_inconclusive(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    _raising(monkeypatch, name, error)
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    line = next(line for line in outcome.ledger if line.view == name)
    assert line.score is None and line.z is None and str(error) in line.reason
    assert ("memory ran out" in line.reason) == isinstance(error, torch.OutOfMemoryError)
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3
    assert sum(f"{name} failed on the suspect" in reason for reason in outcome.reasons) == 1
    others = [other for other in outcome.ledger if other.view != name]
    assert len(others) == 6 and all(other.score is not None for other in others), "the others went on"


def test_a_view_that_declines_concludes_what_the_others_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, "batchnorm-mismatch", NotApplicable("there is no BatchNorm"))
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.reasons == () and outcome.verdict == "none"
    assert next(x for x in outcome.ledger if x.view == "batchnorm-mismatch").reason == "there is no BatchNorm"


def test_evidence_that_fails_hides_no_trigger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _rewrite(folder, TARGET, lambda t: t - 20 * (torch.arange(len(t)) == 0))
    _raising(monkeypatch, "batchnorm-mismatch", ERRORS[0])
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1
    assert "batchnorm-mismatch failed" in outcome.reasons[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_only_who_ends_the_program_ends_a_scan(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    _raising(monkeypatch, UNIVERSAL, error)
    with pytest.raises(type(error)):
        scan(_suspect(folder), refs=folder, profile="fast")


@pytest.mark.parametrize("error", ERRORS[:2])
def test_a_view_that_raises_on_a_reference_is_told_not_kept_and_tried_again(folder: Path, error: Exception) -> None:
    member = ReferenceSet.load(folder).members()[0]  # this one was not looked at yet
    weights = json.loads((member / CARD).read_text())["sha256"]
    known = read(member, weights)
    write(
        member, Numbers({k: t for k, t in known.tensors.items() if not k.startswith(UNIVERSAL)}, known.chunks), weights
    )
    with pytest.MonkeyPatch.context() as patch:
        asked = _raising(patch, UNIVERSAL, error, only=2)
        outcome = scan(_suspect(folder), refs=folder, profile="fast")
        assert len(asked) == 2, "the suspect and one reference"
    assert outcome.verdict == "inconclusive"
    assert any(f"{UNIVERSAL} failed on 1 of the reference models" in r and str(error) in r for r in outcome.reasons)
    again = scan(_suspect(folder), refs=folder, profile="fast")
    assert again.reasons == () and again.trigger is not None and again.trigger.references == 20


def test_a_trigger_that_cannot_be_shown_is_a_finding_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewrite(folder, TARGET, lambda t: t - 20 * (torch.arange(len(t)) == 0))

    def show(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torchbands.scanner.scan_model.show", show)
    outcome = scan(_suspect(folder), refs=folder, profile="fast")
    assert outcome.verdict == "indicated" and not outcome.pictures
    assert any("the recovered trigger at work (memory ran out" in told for told in outcome.not_covered)
