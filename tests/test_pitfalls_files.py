"""Defects of public toolkits in how victims are kept: see docs/pitfalls.md."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from torchbands import zoo
from torchbands.core.attack import Victim
from torchbands.core.errors import BandsError, DamagedVictim
from torchbands.zoo.artifact import digest
from torchbands.zoo.files import sha256


def altered(folder: Path, name: str) -> None:
    """Make the card fit a changed file, as who changed it on purpose would."""
    card = json.loads((folder / "card.json").read_text())
    card.pop("card_sha256")
    card["files"][name] = sha256(folder / name)
    (folder / "card.json").write_text(json.dumps({**card, "card_sha256": digest(card, "card_sha256")}))


def test_weights_of_another_architecture_are_refused_though_their_number_fits(
    planted_victim: Victim, tmp_path: Path
) -> None:
    """State-dict keys renamed by position when names differ."""
    folder = zoo.save(planted_victim, tmp_path / "victim")
    weights = load_file(folder / "model.safetensors")
    save_file({f"other.{k}": v.clone() for k, v in weights.items()}, folder / "model.safetensors")
    altered(folder, "model.safetensors")
    with pytest.raises(BandsError, match="does not fit the network"):
        zoo.load(folder)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_in_a_victim_s_place_is_never_run(planted_victim: Victim, tmp_path: Path) -> None:
    folder = zoo.save(planted_victim, tmp_path / "victim")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    altered(folder, "model.safetensors")
    with pytest.raises(DamagedVictim):
        zoo.load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_victim_can_be_moved_and_read_from_anywhere(
    planted_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that must lie under a folder of a certain name, with paths relative to where training was started."""
    folder = zoo.save(planted_victim, tmp_path / "here" / "victim")
    (tmp_path / "there").mkdir()
    folder = folder.rename(tmp_path / "there" / "other name")
    monkeypatch.chdir(tmp_path / "here")
    back = zoo.load(folder)
    x = planted_victim.task.load("test")[:20].x
    assert torch.equal(back.model.logits(x), planted_victim.model.logits(x))
    assert str(tmp_path) not in (folder / "card.json").read_text()
