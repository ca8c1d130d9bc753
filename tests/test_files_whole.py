"""What is written replaces its own kind alone, is checked when it is read, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import torchbands
from torchbands import bench, build, datasets, zoo
from torchbands.bench.store import Store
from torchbands.cli import main
from torchbands.core.attack import Victim
from torchbands.core.errors import BandsError, DataUnavailable, InputError
from torchbands.datasets import cache
from torchbands.datasets.language import has_synonyms
from torchbands.report.read import read as read_store
from torchbands.scanner.guard import Guard
from torchbands.scanner.reference_files import CARD
from torchbands.scanner.reference_training import references_of
from torchbands.scanner.references import ReferenceSet
from torchbands.zoo import files
from torchbands.zoo.victims import kind_of

GRID = {"tasks": ["toy/text"], "attacks": ["clean"], "seeds": [0]}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def refs(planted_victim: Victim, tmp_path: Path) -> ReferenceSet:
    task = planted_victim.task.but(learner=build({"name": "sgd", "epochs": 1}))
    return references_of(task, tmp_path / "refs", n=2, profile="fast")


@pytest.fixture
def others(planted_victim: Victim, refs: ReferenceSet, tmp_path: Path) -> list[Path]:
    """Folders with a card.json that are no planted victims, or are not that alone."""
    guard = Guard(planted_victim.model, detector="strip").fit(planted_victim.task.load("clean"))
    mended = replace(planted_victim, info={"repaired_by": build("fine-tune").spec()})
    beside = zoo.save(planted_victim, tmp_path / "beside")
    (beside / "thesis.txt").write_text("years of work")
    within = zoo.save(planted_victim, tmp_path / "within")
    (within / "model.safetensors.bak").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "card.json").write_text('{"format": 1, "name": "of another tool"}')
    return [
        guard.save(tmp_path / "guard", network=planted_victim.task.network),
        zoo.save(mended, tmp_path / "mended"),
        *(refs.folder, beside, within, foreign),
    ]


def test_an_attack_replaces_planted_victims_alone(planted_victim: Victim, others: list[Path], tmp_path: Path) -> None:
    for folder in others:
        before = everything(folder)
        assert main(["attack", "badnets", "--task", "toy/text", "-o", str(folder)]) == 4  # told before any training
        with pytest.raises(InputError, match="nothing was changed"):
            zoo.save(planted_victim, folder)
        assert everything(folder) == before
    link = tmp_path / "link"
    link.symlink_to(zoo.save(planted_victim, tmp_path / "own"))
    with pytest.raises(InputError, match="a link"):
        zoo.save(planted_victim, link)


def test_a_repair_a_guard_and_references_replace_no_victim(planted_victim: Victim, tmp_path: Path) -> None:
    at = zoo.save(planted_victim, tmp_path / "victim")
    before = everything(at)
    args = {
        "defend": ["defend", "fine-tune", str(at), "-o", str(at)],
        "guard": ["guard", "fit", str(at), "--data", str(at), "-o", str(at)],
        "refs": ["refs", "train", "--like", str(at), "-n", "1", "-o", str(at)],
        "repair": ["repair", str(at), "--data", str(at), "-o", str(at)],
    }
    for door, arguments in args.items():
        assert main(arguments) in (2, 4), door
        assert everything(at) == before, door


def test_what_is_replaced_is_said(planted_victim: Victim, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = zoo.save(planted_victim, tmp_path / "victim")
    assert "replaced" not in capsys.readouterr().err
    zoo.save(planted_victim, at)
    assert "a victim that was in" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["victim"], "nothing is left beside it"


def test_a_store_leaves_a_grid_of_ones_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.json").write_text(json.dumps(GRID))
    assert main(["bench", "run", "grid.json", "--store", "."]) == 4
    assert json.loads(Path("grid.json").read_text()) == GRID


def test_a_kill_while_replacing_loses_neither(planted_victim: Victim, tmp_path: Path) -> None:
    """The old folder was moved aside, the new one not yet in its place; the writer is dead."""
    at = zoo.save(planted_victim, tmp_path / "victim")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    aside = tmp_path / f".victim.{int(dead.stdout)}.ab12_c.old.tmp"
    at.replace(aside)
    half = tmp_path / f".victim.{int(dead.stdout)}.ab12_c.tmp"
    half.mkdir()
    mine = tmp_path / f".victim.{os.getpid()}.ab12_c.tmp"  # of a process that lives
    mine.mkdir()
    files.sweep(tmp_path, "victim")
    assert zoo.load(at).seed == planted_victim.seed
    assert not half.exists() and not aside.exists() and mine.exists()


def test_a_signal_leaves_no_temporary_file(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from torchbands import cli; from torchbands.zoo import artifact\n"
        "def run(args):\n"
        "    with artifact.Kind(name='it', card='card.json', files=frozenset()).new(Path(sys.argv[1]) / 'v') as at:\n"
        "        (at / 'half').touch(); print('ready', flush=True); time.sleep(60)\n"
        "from torchbands.cli import parser; parser.run = run; sys.exit(cli.main())"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(torchbands.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == b"ready"
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert not list(tmp_path.iterdir())


def altered(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_altered_references_are_refused_and_those_without_a_checksum_are_read(refs: ReferenceSet) -> None:
    card, member = refs.folder / CARD, refs.members()[0] / CARD
    before = card.read_text(), member.read_text()
    altered(member, accuracy=1.0)
    with pytest.raises(BandsError, match="altered"):
        refs.summary()
    member.write_text(before[1])
    altered(card, class_names=[*reversed(refs.class_names)])
    with pytest.raises(BandsError, match="altered"):
        ReferenceSet.load(refs.folder)
    for path, text in zip((card, member), before, strict=True):
        path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "card_sha256"}))
    assert len(ReferenceSet.load(refs.folder)) == 2
    assert ReferenceSet.load(refs.folder).unsummed() == 2
    assert main(["refs", "show", str(refs.folder)]) == 0


def test_one_model_counts_once(refs: ReferenceSet) -> None:
    import shutil

    shutil.copytree(refs.members()[0], refs.folder / "models" / "0007")
    with pytest.raises(BandsError, match="counts once"):
        len(refs)
    (refs.folder / "models" / "0007").rename(refs.folder / "models" / ".0007.1.ab.tmp")  # what a kill leaves
    assert len(refs) == 2


def test_altered_records_are_made_again_and_reports_say_so(tmp_path: Path) -> None:
    bench.run(GRID, tmp_path)
    (record,) = (tmp_path / "outcomes").glob("*.json")
    found = json.loads(record.read_text())
    altered(record, metrics={**found["metrics"], "ca": 0.123})
    assert Store(tmp_path).victim_record(record.stem) is None
    assert any("altered" in p for p in read_store(tmp_path).problems)
    again = bench.run(GRID, tmp_path)
    assert (again.computed, again.found) == (1, 0)
    assert json.loads(record.read_text())["metrics"] == found["metrics"] and not read_store(tmp_path).problems
    record.rename(record.with_stem("0" * 12))  # another cell's
    assert Store(tmp_path).victim_record("0" * 12) is None
    del found["sha256"]  # as older versions wrote it
    record.write_text(json.dumps(found))
    assert Store(tmp_path).victim_record(record.stem) == found


def test_one_process_at_a_time_works_in_a_store_or_in_references(tmp_path: Path, refs: ReferenceSet) -> None:
    code = (
        "import sys, time; from pathlib import Path; from torchbands.zoo.files import only_one\n"
        "with only_one(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(torchbands.__file__).parents[1])}
    for folder in (tmp_path / "store", refs.folder):
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, env=env) as other:
            assert other.stdout is not None and other.stdout.readline().strip() == b"held"
            with pytest.raises(BandsError, match="in use"):
                if folder == refs.folder:
                    with files.only_one(folder, "the references"):
                        pass
                else:
                    bench.run(GRID, folder)
            other.kill()
            other.wait()
        with files.only_one(folder, "it"):  # the lock died with its process
            pass


def test_the_data_cache_is_believed_by_its_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHBANDS_CACHE", str(tmp_path))
    folder = datasets.get("digits")
    digits = datasets._dataset("digits")
    path, kept = folder / cache.DECODED, (folder / cache.DECODED).stat()
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert not cache.intact(folder, digits), "a kept time proves nothing"
    receipt = folder / cache.RECEIPT
    hashes = cache._hashes(path, 0)
    facts = json.loads(receipt.read_text())
    arrays = {key: {**about, "sha256": hashes[key]} for key, about in facts["arrays"].items()}
    receipt.write_text(json.dumps({**facts, "arrays": arrays, "sha256": cache.file_hash(path)}))
    assert not cache.intact(folder, digits), "nor does a receipt that was rewritten"
    assert datasets.get("digits") == folder and cache.intact(folder, digits)  # had again


def test_an_altered_word_list_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHBANDS_CACHE", str(tmp_path))
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / "wordnet").mkdir(exist_ok=True)
        (tmp_path / "wordnet" / f"data.{part}").write_text("00001740 03 n 01 entity 0 003\n")
    assert not has_synonyms()
    with pytest.raises(DataUnavailable):
        datasets.encoder_files("minilm", fetch=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_are_never_opened(planted_victim: Victim, tmp_path: Path) -> None:
    at, started = zoo.save(planted_victim, tmp_path / "victim"), time.monotonic()
    (at / "card.json").unlink()
    os.mkfifo(at / "card.json")
    store, images = tmp_path / "store", tmp_path / "images"
    for folder in (store / "records", images / "a", images / "b"):
        folder.mkdir(parents=True)
    for pipe in (store / "grid.json", store / "records" / "k.json", images / "a" / "x.png", tmp_path / "base.json"):
        os.mkfifo(pipe)
    with pytest.raises(OSError, match="regular"):
        files.read_bytes(store / "grid.json")
    with pytest.raises(OSError, match="not a file"):
        files.write_text(store / "grid.json", "{}")
    assert Store(store).record("k") is None
    for args in (
        ["defend", "strip", str(at)],
        ["bench", "status", str(store)],
        ["bench", "report", str(store)],
        ["scan", "data", str(images)],
        ["attack", "badnets", "--task", json.dumps({"name": "vision/folder", "path": str(images)})],
        ["scan", "data", str(at), "--baseline", str(tmp_path / "base.json")],
    ):
        assert main(args) in (2, 4), args
    assert time.monotonic() - started < 100


def test_a_victim_is_known_by_its_card(planted_victim: Victim, tmp_path: Path) -> None:
    at = zoo.save(planted_victim, tmp_path / "victim")
    kind_of(planted_victim).check(at)
    with pytest.raises(InputError):
        kind_of(repaired=True).check(at)
