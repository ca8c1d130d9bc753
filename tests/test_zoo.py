"""Victim directories: whole or refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from torchbands import zoo
from torchbands.core.attack import Victim
from torchbands.core.errors import BandsError, DamagedVictim, InputError
from torchbands.zoo import files


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


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "trigger.safetensors"])
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
