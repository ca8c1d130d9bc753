"""A guard's p-values are calibrated, triggered inputs are flagged, and what is saved is what was fitted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchbands.cli.parser import run
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.registry import build
from torchbands.scanner.batch_test import fewest
from torchbands.scanner.guard import Guard, discoveries
from torchbands.scanner.inputs import judge_inputs, table
from torchbands.scanner.rows import Rows
from torchbands.testing import toy
from torchbands.zoo import victims


@pytest.fixture(scope="module")
def planted() -> Victim:
    """BadNets on digits with 575 clean rows: some fit the guard, the others are fresh."""
    task = build("vision/digits", "task").but(held_out=0.4)
    attack = build("badnets", "attack")
    assert isinstance(attack, Attack)
    return attack.run(task, 0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def halves(planted: Victim) -> tuple[Data, Data]:
    """Clean rows to fit on, and fresh ones of the same distribution."""
    clean = planted.task.load("clean")
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(0))
    return clean[order[:375]], clean[order[375:]]


@pytest.fixture(scope="module", params=["badexpert", "strip", "scale-up"])
def guard(request: pytest.FixtureRequest, planted: Victim, halves: tuple[Data, Data]) -> Guard:
    return Guard(planted.model, detector=request.param, alpha=0.1).fit(halves[0])


def same(a: Guard, b: Guard, x: Tensor) -> bool:
    one, two = a(x), b(x)
    return all(torch.equal(getattr(one, k), getattr(two, k)) for k in ("prediction", "p", "flagged", "score"))


def test_fresh_clean_inputs_are_flagged_no_more_than_alpha_allows(guard: Guard, halves: tuple[Data, Data]) -> None:
    fresh = halves[1]
    judged = guard(fresh.x)
    n, calibrated = len(fresh), len(guard.calibration)
    for level in (0.1, 0.3, 0.5):
        spread = (level * (1 - level) * (1 / n + 1 / calibrated)) ** 0.5  # of fresh rows and of the calibration itself
        assert float((judged.p <= level).double().mean()) <= level + 3 * spread
    assert float(judged.p.min()) >= 1 / (calibrated + 1)
    if guard.detector.name == "strip":  # scores without ties: p is uniform on both sides
        gap = (judged.p.sort().values - torch.arange(1, n + 1) / n).abs().max()
        assert float(gap) < 1.63 * (1 / n + 1 / calibrated) ** 0.5


def test_triggered_inputs_are_flagged_and_not_predicted(planted: Victim, halves: tuple[Data, Data]) -> None:
    guard = Guard(planted.model, alpha=0.1).fit(halves[0])
    assert guard.detector.name == "badexpert" and guard.overhead == 3
    triggered, _ = planted.triggered(halves[1])
    judged = guard(triggered.x)
    assert float(judged.flagged.float().mean()) > 0.9
    assert bool((judged.prediction[judged.flagged] == -1).all())
    clean = guard(halves[1].x)
    kept = ~clean.flagged
    assert torch.equal(clean.prediction[kept], planted.model.logits(halves[1].x).argmax(1)[kept])


def test_a_row_is_judged_the_same_alone_in_a_batch_and_in_a_stream(guard: Guard, halves: tuple[Data, Data]) -> None:
    x = halves[1].x[:20]
    whole = guard(x)
    parts = list(guard.stream(x.split(7)))
    assert [len(part) for part in parts] == [7, 7, 6]
    assert torch.allclose(torch.cat([part.score for part in parts]), whole.score, atol=1e-4)
    assert torch.equal(guard.score_samples(x), whole.score)
    assert len(guard(x[:0])) == 0


def test_a_saved_guard_judges_bit_for_bit_alike(
    guard: Guard, planted: Victim, halves: tuple[Data, Data], tmp_path: Path
) -> None:
    folder = guard.save(tmp_path / "g", network=planted.task.network)
    x = halves[1].x
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "detector.safetensors", "model.safetensors"]
    loaded = Guard.load(folder)
    assert same(guard, loaded, x) and loaded.overhead == guard.overhead and loaded.alpha == guard.alpha
    assert same(guard, Guard.load(folder, model=planted.model), x)
    assert same(guard, Guard.load(folder, model=planted.model.module), x)
    loaded.save(folder, network=planted.task.network)
    with pytest.raises(InputError, match="another model"):
        other = build("clean", "attack").run(planted.task, 1)  # type: ignore[attr-defined]
        Guard.load(folder, model=other.model)


def test_without_a_known_network_the_model_must_be_given(
    planted: Victim, halves: tuple[Data, Data], tmp_path: Path
) -> None:
    guard = Guard(planted.model, detector="strip").fit(halves[0])
    other = build("mlp", "network")
    folder = guard.save(tmp_path / "g", network=other)  # type: ignore[arg-type]  # does not take these weights
    with pytest.raises(InputError, match="does not say how its network is built"):
        Guard.load(folder)
    assert same(guard, Guard.load(folder, model=planted.model.module), halves[1].x)


def test_tampered_directories_are_refused(planted: Victim, halves: tuple[Data, Data], tmp_path: Path) -> None:
    guard = Guard(planted.model, detector="strip").fit(halves[0])
    folder = guard.save(tmp_path / "g", network=planted.task.network)
    for name in ("model.safetensors", "detector.safetensors"):
        held = (folder / name).read_bytes()
        (folder / name).write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{name} was truncated or altered"):
            Guard.load(folder)
        (folder / name).unlink()
        with pytest.raises(InputError, match=f"{name} is missing"):
            Guard.load(folder)
        (folder / name).write_bytes(held)
    card = (folder / "card.json").read_text()
    for text, said in (
        (card.replace('"alpha": 0.05', '"alpha": 0.5'), "was altered"),
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps({"card_sha256": "", "files": {}}), "damaged"),
    ):
        (folder / "card.json").write_text(text)
        with pytest.raises(InputError, match=said):
            Guard.load(folder)
    (folder / "card.json").unlink()
    with pytest.raises(InputError, match="not a guard directory"):
        Guard.load(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds mine\.txt"):
        guard.save(tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_any_predictor_is_wrapped(planted: Victim, halves: tuple[Data, Data]) -> None:
    fit, fresh = halves
    model = planted.model
    expected = Guard(model, detector="strip", alpha=0.1).fit(fit)(fresh.x)

    class Fitted:
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return model.probabilities(torch.from_numpy(x)).double().numpy()

    for box in (Fitted(), model.probabilities):
        guard = Guard(box, alpha=0.1).fit((fit.x, fit.y))
        assert guard.detector.name == "strip" and guard.model.classes == 10
        assert guard.overhead == 64
        assert torch.allclose(guard(fresh.x).score, expected.score, atol=1e-3)
    module = Guard(model.module, detector="strip", alpha=0.1).fit(fit)
    assert torch.allclose(module(fresh.x).score, expected.score, atol=1e-3)
    with pytest.raises(NotApplicable, match="gradients"):
        Guard(model.probabilities, detector="badexpert").fit(fit)


def test_wrong_use_is_told(planted: Victim, halves: tuple[Data, Data]) -> None:
    with pytest.raises(InputError, match=r"alpha 0\.01 needs at least 248 clean rows, got 100"):
        Guard(planted.model, alpha=0.01).fit(halves[0][:100])
    with pytest.raises(InputError, match="not fitted"):
        Guard(planted.model)(halves[0].x)
    with pytest.raises(InputError, match="alpha"):
        Guard(planted.model, alpha=0.0)
    with pytest.raises(InputError, match="nn.Module"):
        Guard(3).fit(halves[0])
    with pytest.raises(InputError, match="add up to 1"):
        Guard(planted.model.logits).fit(halves[0])
    with pytest.raises(InputError, match="images are squares"):
        Guard(nn.Linear(3, 2)).fit((torch.zeros(60, 3, 4, 5), torch.zeros(60)))


@pytest.mark.parametrize(("name", "detector"), [("text", "strip"), ("tabular", "strip"), ("code", "badexpert")])
def test_text_tables_and_code_are_guarded_and_saved(name: str, detector: str, tmp_path: Path) -> None:
    task = toy(name)
    model, clean = task.train(task.load("train"), seed=0), task.load("clean")
    guard = Guard(model, detector=detector, alpha=0.1).fit(clean)
    folder = guard.save(tmp_path / "g", network=task.network)
    x = task.load("test")[:40].x
    assert same(guard, Guard.load(folder), x)


def test_two_classes(tmp_path: Path) -> None:
    task = toy("image", classes=2)
    guard = Guard(task.train(task.load("train"), seed=0), alpha=0.1).fit(task.load("clean"))
    assert same(guard, Guard.load(guard.save(tmp_path / "g", network=task.network)), task.load("test")[:40].x)


def test_conformal_p_by_hand(planted: Victim) -> None:
    guard = Guard(planted.model)
    guard.calibration = torch.tensor([0.1, 0.2, 0.2, 0.4])
    p = guard.p_values(torch.tensor([0.5, 0.4, 0.2, 0.0]))
    assert p.tolist() == pytest.approx([1 / 5, 2 / 5, 4 / 5, 5 / 5])


def test_false_discovery_control_by_hand() -> None:
    p = torch.tensor([0.9, 0.01, 0.02, 0.5, 0.04], dtype=torch.float64)
    assert discoveries(p, 0.05).tolist() == [False, True, True, False, False]
    assert discoveries(p, 0.1).tolist() == [False, True, True, False, True]
    assert not bool(discoveries(p[:0], 0.05).any())


def test_an_outcome_of_inputs(planted: Victim, halves: tuple[Data, Data]) -> None:
    guard = Guard(planted.model, alpha=0.1).fit(halves[0])
    names = tuple(map(str, range(10)))

    def rows(data: Data) -> Rows:
        return Rows(Data(data.x, data.y), planted.task.modality, names, "inputs")

    triggered, _ = planted.triggered(halves[1])
    outcome, judged = judge_inputs(guard, rows(triggered))
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1
    assert outcome.alerts[0].rule == "BD-INP-01" and "look triggered" in outcome.sentence()
    lines = table(rows(triggered), judged).splitlines()
    assert lines[0] == "id,prediction,p,flagged,score" and len(lines) == len(triggered) + 1
    assert lines[1].split(",")[1] == str(int(judged.prediction[0]))
    quiet, _ = judge_inputs(guard, rows(halves[1]))
    assert quiet.verdict == "none" and quiet.exit_code() == 0
    assert "<img" in quiet.pictures[0].html and json.dumps(quiet.to_json())


@pytest.mark.parametrize("error", [RuntimeError("it broke"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_detector_that_raises_is_a_line_and_the_check_is_inconclusive(
    planted: Victim, halves: tuple[Data, Data], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    guard = Guard(planted.model, alpha=0.1).fit(halves[0])
    names = tuple(map(str, range(10)))

    def score(x: object) -> None:
        raise error

    monkeypatch.setattr(guard.fitted, "score", score)
    outcome, judged = judge_inputs(guard, Rows(halves[1], planted.task.modality, names, "inputs"))
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3 and len(judged) == 0
    assert str(error) in outcome.ledger[0].reason and str(error) in outcome.reasons[0]


def test_the_command_line_fits_checks_and_ends_with_a_code(
    planted: Victim, halves: tuple[Data, Data], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victims.save(planted, tmp_path / "v")
    out = str(tmp_path / "g")
    spec = json.dumps(planted.task.spec())
    assert run(["guard", "fit", str(tmp_path / "v"), "--data", spec, "-o", out, "--alpha", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["detector"] == "badexpert" and told["calibrated_on"] == 230
    assert told["batch"] == 100 and told["fewest_triggered"] == fewest(230, 100, 0.1)
    assert told["clean_rows_to_name_one"] == 2498  # 999 calibrate: 1/(999 + 1) is a tenth of a hundredth
    triggered, _ = planted.triggered(halves[1])
    for name, data, code in (("plain", halves[1], 0), ("triggered", triggered, 1)):
        held = tmp_path / f"{name}.npz"
        np.savez(held, x=whole(data.x).numpy(), y=data.y.numpy())
        table_to = tmp_path / f"{name}.csv"
        assert run(["guard", "check", out, str(held), "-o", str(table_to)]) == code
        assert len(table_to.read_text().splitlines()) == len(data) + 1
        capsys.readouterr()
    assert run(["guard", "check", out, str(tmp_path / "plain.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subject"]["kind"] == "input"
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros((30, 3, 5, 5), np.uint8), y=np.arange(30) % 3)
    with pytest.raises(InputError, match="holds images of size 5, but 8 was asked for"):
        run(["guard", "check", out, str(other)])
