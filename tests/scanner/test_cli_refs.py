"""`bands refs train | show` and a real scan with them: tiny, but nothing is faked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchbands import zoo
from torchbands.cli import main
from torchbands.cli.refs import learners
from torchbands.core.attack import Victim
from torchbands.core.data import whole
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.reinitialize import redraw
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.scanner.views import PROFILES


def flags(**given: object) -> argparse.Namespace:
    names = ("epochs", "lr", "batch", "label_smoothing", "augment", "optimizer")
    return argparse.Namespace(**(dict.fromkeys(names) | {"recipe": []} | given))


def test_flags_and_recipes_change_the_base() -> None:
    base = SGD(epochs=7, lr=0.2)
    assert learners(base, flags()) == (base,)
    assert learners(base, flags(epochs=3, augment="shift")) == (SGD(epochs=3, lr=0.2, augment="shift"),)
    made = learners(base, flags(lr=0.1, recipe=['{"label_smoothing": 0.1}', '{"name": "sgd", "epochs": 1}']))
    assert made == (SGD(epochs=7, lr=0.1, label_smoothing=0.1), SGD(epochs=1))
    for text, error in (("{", InputError), ("[1]", InputError), ('{"epoch": 1}', UnknownName)):
        with pytest.raises(error):
            learners(base, flags(recipe=[text]))


def test_a_redrawn_network_shares_no_weight() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    module[1].running_mean.fill_(5.0)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert redraw(module) == []
    after = module.state_dict()
    assert not torch.equal(before["0.weight"], after["0.weight"]) and not torch.equal(before["3.bias"], after["3.bias"])
    assert not after["1.running_mean"].any()


@pytest.fixture(autouse=True)
def _only_cheap_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """The searches have their own tests; here the way from flags to reports is walked."""
    cheap = tuple(v for v in PROFILES["fast"] if v.name in ("clean-logits", "weight-spectrum"))
    assert len(cheap) == 2
    monkeypatch.setitem(PROFILES, "fast", cheap)


@pytest.fixture(scope="module")
def suspect(clean_victim: Victim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.save(clean_victim, tmp_path_factory.mktemp("suspect") / "victim")


def test_train_resume_show_and_scan(
    suspect: Path, digits: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refs, quick = str(tmp_path / "refs"), ["--profile", "fast"]
    train = ["refs", "train", "--like", str(suspect), "-o", refs, "--epochs", "2", "--rows", "300", *quick]
    assert main([*train, "-n", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["references"] == 1 and "--data" in printed.err
    first = (tmp_path / "refs" / "models" / "0000" / "weights.safetensors").read_bytes()
    assert main([*train, "-n", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["references"] == 2 and found["recipes"][0]["params"]["epochs"] == 2 and found["training_rows"] == 300
    assert (tmp_path / "refs" / "models" / "0000" / "weights.safetensors").read_bytes() == first
    assert main([*train, "-n", "2", "--lr", "0.01"]) == 4
    assert "another recipe" in capsys.readouterr().err
    assert main(["refs", "show", refs]) == 0
    printed = capsys.readouterr()
    assert "small-cnn" in printed.out and "needs at least 19" in printed.err

    weights = str(suspect / "model.safetensors")
    assert main(["scan", "model", weights, "--refs", refs, *quick, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["subject"]["format"] == "safetensors" and found["calibration"]["references"] == 2
    assert any("2 reference models cannot give" in reason for reason in found["reasons"])
    assert found["exit_code"] == 3 and all(line["seconds"] >= 0 for line in found["ledger"])


def test_what_cannot_be_trained_is_refused(suspect: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "refs")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 64)
    broken = ["--like", str(tmp_path / "broken.safetensors"), "-o", out]
    assert main(["refs", "train", *broken]) == 3  # unsupported, as wherever it is opened
    assert "unsupported: broken.safetensors" in capsys.readouterr().err and not Path(out).exists()
    for args, said in (
        (["-o", out], "give the model and clean data"),
        (["--like", str(suspect), "-o", out, "-n", "0"], "at least 1"),
        (["--like", "nowhere", "-o", out], "there is no nowhere"),
        (["--like", str(suspect), "-o", out, "--augment", "spin"], "spin"),
        (["--like", str(suspect)], "-o"),
    ):
        assert main(["refs", "train", *args]) == 4, args
        assert said in capsys.readouterr().err
        assert not Path(out).exists(), args
    assert main(["refs", "show", str(tmp_path)]) == 4
    assert "bands refs train" in capsys.readouterr().err


def test_own_rows_and_a_file_of_weights(
    clean_victim: Victim, digits: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = digits.load("clean")
    np.savez(tmp_path / "clean.npz", x=whole(rows.x).numpy(), y=rows.y.numpy())
    state = {k: v.contiguous() for k, v in clean_victim.model.module.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    network = json.dumps(clean_victim.task.network.spec())
    like = ["--like", str(tmp_path / "m.safetensors"), "--arch", network, "--data", str(tmp_path / "clean.npz")]
    recipes = ["--recipe", '{"epochs": 1}', "--recipe", '{"epochs": 1, "augment": "shift"}']
    assert main(["refs", "train", *like, "-o", str(tmp_path / "r"), "-n", "2", "--profile", "fast", *recipes]) == 0
    card = json.loads((tmp_path / "r" / "card.json").read_text())
    assert [r["params"]["augment"] for r in card["recipes"]] == ["none", "shift"]
    assert card["training_rows"] + card["rows"]["n"] == len(rows)
    assert "small-cnn" in capsys.readouterr().out


def test_from_nothing_to_a_judged_model_in_one_command_that_goes_on(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network, a training loop and a checkpoint of one's own, side by side in the working folder."""
    (tmp_path / "mine.py").write_text(OWN)
    rows = digits.load("clean")
    np.savez(tmp_path / "clean.npz", x=whole(rows.x).numpy(), y=rows.y.numpy())
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    steps = torch.optim.Adam(made.parameters(), 0.02)
    some = rows.y < 3  # it knows a few of the classes: more than guessing, less than its references
    for _ in range(60):
        steps.zero_grad()
        nn.functional.cross_entropy(made((whole(rows.x)[some] - 0.5) / 0.5), rows.y[some]).backward()
        steps.step()
    save_file(made.state_dict(), tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    scan = ["scan", "model", "m.safetensors", "--arch", "./mine.py:build", "--data", "clean.npz", "--profile", "fast"]
    scan += ["--mean", "0.5", "--std", "0.5", "--json", "--train", "mine.py:fit"]
    assert main([*scan, "--train-references", "-n", "1"]) == 3
    first = (tmp_path / "m-refs/models/0000/weights.safetensors").read_bytes()
    assert main([*scan, "--train-references", "-n", "2"]) == 3
    told = capsys.readouterr()
    assert "1 references to train" in told.err and "--refs m-refs" in told.err
    assert (tmp_path / "m-refs/models/0000/weights.safetensors").read_bytes() == first
    found = json.loads(told.out.split("\n}\n")[1] + "\n}")
    assert found["calibration"]["references"] == 2 and "mine.py:fit" in str(found["calibration"]["recipes"])
    assert any("the references know" in reason for reason in found["reasons"])
    more = ["--arch", "./mine.py:build", "--mean", "0.5", "--std", "0.5", "--profile", "fast"]
    assert main(["refs", "add", "m-refs", "m.safetensors", *more]) == 0
    assert "1 of 1 checkpoints are new" in capsys.readouterr().err
    assert main([*scan[:-2], "--train-references", "--refs", "m-refs"]) == 4


OWN = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def fit(network, x, y, seed):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
"""
