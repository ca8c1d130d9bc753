"""The contract that every method passes, ours or a third party's: rules of form, rules of behaviour, and usefulness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torchbands.core.method import Method
from torchbands.core.registry import build, find, listing
from torchbands.testing.behaviour import confirm, exercise
from torchbands.testing.checks import Outcome
from torchbands.testing.conventions import PUBLISHED, check_form
from torchbands.testing.fixtures import ContractError, demand
from torchbands.testing.toys import MODALITIES

#: Roles whose methods are run on toys, not only looked at.
EXERCISED = (*PUBLISHED, "network")

#: Toys by what training and searching cost there; others after them.
CHEAP = ("observation", "tabular", "text", "image", "code")

Case = tuple[str, Callable[[], None]]


def contract_method(cls: type[Method]) -> Method:
    """A method as the contract runs it: its defaults, except for `contract_settings`."""
    return build({"role": cls.role, "name": cls.name, "params": getattr(cls, "contract_settings", {})})


class _Subject:
    """One method and its results so far, so that no toy is run twice."""

    def __init__(self, cls: type[Method], toys: Sequence[str]) -> None:
        self.cls, self.toys = cls, toys
        self.outcomes: dict[str, Outcome] = {}

    def form(self) -> None:
        check_form(self.cls)

    def run(self, name: str) -> Outcome:
        if name not in self.outcomes:
            again = not any(o.ran for o in self.outcomes.values())
            self.outcomes[name] = exercise(contract_method(self.cls), name, twice=again)
        return self.outcomes[name]

    def useful(self) -> None:
        """It runs on some toy, and on one of those it does what it is for, unless it says why no toy can show it."""
        if getattr(self.cls, "contract_unshown", ""):
            demand(any(self.run(name).ran for name in self.toys), "runs on no toy")
            return
        if getattr(self.cls, "contract_declines", False):
            demand(not any(self.run(name).ran for name in self.toys), "runs on a toy, so contract_declines is wrong")
            return
        seen = {}
        for name in sorted(self.toys, key=lambda name: CHEAP.index(name) if name in CHEAP else len(CHEAP)):
            outcome = confirm(contract_method(self.cls), name, self.run(name))
            if outcome.ran and outcome.useful is not False:
                return
            seen[name] = outcome.seen or f"declined: {outcome.reason}"
        demand(False, "is of use on no toy: " + "; ".join(f"{k}: {v}" for k, v in seen.items()))

    def cases(self) -> list[Case]:
        steps: list[tuple[str, Callable[[], Any]]] = [("form", self.form)]
        if self.cls.role in EXERCISED:
            steps += [(name, lambda name=name: self.run(name)) for name in self.toys]  # type: ignore[misc]
            steps += [("useful", self.useful)]
        return [(f"{self.cls.role}/{self.cls.name}: {what}", self._named(what, step)) for what, step in steps]

    def _named(self, what: str, step: Callable[[], Any]) -> Callable[[], None]:
        def case() -> None:
            try:
                step()
            except ContractError as error:
                raise ContractError(f"{self.cls.role}/{self.cls.name} on {what}: {error}") from error
            except Exception as error:
                said = f"crashed with {error!r}; to decline, raise NotApplicable"
                raise ContractError(f"{self.cls.role}/{self.cls.name} on {what}: {said}") from error

        return case


def _class(given: str | type[Method] | Method) -> type[Method]:
    if isinstance(given, str):
        return find(given)
    return type(given) if isinstance(given, Method) else given


def _toys(cls: type[Method]) -> Sequence[str]:
    """One toy of every modality; those that a method names in `contract_toys` where it is at home in others."""
    return tuple(getattr(cls, "contract_toys", MODALITIES))


def contract_cases(
    methods: Iterable[str | type[Method] | Method] | None = None, tasks: Sequence[str] | None = None
) -> list[Case]:
    """(id, callable) pairs for a test runner; a callable raises ContractError where a rule is broken.

    Args:
        methods: names, classes or instances; None takes every registered method.
        tasks: names of toys; None takes one of every modality.

    A method whose published settings are too slow for a toy may name others for the contract alone:
    `contract_settings: ClassVar[dict[str, Any]] = {"steps": 50}`. One for rare poison may name the poisoned share of
    the toy's rows (otherwise a fifth): `contract_rate: ClassVar[float] = 0.01`. One whose use no toy can show says why:
    `contract_unshown: ClassVar[str] = "its score means something beside reference models only"`. One that
    acts on clients or environments says which toys have them: `contract_toys: ClassVar[tuple[str, ...]] =
    ("federated",)`. An aggregator against clients that send alike says how many do:
    `contract_sybils: ClassVar[int] = 3`. One that needs what no toy has (public weights) declines all of them, with a
    reason: `contract_declines: ClassVar[bool] = True`.
    """
    classes = listing() if methods is None else [_class(m) for m in methods]
    return [case for cls in classes for case in _Subject(cls, tasks or _toys(cls)).cases()]


def check_method(method: str | type[Method] | Method, tasks: Sequence[str] | None = None) -> dict[str, Outcome]:
    """Hold a method to the whole contract and say what it did on each toy.

    Raises ContractError, listing every rule that is broken.
    """
    cls = _class(method)
    subject = _Subject(cls, tasks or _toys(cls))
    broken = []
    for i, (_, case) in enumerate(subject.cases()):
        try:
            case()
        except ContractError as error:
            broken.append(str(error))
            if i == 0:  # a method of the wrong form cannot be run
                break
    if broken:
        raise ContractError("\n".join(broken))
    return dict(subject.outcomes)


def contract_test(
    *methods: str | type[Method] | Method, tasks: Sequence[str] | None = None
) -> Callable[[Callable[[], None]], None]:
    """A pytest test of these methods, or of every registered one: `test_contract = contract_test("my-attack")`.

    Args:
        tasks: names of toys, such as one of your own kind of sample; None takes one of every built-in modality.
    """
    import pytest

    cases = contract_cases(methods or None, tasks)

    @pytest.mark.parametrize("case", [pytest.param(call, id=name) for name, call in cases])
    def test(case: Callable[[], None]) -> None:
        case()

    return test
