"""Names, specs and the help that a typo gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import pytest

from torchbands.core import registry
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import Method, key_of, method
from torchbands.core.method_index import FOLDERS, ROOT, Entry, built_in
from torchbands.core.registry import build, find, listing, roles
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@pytest.fixture
def scratch() -> Iterator[None]:
    """Methods registered inside a test are forgotten after it."""
    registry.discover()
    before = dict(registry._methods)
    yield
    registry._methods.clear()
    registry._methods.update(before)


@pytest.mark.parametrize("cls", listing(), ids=lambda c: f"{c.role}/{c.name}")
def test_every_method_comes_back_from_json(cls: type[Method]) -> None:
    made = cls()
    assert build(json.loads(json.dumps(made.spec()))) == made


def test_the_index_of_the_source_says_what_the_classes_say() -> None:
    index = {(entry.role, entry.name): entry for entry in built_in()}
    assert len(index) == len(built_in()) > 100
    ours = [cls for cls in listing() if cls.__module__.startswith("torchbands.")]
    assert {(cls.role, cls.name): Entry.of(cls) for cls in ours} == index


def test_every_module_that_registers_a_method_lies_where_the_index_looks() -> None:
    registered = {
        path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if "\n@method(" in path.read_text("utf-8")
    }
    assert registered <= set(FOLDERS)


def test_a_built_in_name_is_taken_before_its_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.discover_plug_ins()
    monkeypatch.delitem(registry._methods, ("trigger", "patch"))
    with pytest.raises(InputError, match="registered twice: by torchbands.triggers.image"):

        @method("patch")
        class _(Trigger):
            """Another patch."""


def test_settings_survive_json_with_their_types() -> None:
    spec = {
        "name": "toy/image",
        "ways": 3,
        "network": {"name": "small-cnn", "widths": [4, 8]},
        "learner": {"name": "sgd", "lr": 1, "epochs": 2},
    }
    task = build(spec)
    assert isinstance(task, Task)
    assert task.network.widths == (4, 8) and isinstance(task.learner.lr, float)  # type: ignore[attr-defined]
    back = build(json.loads(json.dumps(task.spec())))
    assert back == task and back.key() == task.key() and hash(back) == hash(task)
    assert "network=small-cnn(widths=(4, 8))" in task.label() and build("toy/image").label() == "toy/image"


def test_keys_are_those_that_finished_results_are_found_by() -> None:
    """They change with a method's version or settings, and never because code moved."""
    keys = {name: build(name).key() for name in ("vision/fashion-mnist", "badnets", "sgd")}
    assert keys == {"vision/fashion-mnist": "59fd616bab2e", "badnets": "ef47b43c8212", "sgd": "2e6e21e692d3"}


def test_a_name_can_carry_its_role_and_a_method_is_itself() -> None:
    assert find("attack/badnets") is find("badnets") is find("badnets", "attack")
    made = build("badnets")
    assert build(made) is made and "attack" in roles()


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("badnet", UnknownName, "Did you mean 'badnets'"),
        ("toy/imgae", UnknownName, "Did you mean 'toy/image'"),
        ({"name": "badnets", "rat": 0.1}, UnknownName, "unknown setting of badnets 'rat'. Did you mean 'rate'"),
        ({"name": "badnets", "labels": "all-to-on"}, UnknownName, "Did you mean 'all-to-one'"),
        ({"name": "badnets", "rate": "much"}, InputError, "badnets.rate is float, got 'much'"),
        ({"name": "badnets", "target": 1.5}, InputError, "badnets.target is int, got 1.5"),
        ({"name": "badnets", "target": True}, InputError, "badnets.target is int, got True"),
        ({"name": "badnets", "rate": 2}, InputError, "rate is a fraction in [0, 1], got 2.0"),
        ({"name": "badnets", "version": 99}, InputError, "badnets spec is of version 99, installed is 1"),
        ({"name": "toy/image", "learner": "small-cnn"}, InputError, "learner is Learner, got 'small-cnn'"),
        ({"no": "name"}, InputError, "a method spec is a name or an object with 'name'"),
        (7, InputError, "got 7"),
    ],
)
def test_what_is_wrong_is_said(spec: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        build(spec)  # type: ignore[arg-type]
    assert said in str(raised.value)


def test_an_unknown_role_is_helped() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'attack'"):
        listing("atack")


def test_changing_a_setting_is_checked_by_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'rate'"):
        build("badnets").but(raet=0.1)
    assert build("badnets").but(rate=0.2).key() != build("badnets").key()


def test_one_name_in_two_roles_must_be_said_with_its_role(scratch: None) -> None:
    @method("badnets")
    class Other(Trigger):
        """A trigger of an attack's name."""

    with pytest.raises(InputError, match="'badnets' names 2 methods"):
        find("badnets")
    assert find("trigger/badnets") is Other


def test_a_name_taken_by_another_module_is_refused(scratch: None) -> None:
    Stolen = type("Stolen", (Trigger,), {"__doc__": "A thief.", "__module__": "elsewhere"})
    with pytest.raises(InputError, match=r"registered twice: by torchbands\.triggers\.image and elsewhere"):
        method("patch")(Stolen)


def test_a_need_that_nobody_can_meet_is_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'gradients'"):
        method("x", needs=("gradient",))


def test_a_setting_that_is_not_plain_cannot_be_saved(scratch: None) -> None:
    @method("test-odd")
    class Odd(Trigger):
        """Holds what it should not."""

        thing: object = object()

    with pytest.raises(InputError, match="must be plain"):
        Odd().spec()


def test_unions_choices_and_options_are_read(scratch: None) -> None:
    @method("test-typed")
    class Typed(Trigger):
        """Many kinds of setting."""

        maybe: int | None = None
        either: Literal["a", "b"] = "a"
        number: float | str = 0.0
        pair: tuple[int, str] = (0, "")

    made = build({"name": "test-typed", "maybe": 3, "either": "b", "number": 2, "pair": [1, "x"]})
    assert (made.maybe, made.either, made.number, made.pair) == (3, "b", 2.0, (1, "x"))  # type: ignore[attr-defined]
    for wrong in ({"maybe": "3"}, {"pair": [1]}, {"pair": ["x", 1]}):
        with pytest.raises(InputError, match="test-typed"):
            build({"name": "test-typed", **wrong})


def test_keys_are_canonical() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1}) != key_of({"a": 1, "b": [2, 1]})
    assert len(key_of({})) == 12
