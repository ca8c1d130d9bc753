"""Nothing that is read from a file names code, a file elsewhere or a download: one test a door."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

import torchbands
from torchbands import allowing, bench, build, zoo
from torchbands.cli import main
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import BandsError, DataUnavailable, InputError, UnsafeFile
from torchbands.core.method import Method, hints_of
from torchbands.core.outside import is_free, kind_of, named_by
from torchbands.core.registry import listing
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.scanner.guard import Guard
from torchbands.scanner.references import ReferenceSet

CODE = "marking:run"


def victim(task: Method, attack: Method, trigger: Method | None = None) -> Victim:
    assert isinstance(task, Task) and isinstance(attack, Attack)
    made = attack.test_trigger(task, 0) if trigger is None else trigger
    assert isinstance(made, Trigger)
    return Victim(task, attack, 0, task.fresh(0), made, {})


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the function makes when it is called; it can be imported, as `subprocess` can."""
    (tmp_path / "mine").mkdir()
    made = tmp_path / "EXECUTED"
    (tmp_path / "mine" / "marking.py").write_text(f"def run(texts):\n    open({str(made)!r}, 'w')\n    return texts\n")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def coded(mark: Path) -> Path:
    """A victim whose attack and trigger hand every text to a function."""
    return zoo.save(victim(build("toy/text"), build({"name": "syntactic", "rewriter": CODE}, "attack")), "coded")


