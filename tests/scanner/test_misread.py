"""A model that does not know the clean rows is not judged: what may be wrong is tried, named, and said first."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchbands.cli import main
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.modalities.image import Image
from torchbands.scanner.misread import AGAIN, Claim, at_chance, misread
from torchbands.scanner.opening import claims, open_suspect
from torchbands.scanner.opening.weights import State
from torchbands.scanner.outcome import Subject
from torchbands.scanner.scan_model import scan

IMAGE = Image(channels=1, size=8)


def rows(classes: int, n: int = 300) -> Data:
    """Classes by brightness, told from 0.05 of noise."""
    y = torch.arange(n) % classes
    noise = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.05
    return Data(noise + 0.9 * y[:, None, None, None] / classes, y)


class ByBrightness(nn.Module):
    """Knows every class of rows in [0, 1]; answers in another order, wrongly for a share of rows, or of scaled rows."""

    def __init__(self, classes: int, order: list[int] | None = None, wrong: float = 0.0, scaled: bool = False) -> None:
        super().__init__()
        self.classes, self.wrong, self.scaled = classes, wrong, scaled
        self.order = torch.tensor(order or list(range(classes)))
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.scaled:
            x = x * 0.5 + 0.5
        level = ((x.mean((1, 2, 3)) - 0.025) * self.classes / 0.9)[:, None]
        logits = -((level - torch.arange(float(self.classes))) ** 2) * self.weight
        lost = (x[:, 0, 0, 0] * 1e4 % 1 < self.wrong)[:, None]
        return torch.where(lost, logits.roll(1, 1), logits)[:, self.order.argsort()]


def model(*given: object, **more: object) -> Model:
    net = ByBrightness(*given, **more)  # type: ignore[arg-type]
    return Model(net, IMAGE, net.classes)


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [3, 1, 0, 2], [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]])
def test_labels_in_another_order_are_named(order: list[int]) -> None:
    classes, names = len(order), "abcdefghij"[: len(order)]
    found = misread(model(classes, order), rows(classes))
    assert found is not None and found.unread and found.better > 0.95 and found.order == tuple(order)
    assert f"rows labelled 'a' are its class {order[0]}" in found.reason(names)
    # named so, every label has the number that the model gives it
    typed = found.next_step(names).split("--class-names ")[1].split(",")
    assert [typed.index(n) for n in names] == order
    assert found.labels(names) == dict(zip(names, order))


def test_an_order_is_found_where_only_some_classes_have_changed_places() -> None:
    found = misread(model(6, [1, 0, 3, 2, 4, 5]), rows(6))
    assert found is not None and not found.chance and found.unread and found.order == (1, 0, 3, 2, 4, 5)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_forgotten_normalisation_is_found_for_any_number_of_classes(classes: int) -> None:
    found = misread(model(classes, scaled=True), rows(classes))
    assert found is not None and found.better > 0.95 and found.next_step().startswith(f"{AGAIN} --mean 0.")
    assert classes == 2 or found.name == "to -1 ... 1"
    both = misread(model(classes, [*range(1, classes), 0], scaled=True), rows(classes))
    assert both is not None and both.order == (*range(1, classes), 0) and "--class-names" in both.next_step()
    if classes > 2:
        assert "--mean 0.5" in both.next_step() and both.reason().count("with ") == 2


def test_what_guesses_is_said_to_and_nothing_is_made_up() -> None:
    data = rows(4)
    torch.manual_seed(0)
    for net in (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Sequential(nn.Flatten(), nn.Linear(64, 4).double())):
        shuffled = Data(data.x, data.y[torch.randperm(len(data))])
        found = misread(Model(net.float(), IMAGE, 4), shuffled)
        assert found is not None and found.chance and not found.order and not found.mean
        assert "no more than guessing would" in found.reason() and "--labels" in found.next_step()
    constant = torch.zeros(300).long()
    assert at_chance(constant, (torch.arange(300) % 20 == 0).long(), 2)  # 95 % of the rows are of its only answer
    assert not at_chance(data.y, data.y, 4)


def test_a_good_model_and_too_few_rows_are_left_alone() -> None:
    for wrong in (0.0, 0.3):
        assert misread(model(4, wrong=wrong), rows(4)) is None
    assert misread(model(4, [1, 0, 3, 2]), rows(4, n=12)) is None
    one = rows(4)
    assert misread(model(4, [1, 0, 3, 2]), one[one.y == 1]) is None


def test_its_own_claim_and_its_references_are_held_against_it() -> None:
    weak = model(4, wrong=0.3)
    found = misread(weak, rows(4), claim=Claim(0.97, "eval_results.json"))
    assert found is not None and not found.unread and "where eval_results.json says 97%" in found.reason()
    assert misread(weak, rows(4), claim=Claim(0.75, "README.md")) is None
    found = misread(model(4, wrong=0.6), rows(4), expected=0.99)
    assert found is not None and not found.unread and "the references know 99% or more" in found.reason()


def test_at_chance_nothing_is_judged_and_it_is_said_first() -> None:
    said: list[str] = []
    data, subject = rows(4), Subject("model", "m", facts={"claimed_accuracy": {"accuracy": 0.97, "where": "README.md"}})
    outcome = scan(model(4, [1, 2, 3, 0]), data, profile="fast", class_names="abcd", announce=said.append)
    assert outcome.verdict == "inconclusive" and outcome.exit_code("medium") == 3 and not outcome.ledger
    assert said == [f"ATTENTION: {outcome.reasons[0]}"] and "--class-names d,a,b,c" in outcome.next_steps[0]
    assert outcome.subject.facts["labels_in_the_model"] == {"a": 1, "b": 2, "c": 3, "d": 0}
    weak = scan(model(4, wrong=0.3), data, profile="fast", subject=subject, announce=said.append)
    assert "README.md says 97%" in said[1] and weak.ledger and weak.reasons[0] in said[1]


@pytest.mark.parametrize(
    ("found", "share"),
    [
        ({"epoch": 3, "acc": 93.1}, 0.931),
        ({"best_acc1": 0.5}, 0.5),
        ({"eval_accuracy": 0.88}, 0.88),
        ({"test acc": 0.7}, 0.7),
        ({"best_prec1": 76.13}, 0.7613),
        ({"train_acc": 0.9, "accumulate": 0.5, "acc_history": 0.5, "accuracy": True}, None),
        ({"acc": "high", "accuracy": 101, "top1_accuracy": -1}, None),
    ],
)
def test_claims_are_read_from_keys_that_say_so(found: dict[str, object], share: float | None) -> None:
    state = State()
    assert claims.note(found, "it", state) is (share is not None)
    assert state.facts.get("claimed_accuracy", {}).get("accuracy") == share


def test_a_checkpoint_states_its_accuracy_and_an_order_is_mended_by_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes=4):\n        super().__init__(); self.head = nn.Linear(1, classes)\n"
        "    def forward(self, x): return self.head(x.mean((1, 2, 3))[:, None])\n"
    )
    at = torch.tensor([0.025 + 0.225 * k for k in (2, 0, 3, 1)])  # class 0 of the model is label 2 of the rows ...
    head = {"head.weight": 2000 * at[:, None], "head.bias": -1000 * at**2}
    torch.save({"state_dict": head, "acc": 99.0, "epoch": 3}, "m.pt")
    data = rows(4)
    np.savez("c.npz", x=(data.x.numpy() * 255).astype(np.uint8), y=data.y.numpy())
    assert open_suspect("m.pt", arch="./net.py:Net", modality=IMAGE).facts["claimed_accuracy"]["accuracy"] == 0.99
    command = ["scan", "model", "m.pt", "--arch", "./net.py:Net", "--data", "c.npz", "--profile", "fast"]
    assert main([*command, "--format", "json=o.json"]) == 3
    said = capsys.readouterr().err
    assert "ATTENTION: the suspect knows 0% of 300 clean rows" in said and "where the checkpoint says 99%" in said
    step = json.loads(Path("o.json").read_text())["next_steps"][0]
    assert main([*shlex.split(step.partition("bands ")[2]), "--profile", "fast", "--format", "json=o.json"]) == 3
    ledger = json.loads(Path("o.json").read_text())["ledger"]
    assert any(line["facts"].get("accuracy") == 1.0 for line in ledger) and "ATTENTION" not in capsys.readouterr().err
    fit = ["guard", "fit", "m.pt", "--arch", "./net.py:Net", "--data", "c.npz", "-o", "g"]
    assert main(fit) == 3 and "no guard was fitted" in capsys.readouterr().err and not Path("g").exists()
