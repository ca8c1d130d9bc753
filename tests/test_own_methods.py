"""`--load FILE.py`: the user's own file brings methods; no other file can."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchbands.cli import main
from torchbands.core import registry

OWN = '''
"""A repair of one's own."""
from helper_beside import FACTOR
from torchbands import Model, Data, Repair, method


@method("{name}", paper="nobody, 2026")
class Own(Repair):
    """Does nothing, at length."""

    strength: float = FACTOR
    """How much nothing is done."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        return model.clone()
'''


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test loads is gone after it."""
    registry.discover()
    methods, modules, path = dict(registry._methods), set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "helper_beside.py").write_text("FACTOR = 2.5\n")
    yield
    registry._methods.clear()
    registry._methods.update(methods)
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def own(text: str = OWN, name: str = "own-nothing", file: str = "my_own.py") -> str:
    path = Path("mine") / file
    path.write_text(text.replace("{name}", name))
    return str(path)


def test_its_methods_are_listed_shown_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    path = own()
    assert main(["list", "repair", "--load", path]) == 0
    assert "own-nothing" in capsys.readouterr().out
    assert main([f"--load={path}", "show", "own-nothing(strength=3)"]) == 0
    printed = capsys.readouterr().out
    assert "How much nothing is done." in printed and "2.5" in printed and "nobody, 2026" in printed
    assert main(["--load", path, "defend", "own-nothing", "nowhere"]) == 4  # twice is once
    assert "not a victim directory" in capsys.readouterr().err


def test_a_file_with_an_odd_name_or_one_that_is_taken_is_no_other_module(capsys: pytest.CaptureFixture[str]) -> None:
    import json as before

    assert (
        main(["--load", own(name="own-a", file="json.py"), "--load", own(name="own-b", file="my-own 2.py"), "list"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "own-a" in printed and "own-b" in printed and sys.modules["json"] is before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "registers no method"),
        ("x = 1\n\n1 / 0\n", "my_own.py, line 3: ZeroDivisionError"),
        ("def f(:\n", "my_own.py, line 1: SyntaxError"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
        (OWN.replace("{name}", "i-bau"), "repair 'i-bau' is registered twice"),
    ],
)
def test_what_does_not_load_is_told_and_nothing_is_done(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--load", own(text), "list"]) == 4
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == ""


@pytest.mark.parametrize("name", ["nowhere.py", "mine", "mine/notes.txt", ""])
def test_what_is_no_python_file_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/notes.txt").write_text("hello")
    assert main(["list", "--load", name]) == 4
    assert "--load" in capsys.readouterr().err


def test_no_file_can_ask_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    marked = Path("mine/ran")
    path = own(f"open({str(marked.resolve())!r}, 'w')\n")
    spec = {"tasks": ["toy/image"], "attacks": ["badnets"], "seeds": [0]}
    for extra in ({"load": path}, {"--load": path}, {"attacks": [{"name": "badnets", "load": path}]}):
        Path("grid.json").write_text(json.dumps(spec | extra))
        assert main(["bench", "run", "grid.json", "--store", "store"]) == 4
    for name in ("attacks", "tasks"):
        Path("grid.json").write_text(json.dumps(spec | {name: [f"{path}:Own"]}))
        assert main(["bench", "run", "grid.json", "--store", "store"]) == 4
    Path("suspect.toml").write_text(f'load = "{path}"\n')
    Path("model.safetensors").write_bytes(b"x" * 20)
    main(["scan", "model", "model.safetensors"])
    assert not marked.exists()
