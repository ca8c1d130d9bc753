"""A victim whose network brings its own tokenizer: scanned from its folder, guarded, saved and loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tiny_bert import tiny_task
from torchbands import Guard, zoo
from torchbands.cli import main
from torchbands.core.attack import Victim
from torchbands.core.errors import InputError
from torchbands.core.registry import build
from torchbands.modalities.tokenized import TokenizedText


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Victim, Path, list[str]]:
    folder = tmp_path_factory.mktemp("tiny")
    task = tiny_task(folder)
    made = build("badnets").run(task, 0)  # type: ignore[attr-defined]
    at = zoo.save(made, folder / "victim")
    return made, at, ["--allow", str(folder / "encoder"), "--allow", str(folder / "rows.csv")]


def test_a_tokenized_text_is_built_again_from_its_spec_and_its_tokenizer(
    victim: tuple[Victim, Path, list[str]],
) -> None:
    modality = victim[0].model.modality
    assert isinstance(modality, TokenizedText)
    back = build(json.loads(json.dumps(modality.spec())))
    assert back == modality and isinstance(back, TokenizedText) and not back.tokenizer
    texts = victim[0].task.load("test").x[:20]
    again = back.with_files(modality.files())
    assert torch.equal(again.encode(texts).values, modality.encode(texts).values)
    with pytest.raises(InputError, match="is missing"):
        back.with_files({})
    with pytest.raises(InputError, match="was altered"):
        back.with_files({"tokenizer.json": b"{}"})


def test_its_folder_is_scanned(victim: tuple[Victim, Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    _, at, allowed = victim
    assert main(["scan", "model", str(at), *allowed, "--json"]) == 3, "there are no references"
    told = json.loads(capsys.readouterr().out)
    assert told["subject"]["facts"]["classes"] == 4 and "transformer" in json.dumps(told["subject"]["facts"])


def test_its_guard_is_saved_with_the_tokenizer(
    victim: tuple[Victim, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, at, allowed = victim
    rows = tmp_path / "rows.csv"
    test = made.task.load("test")[:120]
    rows.write_text("text,label\n" + "".join(f"{x},c{y}\n" for x, y in zip(test.x, test.y.tolist(), strict=True)))
    guard = tmp_path / "guard"
    assert main(["guard", "fit", str(at), "--data", str(rows), "-o", str(guard), *allowed]) == 0
    assert (guard / "tokenizer.json").is_file()
    assert main(["guard", "check", str(guard), str(rows), *allowed]) in (0, 1)
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "unknown setting" not in said.err
    other = Guard.load(guard, model=made.model)
    assert torch.isfinite(other.score_samples(test.x)).all()
    (guard / "tokenizer.json").write_text("{}")
    assert main(["guard", "check", str(guard), str(rows), *allowed]) == 4
    assert "tokenizer.json was truncated or altered" in capsys.readouterr().err
