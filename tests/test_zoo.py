"""Victim directories: whole or refused."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from torchbands import zoo
from torchbands.attacks.badnets import BadNets
from torchbands.core.attack import Victim
from torchbands.core.data import Replaced
from torchbands.core.errors import BandsError, DamagedVictim, InputError
from torchbands.testing import toy
from torchbands.testing.fixtures import same_rows
from torchbands.zoo import files
from torchbands.zoo.poison import load_poison, save_poison


@pytest.fixture
def folder(planted_victim: Victim, tmp_path: Path) -> Path:
    return zoo.save(planted_victim, tmp_path / "victim")


def test_a_victim_comes_back_as_it_was(planted_victim: Victim, folder: Path) -> None:
    back = zoo.load(folder)
    test = planted_victim.task.load("test")
    assert torch.equal(back.model.logits(test.x), planted_victim.model.logits(test.x))
    assert back.attack == planted_victim.attack and back.trigger == planted_victim.trigger
    assert back.task == planted_victim.task and back.info == planted_victim.info
    assert not list(folder.parent.glob(".*")), "no temporary file is left"


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "trigger.safetensors", "poison.safetensors"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DamagedVictim, match=name):
        zoo.load(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DamagedVictim, match="truncated or altered"):
        zoo.load(folder)


def test_an_altered_byte_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(DamagedVictim, match="checksum"):
        zoo.load(folder)


def test_an_altered_card_is_refused(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["attack"]["params"]["target"] = 5
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(DamagedVictim, match="card"):
        zoo.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": 3}', "\x00\xff"])
def test_a_card_that_is_no_card_is_refused(folder: Path, text: str) -> None:
    (folder / "card.json").write_text(text, encoding="latin-1")
    with pytest.raises(DamagedVictim):
        zoo.load(folder)


def test_saving_never_overwrites_what_is_no_victim(planted_victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        zoo.save(planted_victim, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    files.write_json(path, {"finished": True})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BandsError, match="disk is full"):
        files.write_json(path, {"finished": False})
    assert json.loads(path.read_text()) == {"finished": True}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("name", "labels"), [("text", "source-specific"), ("code", "all-to-one"), ("tabular", "all-to-all")]
)
def test_poison_travels_with_its_victim(
    name: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters read what was written; written again on another machine, learned patterns and surrogates are others."""
    task = toy(name, rows=512)
    victim = BadNets(labels=labels).run(task, 0)  # type: ignore[arg-type]
    written = BadNets(labels=labels).poison(task.load("train"), task, 0)  # type: ignore[arg-type]
    folder = zoo.save(victim, tmp_path / "victim")
    monkeypatch.setattr(BadNets, "poison", lambda *_: pytest.fail("computed again"))
    data = zoo.load(folder).training_data()
    assert data.poisoned is not None and written.poisoned is not None
    assert torch.equal(data.poisoned, written.poisoned) and torch.equal(data.y, written.y)
    assert same_rows(data.x, written.x) and data.meta.keys() == written.meta.keys()
    assert all(torch.equal(data.meta[k], v) for k, v in written.meta.items())
    assert not isinstance(data.blind().x, Replaced), "a defender is not told which rows were replaced"


def test_a_poison_whose_parts_do_not_fit_is_refused(folder: Path, planted_victim: Victim, tmp_path: Path) -> None:
    assert planted_victim.poison is not None
    save_poison(replace(planted_victim.poison, y=planted_victim.poison.y[:-1]), tmp_path)
    with pytest.raises(DamagedVictim, match="differ in length"):
        load_poison(tmp_path)
    held = load_file(tmp_path / "poison.safetensors")
    save_file(held, tmp_path / "poison.safetensors", {"kind": "float32", "bytes": "10"})
    with pytest.raises(DamagedVictim, match="does not hold what it says"):
        load_poison(tmp_path)
    save_file(held, tmp_path / "poison.safetensors", {"kind": "float32", "bytes": str(2**40)})
    with pytest.raises(DamagedVictim, match="it says that it holds"):
        load_poison(tmp_path)
    with pytest.raises(InputError, match="other rows than the 5 of the task"):
        planted_victim.poison.into(planted_victim.task.load("train")[:5])
