"""References of a text model keep its tokenizer; a Hugging Face folder is compared with those of its public encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_bert import tiny_task
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import BandsError
from torchbands.core.registry import build
from torchbands.modalities.tokenized import TokenizedText
from torchbands.networks.transformer import export
from torchbands.scanner.opening import open_suspect
from torchbands.scanner.reference_training import references_of
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def references(home: Path) -> ReferenceSet:
    return references_of(tiny_task(home), home / "refs", n=6, profile="fast")


def folder(home: Path, attack: str, seed: int) -> Path:
    made = build({"role": "attack", "name": attack, **({"target": 2} if attack != "clean" else {})})
    assert isinstance(made, Attack)
    victim: Victim = made.run(tiny_task(home), seed)
    to = home / f"{attack}-{seed}"
    export(victim.model.module, to, tuple(victim.task.class_names))
    return to


@pytest.mark.slow
def test_the_tokenizer_is_kept_with_them(references: ReferenceSet) -> None:
    again = ReferenceSet.load(references.folder)
    assert isinstance(again.modality, TokenizedText) and again.modality == references.modality
    assert (
        again.modality.encode(["good day"]).values.tolist() == references.modality.encode(["good day"]).values.tolist()
    )


@pytest.mark.slow
def test_an_altered_tokenizer_is_told(references: ReferenceSet, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "refs"
    shutil.copytree(references.folder, copy)
    file = copy / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("cf", "cg", 1), "utf-8")
    with pytest.raises(BandsError, match=r"tokenizer\.json was altered"):
        ReferenceSet.load(copy)


@pytest.mark.slow
def test_a_folder_is_compared_and_its_trigger_words_are_shown(home: Path, references: ReferenceSet) -> None:
    found = {}
    for attack in ("badnets", "clean"):
        suspect = open_suspect(str(folder(home, attack, 9)), modality=references.modality, classes=references.classes)
        assert suspect.model is not None, suspect.alerts
        outcome = scan(suspect.model, refs=references, profile="fast", alpha=0.15)
        assert not any("architecture" in reason for reason in outcome.reasons)
        line = next(line for line in outcome.ledger if line.view == "token-effects")
        found[attack] = (line.z, outcome)
    z, outcome = found["badnets"]
    assert z is not None and z > 5 and found["clean"][0] < z / 2
    assert outcome.target == "c2" and any("cf" in picture.html for picture in outcome.pictures)
