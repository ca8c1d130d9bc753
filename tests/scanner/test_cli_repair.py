"""bands repair: exit codes, what is written, and that the folder opens again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from torchbands import zoo
from torchbands.cli import main
from torchbands.cli.repair import UNPROVEN
from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.defense import Repair
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.modalities.image import Image
from torchbands.scanner.opening import open_suspect
from torchbands.scanner.outcome import Answer, Outcome, Subject
from torchbands.scanner.repair_model import _lost
from torchbands.scanner.repaired_folder import CARD, KIND, WEIGHTS
from torchbands.scanner.strongest import Strongest
from torchbands.triggers.image import Patch


class Given(Repair):
    """Gives back a model made elsewhere."""

    name = "given"
    model: ClassVar[Model]

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        return self.model.clone()


@pytest.fixture(scope="module")
def planted(digits: Task) -> Victim:
    return build("badnets").run(digits.but(held_out=0.2), 0)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def other(digits: Task) -> Model:
    return build("clean").run(digits.but(held_out=0.2), 5).model  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def given(planted: Victim, other: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A victim directory; the scan names the trigger, the ladder has one repair that holds, probes are few."""
    monkeypatch.setattr(Given, "model", other, raising=False)
    monkeypatch.setattr("torchbands.scanner.repair_model.LADDER", (Given(),))
    monkeypatch.setattr("torchbands.scanner.repair_model._apart", lambda *a, **k: [])

    def scan(model: Model, *args: Any, **more: Any) -> Outcome:
        found = Strongest(0, None, Patch()) if more["alpha"] != 0.5 else Strongest()
        reasons = ("there are no reference models",)
        return Outcome(Subject("model", "m"), trigger=Answer(None), reasons=reasons, found=found)

    monkeypatch.setattr("torchbands.scanner.scan_model.scan", scan)
    monkeypatch.chdir(tmp_path)
    return zoo.save(planted, tmp_path / "victim")


ARGS = ("--data", '{"name": "vision/digits", "held_out": 0.2}', "--max-drop", "0.1")


def test_a_victim_is_repaired_and_the_folder_opens_again(
    given: Path, other: Model, digits: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repair", "victim", *ARGS, "-o", "repaired", "--format", "text=r.txt", "--format", "html=r.html"]) == 5
    said = capsys.readouterr()
    text, page = Path("r.txt").read_text(), Path("r.html").read_text()
    assert "REPAIRED, BUT UNPROVEN" in text and "written to repaired" in text and "given: accepted" in text
    assert "Repaired, but unproven" in page and "No indicator found" not in page and "95 % interval" in page
    assert 'class="top is-inconclusive"' in page and page.count('<td class="text why" colspan="6">') == 1
    assert "accepted: given" in said.out and "bands scan model repaired" in said.out
    assert "nothing is calibrated" in said.err and "unproven" in said.out
    card = json.loads(Path("repaired", CARD).read_text())
    assert card["accepted"]["name"] == "given" and card["steps"][0]["verdict"] == "accepted"
    assert len(card["suspect"]["sha256"]) == 64 and card["scan_before"]["verdict"] == "inconclusive"
    assert "not calibrated" in card["reason"]
    assert (
        KIND.verified(Path("repaired")) == card
        and "card_sha256" in card
        and set(card["files"]) == {"model.safetensors", "card.json"}
    )
    again = open_suspect("repaired")
    x = digits.load("test")[:50].x
    assert again.format == "torchbands" and again.model is not None
    assert torch.allclose(again.model.logits(x), other.logits(x), atol=1e-5)
    assert main(["repair", "victim", *ARGS, "-o", "repaired", "--json"]) == UNPROVEN
    assert json.loads(capsys.readouterr().out)["accepted"]["name"] == "given"


def test_a_file_of_weights_is_repaired_and_opens_with_its_architecture(
    given: Path, other: Model, digits: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = json.dumps(digits.network.spec())
    told = ("--format", "text=r.txt")
    assert main(["repair", "victim/model.safetensors", "--arch", arch, *ARGS, "-o", "repaired", *told]) == UNPROVEN
    next_step = " ".join(Path("r.txt").read_text().split("what to do next")[1].split())
    assert "scan what was written: bands scan model repaired --arch" in next_step
    assert "--arch" in json.loads(Path("repaired", CARD).read_text())["open_with"]
    again = open_suspect("repaired", arch=arch, modality=Image(channels=1, size=8))
    x = digits.load("test")[:50].x
    assert again.model is not None and not again.alerts and len(again.sha256) == 64
    assert torch.allclose(again.model.logits(x), other.logits(x), atol=1e-5)


def test_only_a_calibrated_scan_ends_with_0_and_retuning_that_taught_nothing_is_told(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Outcome(Subject("model", "m"), trigger=Answer(0.5, references=40), methods=("target-inversion",))
    monkeypatch.setattr("torchbands.cli.repair._unasked", lambda before: told)
    monkeypatch.setattr("torchbands.scanner.reactivation.EPOCHS", 0)
    assert main(["repair", "victim", *ARGS, "-o", "again"]) == 0
    card = json.loads(Path("again", CARD).read_text())
    trial = card["steps"][0]["trials"][0]
    assert trial["learned"] < 0.5 and f"taught the model {trial['learned']:.0%} of its own samples" in card["reason"]


def test_no_repair_held_ends_with_1_and_writes_nothing(
    given: Path, planted: Victim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Given, "model", planted.model)
    assert main(["repair", "victim", *ARGS, "-o", "repaired", "--format", "html=r.html"]) == 1
    assert 'class="top is-indicated"' in Path("r.html").read_text()
    told = _lost(torch.tensor([True] * 90 + [False] * 10), torch.tensor([True] * 80 + [False] * 20), 8)
    assert told[0] == 0.1 and 0 < told[1] < 0.1 < told[2]
    one = _lost(torch.tensor([True] * 90 + [False] * 10), torch.tensor([True] * 80 + [False] * 20), 1)
    assert told[1] < one[1] and one[2] < told[2]  # the same rows choose among eight repairs
    assert "still moves" in capsys.readouterr().out and not Path("repaired").exists()


def test_nothing_to_repair_against_ends_with_3(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair", "victim", *ARGS, "-o", "repaired", "--alpha", "0.5"]) == 3
    assert "nothing to repair against" in capsys.readouterr().err and not Path("repaired").exists()


def test_wrong_usage_is_refused_before_any_work(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full", "letter.txt").write_text("mine")
    assert main(["repair", "victim", *ARGS, "-o", "full"]) == 4
    assert main(["repair", "victim", *ARGS, "-o", "full/letter.txt"]) == 4
    assert main(["repair", "victim", "-o", "repaired"]) == 4
    assert "--data" in capsys.readouterr().err
    assert Path("full", "letter.txt").read_text() == "mine" and WEIGHTS not in {p.name for p in Path().iterdir()}
