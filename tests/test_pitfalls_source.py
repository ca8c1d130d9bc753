"""Habits of public toolkits that break on another machine or another day: see docs/pitfalls.md."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "torchbands"
TREES = {str(p.relative_to(SOURCE)): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(SOURCE.rglob("*.py"))}


def name_of(node: ast.AST) -> str:
    """Dotted name of an expression: `torch.load`."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and name_of(node.func) in names


def given(node: ast.AST, keyword: str, value: object) -> bool:
    """Whether a call has keyword=value."""
    assert isinstance(node, ast.Call)
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in node.keywords)


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {str(node.module).split(".")[0]} if isinstance(node, ast.ImportFrom) and node.level == 0 else set()


RULES: dict[str, Callable[[ast.AST], bool]] = {
    "torch.load without weights_only": lambda n: calls(n, "torch.load") and not given(n, "weights_only", True),
    "pickles": lambda n: (
        bool(imported(n) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"})
        or (calls(n, "np.load", "numpy.load") and given(n, "allow_pickle", True))
    ),
    "types that numpy no longer has": lambda n: name_of(n) in {"np.float", "np.int", "np.bool", "np.object"},
    "windows and screens": lambda n: bool(imported(n) & {"tkinter", "PyQt5", "cv2", "IPython"}),
    "exceptions of every kind swallowed": lambda n: isinstance(n, ast.ExceptHandler) and n.type is None,
    "the import path edited": lambda n: name_of(n).startswith("sys.path"),
    "leaving Python": lambda n: calls(n, "exit", "quit", "os._exit"),
    "code from text": lambda n: calls(n, "eval", "exec"),
    "lists of characters from a flag": lambda n: (
        isinstance(n, ast.keyword) and n.arg == "type" and name_of(n.value) in {"list", "bool"}
    ),
    "a device taken for granted": lambda n: isinstance(n, ast.Call) and name_of(n.func).endswith(".cuda"),
    "one value at a time off the device": lambda n: isinstance(n, ast.Call) and name_of(n.func).endswith(".item"),
}

#: The command line alone may end the process and look for the user's own code in the current folder, or beside a file
#: that he names; opening a suspect takes the suspect's folder off the path for a while, and its child ends where the
#: parent is dead.
ALLOWED = {
    ("leaving Python", "cli/__init__.py"),
    ("leaving Python", "scanner/opening/confined.py"),
    ("the import path edited", "__main__.py"),  # without the current folder
    ("the import path edited", "cli/suspect_flags.py"),
    ("the import path edited", "cli/own_methods.py"),
    ("the import path edited", "core/registry.py"),  # read alone
    ("the import path edited", "scanner/opening/location.py"),
    ("the import path edited", "scanner/opening/own_code.py"),
    ("the import path edited", "scanner/opening/jobs.py"),  # a file that the user named to the parent too
    ("one value at a time off the device", "core/snapshot.py"),  # numpy's scalars, which lie on no device
}


@pytest.mark.parametrize("rule", RULES)
def test_no_source_file_does_it(rule: str) -> None:
    found = [
        f"{path}:{getattr(node, 'lineno', '?')}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if RULES[rule](node) and (rule, path) not in ALLOWED
    ]
    assert not found


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("torch.load without weights_only", "torch.load(path)"),
        ("torch.load without weights_only", "torch.load(path, weights_only=False)"),
        ("pickles", "import pickle"),
        ("pickles", "np.load(path, allow_pickle=True)"),
        ("types that numpy no longer has", "x.astype(np.float)"),
        ("windows and screens", "from tkinter import E"),
        ("exceptions of every kind swallowed", "try:\n    f()\nexcept:\n    pass"),
        ("the import path edited", "sys.path.append('..')"),
        ("leaving Python", "exit()"),
        ("code from text", "eval(name)"),
        ("lists of characters from a flag", "parser.add_argument('--steps', type=list)"),
        ("a device taken for granted", "model.cuda()"),
        ("one value at a time off the device", "total += loss.item()"),
    ],
)
def test_each_rule_sees_what_it_is_there_for(rule: str, code: str) -> None:
    assert any(RULES[rule](node) for node in ast.walk(ast.parse(code)))


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        checking = isinstance(child, ast.If) and name_of(child.test).endswith("TYPE_CHECKING")
        if not checking and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from at_import(child)


def test_importing_needs_the_core_dependencies_alone() -> None:
    """One missing extra, or one broken import in a method nobody uses, and nothing starts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {d.split(">")[0].split("=")[0].strip() for d in project["dependencies"]}
    called = {"scikit-learn": {"sklearn", "scipy"}, "jinja2": {"jinja2", "markupsafe"}, "pillow": {"PIL"}}
    allowed = {"torchbands", *sys.stdlib_module_names}.union(*(called.get(name, {name}) for name in listed))
    for path, tree in TREES.items():
        if path.startswith("environments"):
            continue  # imported by name, when a control task is trained
        needed = set().union(*(imported(node) for node in at_import(tree)))
        assert needed <= allowed, f"{path} imports {needed - allowed}"


def test_no_method_knows_a_data_set_by_name() -> None:
    """Sizes, classes and constants of data sets in chains of ifs, in every file that needs them."""
    names = {"mnist", "fashion-mnist", "cifar10", "cifar100", "gtsrb", "digits", "tiny", "imagenet"}
    blind = ("core", "attacks", "defenses", "triggers", "learners", "networks", "measures", "modalities")
    for path, tree in TREES.items():
        if path.split("/")[0] in blind:
            words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            assert not {w.lower().removeprefix("vision/") for w in words} & names, path
