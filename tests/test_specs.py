"""What a report prints of a method is read back: by Python, by the command line, by a grid, and never as code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchbands import UnsafeFile, allowing, bench, build
from torchbands.cli import main
from torchbands.core.errors import BandsError, InputError, UnknownName
from torchbands.core.method import Method, hints_of
from torchbands.core.registry import listing
from torchbands.core.spec_text import DEEPEST, read, spelled

ODD = (
    *("", "two words", "a, b", "(x)", "it's", 'say "so"', "line\nbreak", "5", "1e3", "nan", "-inf", "True", "None"),
    *(
        "a=b",
        "[1]",
        "ü \u202e",
        "\\",
        "/a/folder",
        "~/x.csv",
        "C:\\data",
        "package.module:function",
        "-x",
        "all-to-all",
    ),
)


def other(cls: type[Method], name: str, value: Any) -> Any:
    """A setting that differs from its default, of the same type."""
    hint = hints_of(cls)[name]  # type: ignore[arg-type]
    if typing.get_origin(hint) is typing.Literal:
        return next((v for v in typing.get_args(hint) if v != value), value)
    if isinstance(value, Method):
        made = dataclasses.fields(value)
        return next((changed(value, f.name) for f in made if changed(value, f.name) != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return "it's (odd), 5"
    return ("a, b", "5") if hint == tuple[str, ...] else value


def changed(method: Method, name: str) -> Method:
    """The method with one setting changed where it may be; some values are refused."""
    if name not in hints_of(type(method)):  # type: ignore[arg-type]
        return method
    try:
        return method.but(**{name: other(type(method), name, getattr(method, name))})
    except BandsError:
        return method


@pytest.mark.parametrize("cls", listing(), ids=lambda c: f"{c.role}/{c.name}")
def test_what_is_printed_of_every_method_is_read_back(cls: type[Method]) -> None:
    made = cls()
    for field in dataclasses.fields(cls):
        one = changed(made, field.name)
        assert build(one.label(), cls.role) == one
        assert build(f"{cls.role}/{one.label()}") == one
        try:  # all together: what one line of a report may hold
            made = made.but(**{field.name: getattr(one, field.name)}) if one != cls() else made
        except BandsError:
            continue
    assert build(made.label(), cls.role) == made and build(json.loads(json.dumps(made.spec()))) == made


@pytest.mark.parametrize("text", ODD)
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert read(f"x(a={spelled(text)}, b=({spelled(text)},))")["params"] == {"a": text, "b": [text]}
    made = build("add-sentence").but(sentence=text or "x")
    assert build(made.label()) == made


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=8))  # fmt: skip
def test_any_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert read(f"x(a={spelled(value)})")["params"]["a"] == value


@given(st.text(alphabet="ab-1.,=()[]'\"\\ \n") | st.text())
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BandsError):
        build(f"i-bau({text}")
    with contextlib.suppress(BandsError):
        read(text)


def test_a_path_with_backslashes_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert read(r"x(a='C:\data')")["params"] == {"a": r"C:\data"} and not recwarn.list


def test_methods_lie_in_methods() -> None:
    made = build("toy/image(network=small-cnn(widths=(4, 8)), learner=sgd(lr=1, epochs=2, schedule='cosine'), ways=3)")
    assert made == build(
        {
            "name": "toy/image",
            "ways": 3,
            "network": {"name": "small-cnn", "widths": [4, 8]},
            "learner": {"name": "sgd", "lr": 1, "epochs": 2, "schedule": "cosine"},
        }
    )
    for text in ("i-bau()", "i-bau( rounds = 1 , lr=1e-4, )", "repair/i-bau(search-lr=2)", "toy/image(learner=sgd)"):
        assert build(text).name in text
    assert build("chain(first=patch(size=2), second=blend)") != build("chain")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("i-bua(rounds=1)", UnknownName, "Did you mean 'i-bau'"),
        ("i-bau(round=1)", UnknownName, "Did you mean 'rounds'"),
        ("i-bau(rounds=1.5)", InputError, "i-bau.rounds is int, got 1.5"),
        ("i-bau(rounds=1", InputError, "expected ',' or ')' there"),
        ("i-bau(rounds=1))", InputError, "expected the end there"),
        ("i-bau(rounds)", InputError, "expected '=' and the value of rounds there"),
        ("i-bau(rounds=)", InputError, "expected a value there"),
        ("i-bau(rounds=1 lr=2)", InputError, "expected ',' or ')' there"),
        ("i-bau(rounds=1, rounds=2)", InputError, "rounds is set twice"),
        ("i-bau(rounds='1)", InputError, "no closing quote"),
        ("i-bau(1)", InputError, "expected '=' and the value of 1 there"),
        ("toy/image(learner=small-cnn)", InputError, "learner is Learner, got 'small-cnn'"),
        ("i-bau(rounds=(" + "(" * 2 * DEEPEST, InputError, f"more than {DEEPEST} deep"),
        ("chain(first=" * 2 * DEEPEST, InputError, f"more than {DEEPEST} deep"),
        ("i-bau(rounds=__import__('os').system('x'))", InputError, "expected"),
        ("i-bau(rounds=1+1)", InputError, "i-bau.rounds is int, got '1+1'"),
        ("i-bau(rounds=[1 for x in y])", InputError, "expected ',' or ']' there"),
        ("i-bau (rounds=1)", InputError, "expected '(' right after the name"),
        ("toy/image(learner=sgd (lr=1))", InputError, "expected '(' right after the name"),
        (r"add-sentence(sentence='\x')", InputError, "cannot read the text"),
        ("add-sentence(sentence='a\nb')", InputError, "cannot read the text"),
        ("add-sentence(sentence='a\0b')", InputError, "cannot read the text"),
        ("(i-bau)", UnknownName, "unknown method ''"),
        ("", UnknownName, "unknown method ''"),
    ],
)
def test_what_is_not_spelled_so_is_refused_with_the_place(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        build(text)
    assert said in str(raised.value) and "Traceback" not in str(raised.value)


def test_a_spelled_method_of_a_file_names_no_more_than_an_object_does(tmp_path: Path) -> None:
    spec = "syntactic(rewriter=subprocess:getoutput)"
    assert build(spec).rewriter == "subprocess:getoutput"  # type: ignore[attr-defined]  # the user's own words
    with pytest.raises(UnsafeFile, match="a function to be run"):
        build(spec, origin=tmp_path / "card.json")
    grid = {"tasks": ["toy/text"], "attacks": [spec], "seeds": [0]}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    with pytest.raises(UnsafeFile, match=r"grid\.json"):
        bench.load_grid(tmp_path / "grid.json")
    inner = "rewritten(rewriter=subprocess:getoutput)"
    for text in (f"chain(first={inner}, second=patch)", {"name": "chain", "first": inner, "second": "patch"}):
        with pytest.raises(UnsafeFile):  # also where it lies in another
            build(text, origin=tmp_path / "card.json")
    with allowing("subprocess:getoutput"):
        assert bench.load_grid(tmp_path / "grid.json").attacks[1].label() == spec


def test_a_grid_reads_what_a_report_prints(tmp_path: Path) -> None:
    spelled_so = {"tasks": ["toy/image(ways=3)"], "attacks": ["badnets(rate=0.2)"], "defenses": ["i-bau(rounds=1)"]}
    objects = {
        "tasks": [{"name": "toy/image", "ways": 3}],
        "attacks": [{"name": "badnets", "rate": 0.2}],
        "defenses": [{"name": "i-bau", "rounds": 1}],
    }
    assert bench.load_grid(spelled_so) == bench.load_grid(objects)


def test_show_takes_a_spec_and_prints_a_command_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "i-bau(rounds=1)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rounds = next(line for line in lines if line.startswith("--rounds"))
    assert rounds.split()[2:4] == ["5", "1"] and "bands defend 'i-bau(rounds=1)' VICTIM" in lines[-1]
    assert main(["show", "i-bau(rounds=1)", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spec"]["params"]["rounds"] == 1 == next(s for s in told["settings"] if s["name"] == "rounds")["here"]
    assert main(["show", "i-bau"]) == 0 and " here " not in capsys.readouterr().out
    assert main(["show", "i-bau(round=1)"]) == 4 and "Did you mean 'rounds'" in capsys.readouterr().err


def test_attack_and_defend_take_specs_and_flags_go_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "v")
    task = "toy/image(learner=sgd(epochs=1))"
    assert main(["attack", "badnets(rate=0.3, target=1)", "--rate", "0.2", "--task", task, "-o", out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attack"]["params"]["rate"] == 0.2 and told["attack"]["params"]["target"] == 1
    assert told["task"]["params"]["learner"]["params"]["epochs"] == 1
    assert main(["defend", "fine-pruning(epochs=1)", out]) == 0
    assert capsys.readouterr().out.startswith("fine-pruning(epochs=1) (repair) on badnets(rate=0.2, target=1)")
    assert main(["defend", "fine-prunin(epochs=1)", out]) == 4
    assert "Did you mean 'fine-pruning'" in capsys.readouterr().err
