"""`suspect.toml`: typed once, read where only its user writes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from torchbands.cli.suspect_file import recall, remember
from torchbands.core.errors import InputError

FLAGS = ("arch", "classes", "class_names", "mean", "std", "size", "channels", "settings")


def flags(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**(dict.fromkeys(FLAGS) | given))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("torchbands.cli.suspect_file.NAME", "suspect.toml")
    (tmp_path / "work").mkdir()
    (tmp_path / "their").mkdir()
    for folder in ("work", "their"):
        (tmp_path / folder / "m.safetensors").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_what_was_typed_once_is_read_again_and_flags_win(work: Path) -> None:
    there = "../their/m.safetensors"
    remember(flags(), there)
    assert not Path("suspect.toml").exists()
    remember(flags(arch='{"name": "resnet"}', mean=(0.5, 0.25, 1.0), size=32), there)
    again = flags(size=64)
    recall(again, there)
    assert (again.arch, again.mean, again.size, again.std) == ('{"name": "resnet"}', (0.5, 0.25, 1.0), 64, None)


def test_what_lies_beside_a_suspect_names_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("suspect.toml").write_text('arch = "theirs:run"\n')
    for beside in ("m.safetensors", "../work/m.safetensors"):
        given = flags()
        recall(given, beside)
        assert given.arch is None and "--settings suspect.toml" in capsys.readouterr().err
    (work / "their" / "suspect.toml").write_text('arch = "theirs:run"\n')
    Path("suspect.toml").unlink()
    given = flags()
    recall(given, "../their/m.safetensors")
    assert given.arch is None
    named = flags(settings="../their/suspect.toml")
    recall(named, "../their/m.safetensors")
    assert named.arch == "theirs:run"


def test_a_file_of_somebody_else_stays_and_a_strange_one_is_refused(work: Path) -> None:
    there = "../their/m.safetensors"
    for text in ("arch = 3\n", "arch = \n", 'train = "a:b"\n', "mean = [true]\n", 'size = "a"\n'):
        Path("suspect.toml").write_text(text)
        with pytest.raises(InputError):
            recall(flags(), there)
        remember(flags(arch="mlp"), there)
        assert Path("suspect.toml").read_text() == text
    with pytest.raises(InputError, match="there is no"):
        recall(flags(settings="none.toml"), there)
