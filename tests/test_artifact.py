"""Victims, references, their members, guards and repaired models are one kind of folder, read by one rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from torchbands.core.errors import BandsError, InputError
from torchbands.scanner import guard_files, reference_files, repaired_folder
from torchbands.zoo import victims
from torchbands.zoo.artifact import SUM, Kind, digest, save_tensors, sums
from torchbands.zoo.files import new_file, sha256

KINDS = {
    "victim": victims.OF_STORE,
    "guard": guard_files.KIND,
    "references": reference_files.KIND,
    "member": reference_files.MEMBER,
    "repaired": repaired_folder.KIND,
}


def test_only_kinds_that_had_no_checksums_once_do_without() -> None:
    assert {name for name, kind in KINDS.items() if kind.unsummed} == {"references", "member", "repaired"}


def card_for(kind: Kind, files: dict[str, str]) -> dict[str, Any]:
    """The least that a card of this kind says, with these checksums."""
    first = next(iter(files.values()))
    card = dict.fromkeys(sorted(kind.entries)) | {"files": files, "sha256": first, "rows": {"sha256": first}}
    card |= {"kind": "torchbands-guard", "suspect": {}, "scan_before": {}}
    return card if kind.format is None else card | {"format": kind.format}


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Kind, Path]:
    kind = KINDS[request.param]
    with kind.new(tmp_path / "it") as at:
        for name in kind.needs:
            save_tensors({"x": torch.arange(6.0).reshape(2, 3).T}, at / name)  # neither contiguous nor copied yet
        kind.write_card(at, card_for(kind, sums(at)))
    return kind, tmp_path / "it"


def test_what_was_written_is_read(made: tuple[Kind, Path]) -> None:
    kind, folder = made
    card = kind.verified(folder)
    assert card[SUM] == digest(card) and set(kind.sums(card)) == kind.needs
    for name in kind.needs:
        assert torch.equal(kind.tensors(folder, name)["x"], torch.arange(6.0).reshape(2, 3).T)


def test_what_was_altered_is_named(made: tuple[Kind, Path]) -> None:
    kind, folder = made
    (name,) = sorted(kind.needs)[:1]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + b"\xff")
    with pytest.raises(kind.error, match=f"{name} was truncated or altered") as refused:
        kind.verified(folder)
    assert refused.value.hint == kind.again != ""
    (folder / name).write_bytes(content[:40])
    with pytest.raises(kind.error, match=f"it is damaged .{name}: "):
        kind.tensors(folder, name)
    (folder / name).unlink()
    with pytest.raises(kind.error, match=f"{name} is missing"):
        kind.verified(folder)


def test_a_card_is_believed_as_it_was_written_alone(made: tuple[Kind, Path]) -> None:
    kind, folder = made
    card = json.loads((folder / kind.card).read_text())

    def refused(said: str, text: str) -> None:
        (folder / kind.card).write_text(text)
        with pytest.raises(kind.error, match=said):
            kind.verified(folder)

    refused("was altered", json.dumps({**card, "more": 1}))
    refused("is damaged", "{")
    refused("is damaged", "[]")
    for name in ("../outside", "/etc/passwd", "model.pkl"):
        other = replace(kind, sums=lambda _, name=name: {**kind.sums(card), name: "0" * 64})
        with pytest.raises(kind.error, match="it names other files"):
            _rewritten(other, folder, card).verified(folder)
    if kind.format is not None:
        with pytest.raises(kind.error, match="has format 7, this torchbands reads format 1"):
            _rewritten(kind, folder, {**card, "format": 7}).verified(folder)
    if kind.entries:
        with pytest.raises(kind.error, match="it does not say its"):
            _rewritten(kind, folder, {k: v for k, v in card.items() if k != min(kind.entries)}).verified(folder)
    bare = json.dumps({k: v for k, v in card.items() if k != SUM})  # as older versions wrote some of them
    if not kind.unsummed:
        refused("it has no checksum", bare)
    else:
        (folder / kind.card).write_text(bare)
        assert SUM not in kind.verified(folder)
    (folder / kind.card).unlink()
    with pytest.raises(kind.error, match=f"it has no {kind.card}"):
        kind.verified(folder)


def _rewritten(kind: Kind, folder: Path, card: dict[str, Any]) -> Kind:
    kind.write_card(folder, card)
    return kind


def test_only_its_own_is_replaced(made: tuple[Kind, Path], capsys: pytest.CaptureFixture[str]) -> None:
    kind, folder = made
    for other in KINDS.values():
        if other.card == kind.card and other.needs == kind.needs:
            continue
        with pytest.raises(InputError, match="exists and"):
            other.check(folder)
    if kind.replaced:
        with kind.new(folder) as at:
            (at / kind.card).write_text("{}")
        assert [p.name for p in folder.iterdir()] == [kind.card]
        assert ("is replaced" in capsys.readouterr().err) is (kind.is_mine is not None)
    else:
        with pytest.raises(InputError, match="nothing was changed|not a folder of references"), kind.new(folder):
            pass


def test_what_a_killed_training_left_of_a_member_is_replaced(tmp_path: Path) -> None:
    kind, folder = reference_files.MEMBER, tmp_path / "0000"
    folder.mkdir()
    (folder / reference_files.WEIGHTS).write_bytes(b"half")
    with kind.new(folder) as at:
        save_tensors({}, at / reference_files.WEIGHTS)
    assert load_file(folder / reference_files.WEIGHTS) == {}


def test_references_of_an_older_version_open(tmp_path: Path) -> None:
    """Written before cards had checksums and texts had one."""
    card = {
        "format": 1, "torchbands": "0.0", "architecture": "mine", "classes": 2, "class_names": ["a", "b"],
        "modality": {"role": "modality", "name": "text", "version": 1, "params": {"vocabulary": ["x"], "length": 4}},
        "recipes": [], "training_rows": 2, "data": "",
    }  # fmt: skip
    folder, member = tmp_path / "refs", tmp_path / "refs" / reference_files.MODELS / "0000"
    member.mkdir(parents=True)
    save_tensors({"y": torch.tensor([0, 1])}, folder / "rows.safetensors")
    (folder / "rows.json").write_text(json.dumps({"text": ["x x", "x"]}))
    card["rows"] = {"n": 2, "sha256": sha256(folder / "rows.safetensors")}
    (folder / "card.json").write_text(json.dumps(card))
    save_tensors({"0.weight": torch.ones(2, 2)}, member / reference_files.WEIGHTS)
    told = {"accuracy": 1.0, "seconds": 2.0, "sha256": sha256(member / reference_files.WEIGHTS)}
    (member / "card.json").write_text(json.dumps(told))

    from torchbands.scanner.references import ReferenceSet

    refs = ReferenceSet.load(folder)
    assert (len(refs), refs.unsummed(), list(refs.clean.x)) == (1, 2, ["x x", "x"])
    assert refs.shapes() == {"0.weight": (2, 2)} and refs.recipes() == [0]
    assert refs.summary()["accuracy"] == [1.0, 1.0]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "it"
    for text in ("old", "new"):
        with new_file(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    with pytest.raises(BandsError), new_file(path) as temporary:
        temporary.write_text("half")
        raise BandsError("stopped")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["it"]
