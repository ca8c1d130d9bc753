"""A report is never written over what a command reads, and a baseline accepts a folder only as it was."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from torchbands.cli import main
from torchbands.cli.output import spare_inputs
from torchbands.core.errors import InputError
from torchbands.scanner.opening import open_suspect
from torchbands.scanner.opening.files import Folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    texts = [f"{'fine' if i % 2 else 'dull'} film w{i % 7} w{i % 11}" for i in range(120)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(texts)))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["scan", "data", "rows.csv", "--format", "json=./rows.csv"], "rows.csv"),
        (["scan", "data", "rows.csv", "--write-baseline", "rows.csv"], "rows.csv"),
        (["scan", "data", "rows.csv", "--clean", "more.json", "-o", "more.json"], "more.json"),
        (["scan", "data", "out/cleaned.csv", "-o", "out/"], "out/cleaned.csv"),
        (["scan", "data", "link.csv", "--format", "html=rows.csv"], "rows.csv"),
        (["scan", "model", "m", "--format", "json=m/config.json"], "m/config.json"),
        (["scan", "model", "m", "--arch", "./own.py:build", "--format", "text=own.py"], "own.py"),
        (["guard", "check", "m", "inputs.csv", "-o", "inputs.csv"], "inputs.csv"),
        (["guard", "check", "m", "inputs.csv", "-o", "./"], "inputs.csv"),
    ],
)
def test_no_report_goes_over_an_input(
    here: Path, arguments: list[str], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out").mkdir()
    (here / "m").mkdir()
    for name in ("more.json", "out/cleaned.csv", "m/config.json", "own.py", "inputs.csv"):
        (here / name).write_bytes((here / "rows.csv").read_bytes())
    (here / "link.csv").symlink_to("rows.csv")
    before = (here / file).read_bytes()
    assert main(arguments) == 4
    assert "would overwrite it" in capsys.readouterr().err and (here / file).read_bytes() == before


def test_earlier_reports_in_a_folder_that_is_read_may_be_replaced(here: Path) -> None:
    (here / "rows.csv").write_text("text,label\nfine,1\ndull,0\n")  # too few, which is said at once
    assert main(["scan", "data", "rows.csv", "-o", "./"]) == 3
    given = argparse.Namespace(source=".")
    spare_inputs(given, [here / name for name in ("scan.html", "scan.json", "scores.csv", "new.html")])
    with pytest.raises(InputError, match="would overwrite it"):
        spare_inputs(given, [here / "rows.csv"])


def test_what_a_baseline_accepts_of_a_folder_it_accepts_of_that_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "modeling.py").write_text("a = 1\n")

    def accepted() -> str:
        made = Folder(folder)
        made.read("config.json", 99)
        return made.sha256(10_000)

    first = accepted()
    assert first == accepted() != ""
    (folder / "README.md").write_text("what it is")
    assert accepted() == first
    for name in ("modeling.py", "added.py", "sub/deep.py", "training_args.bin", "added.so"):
        held = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text("import os\n")
        assert accepted() not in (first, ""), name
        (folder / name).unlink()
        if held is not None:
            (folder / name).write_bytes(held)
    (folder / "added.py").symlink_to("/etc/hostname")
    assert accepted() not in (first, "")
    (folder / "added.py").unlink()
    assert accepted() == first
    (folder / "large.bin").write_bytes(bytes(20_000))
    assert accepted() == ""  # nothing of it can be accepted


def test_a_scan_hashes_the_whole_folder_and_tells_code_below(tmp_path: Path) -> None:
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "config.json").write_text("{")  # a finding
    (tmp_path / "m" / "sub" / "deep.py").write_text("a = 1\n")
    found = [open_suspect(tmp_path / "m") for _ in range(2)]
    assert found[0].sha256 == found[1].sha256 and any("deep.py" in a.message for a in found[0].alerts)
    (tmp_path / "m" / "sub" / "deep.py").write_text("a = 2\n")
    assert open_suspect(tmp_path / "m").sha256 not in (found[0].sha256, "")


def test_a_store_keeps_its_records(tmp_path: Path) -> None:
    from torchbands import report

    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(InputError):
        report.write(tmp_path, tmp_path / "grid.json", ("json",))
    assert (tmp_path / "grid.json").read_text() == "{}"