DOORS = {
    "defend": "defend strip V",
    "attack": "attack badnets --task toy/text --control V -o made",
    "scan data": "scan data V",
    "scan data --clean": "scan data V --clean V",
    "scan model": "scan model V",
    "scan model --data": "scan model V --data V",
    "refs train --data": "refs train --arch text-cnn --data V -n 1 -o refs",
    "refs train --like": "refs train --like V -n 1 -o refs",
    "guard fit": "guard fit V --data V -o guard",
    "repair": "repair V --data V -o repaired",
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_calls_what_a_card_names(
    door: str, coded: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(DOORS[door].replace("V", str(coded)).split())
    said = capsys.readouterr()
    assert not mark.exists()
    assert "names a function to be run" in said.out + said.err
    found = door == "scan model" or door == "scan model --data"
    assert (code in (1, 3) and ("BD-FILE-01" in said.out or code == 3)) if found else code not in (0, 1), said.err


def test_what_a_card_names_is_a_high_finding_about_a_suspect(coded: Path) -> None:
    assert main(["scan", "model", str(coded), "--fail-on", "high"]) == 1


def test_the_user_may_type_the_name(coded: Path) -> None:
    with pytest.raises(UnsafeFile, match="rewriter"):
        zoo.load(coded)
    with pytest.raises(UnsafeFile), allowing("os:system"):
        zoo.load(coded)
    with allowing(CODE):
        assert CODE in named_by(zoo.load(coded).attack)
    with pytest.raises(UnsafeFile):  # and no longer than that
        zoo.load(coded)


def test_a_card_that_names_a_function_is_refused_and_allow_is_explained(
    coded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["defend", "strip", str(coded)]) == 3  # neither a failure of the tool nor a wrong command
    said = capsys.readouterr().err
    assert "\nrefused: " in said and "error" not in said
    assert "run it, with your rights" in said and "nothing that came with the folder" in said


def test_allow_is_read_anywhere_in_a_command_line(coded: Path, mark: Path) -> None:
    assert main(["defend", "strip", str(coded), "--allow", CODE]) == 0
    assert mark.exists()  # so that the tests above can tell
    assert main(["--allow"]) == 4


def test_a_grid_file_names_no_code_but_a_grid_of_ones_own_may(mark: Path) -> None:
    grid = {"tasks": ["toy/text"], "attacks": [{"name": "syntactic", "rewriter": CODE}], "seeds": [0]}
    Path("grid.json").write_text(json.dumps(grid))
    with pytest.raises(UnsafeFile, match=r"grid\.json"):
        bench.run("grid.json", "store")
    assert main(["bench", "run", "grid.json", "--store", "store"]) == 3
    assert named_by(bench.load_grid(grid).attacks[1]) == (CODE,)


def test_a_store_is_resumed_with_victims_of_its_own_alone(coded: Path, mark: Path) -> None:
    grid = {"tasks": ["toy/text"], "attacks": ["clean"], "seeds": [0]}
    summary = bench.run(grid, "store")
    (key,) = [p.name for p in Path("store/victims").iterdir()]
    (Path("store/outcomes") / f"{key}.json").unlink()
    shutil.rmtree(Path("store/victims") / key)
    shutil.copytree(coded, Path("store/victims") / key)
    with pytest.raises(UnsafeFile):  # never run, and not passed over in silence
        bench.run(grid, "store")
    assert summary.computed == 1 and not mark.exists()
    other = victim(build("toy/text"), build("clean", "attack"))
    zoo.save(Victim(other.task, other.attack, 7, other.model, other.trigger, {}), "other")
    for path in (Path("store/victims") / key).iterdir():
        path.write_bytes((Path("other") / path.name).read_bytes())
    assert bench.run(grid, "store").computed == 1  # of another seed: made again
    assert zoo.verify(Path("store/victims") / key)["seed"] == 0


def reworded(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A card with other words and a checksum that fits: whoever can write a folder can write that too."""
    path = folder / "card.json"
    card = json.loads(path.read_text())
    change(card)
    card.pop("card_sha256", None)
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**card, "card_sha256": digest}))


def test_a_guard_names_no_folder(planted_victim: Victim, tmp_path: Path) -> None:
    guard = Guard(planted_victim.model, detector="strip").fit(planted_victim.task.load("clean"))
    at = guard.save(tmp_path / "guard", network=planted_victim.task.network)
    assert Guard.load(at).detector.name == "strip"
    reworded(at, lambda card: card.update(network={"name": "transformer", "encoder": "/etc"}))
    with pytest.raises(UnsafeFile, match=r"transformer\.encoder"):
        Guard.load(at)


def test_references_name_no_folder(tmp_path: Path, planted_victim: Victim) -> None:
    from torchbands.scanner.reference_training import references_of

    refs = references_of(
        planted_victim.task.but(learner=build({"name": "sgd", "epochs": 1})), tmp_path / "r", n=1, profile="fast"
    )
    assert refs.fresh() is not None
    reworded(refs.folder, lambda card: card.update(architecture={"name": "transformer", "encoder": "/etc"}))
    with pytest.raises(UnsafeFile, match=r"transformer\.encoder"):
        ReferenceSet.load(refs.folder).fresh()
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((next(iter(refs.members())) / "weights.safetensors").read_bytes())
    assert main(["scan", "model", str(weights), "--refs", str(refs.folder)]) == 3


def images(at: Path) -> Path:
    for label in ("a", "b"):
        (at / label).mkdir(parents=True)
        for i in range(6):
            Pillow.new("RGB", (8, 8), (40 * i, 7, 7)).save(at / label / f"{i}.png")
    return at


def test_a_card_pulls_no_images_of_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, data = images(tmp_path / "private"), tmp_path / "data"
    task = build({"name": "vision/folder", "path": str(private), "size": 8})
    zoo.save(victim(task, build("clean", "attack")), data)
    out = tmp_path / "report"
    assert main(["scan", "data", str(data), "-o", f"{out}/"]) == 3
    assert "private" in capsys.readouterr().err and not list(out.glob("*.csv"))
    with allowing(str(private)):
        assert zoo.load(data).task.classes == 2


def test_a_card_may_name_images_beside_itself_but_no_links_out(tmp_path: Path) -> None:
    inside, private = tmp_path / "inside", images(tmp_path / "private")
    beside = images(inside / "images")
    file = inside / "card.json"
    spec = {"name": "vision/folder", "path": str(beside), "size": 8}
    assert build(spec, "task", origin=file).label()
    (beside / "a" / "0.png").unlink()
    (beside / "a" / "0.png").symlink_to(private / "a" / "0.png")
    with pytest.raises(UnsafeFile):
        build(spec, "task", origin=file)
    with pytest.raises(UnsafeFile):
        build({**spec, "path": f"{inside}/../private"}, "task", origin=file)


def test_nothing_is_fetched_because_a_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHBANDS_CACHE", str(tmp_path / "empty"))
    card = tmp_path / "card.json"
    specs: list[dict[str, Any]] = [
        {"role": "task", "name": "vision/cifar10"},
        {"role": "task", "name": "text/sst2"},
        {"role": "task", "name": "federated/cifar10"},
        {"role": "task", "name": "federated", "base": "vision/cifar10"},
        {"role": "task", "name": "toy/text", "network": {"name": "transformer"}},
        {"role": "attack", "name": "lws"},
        {"role": "attack", "name": "por", "shadow": "text/sst2"},
        {"role": "trigger", "name": "rewritten", "source": "sst2"},
    ]
    for spec in specs:
        build(spec)
        with pytest.raises(DataUnavailable, match="nothing is fetched"):
            build(spec, origin=card)
    assert not (tmp_path / "empty").exists()


def test_every_free_setting_is_declared_and_one_that_is_not_counts_as_code(tmp_path: Path) -> None:
    undeclared = [
        f"{cls.name}.{name}"
        for cls in listing()
        for name, hint in hints_of(cls).items()  # type: ignore[arg-type]
        if is_free(hint) and not any(name in vars(base).get("free", {}) for base in cls.__mro__)
    ]
    assert not undeclared
    named = {
        f"{cls.name}.{n}" for cls in listing() for n in hints_of(cls) if kind_of(cls, n) == "code" and n in cls.free
    }  # type: ignore[arg-type]
    assert named == {"rewritten.rewriter", "style.rewriter", "syntactic.rewriter"}
    assert kind_of(type(build("sgd")), "whatever") == "code"


@pytest.mark.parametrize("params", [["rewriter"], "rewriter", 3, {"weights": {}}, {"__class__": 1}])
def test_settings_of_another_shape_are_an_error_that_helps(params: Any, tmp_path: Path) -> None:
    with pytest.raises((InputError, BandsError)):
        build({"name": "rewritten", "params": params}, origin=tmp_path / "card.json")


def test_a_folder_is_no_plug_in_by_being_the_current_one(tmp_path: Path) -> None:
    info = tmp_path / "evil-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[torchbands.methods]\nevil = evil_module\n")
    for name in ("evil_module", "rich", "tyro"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path('EXECUTED').touch()")
    source = str(Path(torchbands.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "torchbands", "--allow", "mine:f", "list", "network"],
        env={**os.environ, "PYTHONPATH": source},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "EXECUTED").exists()
