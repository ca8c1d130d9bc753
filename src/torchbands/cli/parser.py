"""The command tree. Building it imports argparse alone, so that `bands --help` answers at once."""

from __future__ import annotations

import argparse
import difflib
import importlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from torchbands import __version__
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import DEFENSE_ROLES

from . import scanning
from .streams import raw_streams

_GROUPS = {
    "scan": ("model", "each", "data"),
    "refs": ("train", "add", "show"),
    "guard": ("fit", "check"),
    "bench": ("run", "status", "report"),
    "data": ("list", "get", "path"),
}
_COMMANDS = ("scan", "refs", "guard", "repair", "list", "show", "attack", "defend", "bench", "data", "doctor")


def run(args: Sequence[str]) -> int:
    """Parse and carry out."""
    _suggest(args)
    parser = make_parser(args)
    with raw_streams():
        given, unknown = parser.parse_known_args(args)
        if unknown:
            _refuse(getattr(given, "parser", parser), unknown)
    if not hasattr(given, "calls"):
        parser.print_help()
        return 0
    module, function = str(given.calls).split(":")
    code: int = getattr(importlib.import_module(f"torchbands.cli.{module}"), function)(given)
    return code


def make_parser(args: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole tree.

    Args:
        args: the command line; where it names a method to attack or defend with, its settings become flags.
    """
    parser = argparse.ArgumentParser(
        prog="bands",
        description="Plant published backdoor attacks in models you train, find them, remove them, and measure it all.",
        epilog="exit codes: 0 success, or a scan without findings at or above --fail-on; 1 findings; 2 something went "
        "wrong; 3 inconclusive, not applicable or nothing to scan; 4 wrong usage; "
        "5 repaired but unverified; 130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bands {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print a traceback when something fails (any command)"
    )
    parser.add_argument(
        "--allow", action="append", metavar="NAME",
        help="trust a function (package.module:function), file or folder that a card or grid names; without "
             "this, nothing is "
        "run or read because a file asks for it (any command; repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--load", action="append", metavar="FILE.py",
        help="run a Python file of your own that registers methods, which then work like built-in ones (any command; "
        "repeatable; never taken from a file)",
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, calls: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        made.set_defaults(calls=calls, parser=made)
        return made

    scanning.add_to(commands)
    listing = command("list", "methods:show_list", "list every attack, defense, task and other method")
    listing.add_argument(
        "role", nargs="?", metavar="ROLE", help="list only this role: attack, repair, input-detector, ..."
    )
    _json(listing)
    show = command("show", "methods:show", "show what a method does, what it needs and its settings")
    show.add_argument(
        "name",
        metavar="NAME",
        help="a method's name; role/name where two roles share it; or a label from a report, such as 'i-bau(rounds=1)'",
    )
    _json(show)
    _attack(command("attack", "attack_defend:attack", "train a model with a planted backdoor and measure it"), args)
    _defend(command("defend", "attack_defend:defend", "run a defense on a victim made by `bands attack`"), args)
    _bench(commands)
    _data(commands)
    _json(
        command(
            "doctor",
            "doctor:doctor",
            "show what is installed, which device is used and which data sets are on this machine",
        )
    )
    return parser


def _attack(parser: argparse.ArgumentParser, args: Sequence[str]) -> None:
    parser.add_argument("name", metavar="NAME", help="an attack, with its settings or without: see `bands list attack`")
    parser.add_argument(
        "--task", default="vision/fashion-mnist", metavar="TASK",
        help="a task: its name, name(setting=value), or a JSON object (default: vision/fashion-mnist)",
    )  # fmt: skip
    _seed(parser)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="where the victim is kept (default: victims/TASK-ATTACK-SEED)"
    )
    parser.add_argument(
        "--control", default="train", metavar="train|none|DIR",
        help="the clean model that results on triggered inputs are compared to: trained as well, left out, or "
        "a victim directory of the attack `clean` (default: train)",
    )  # fmt: skip
    _json(parser)
    _settings(parser, args, "attack", ("attack",))


def _defend(parser: argparse.ArgumentParser, args: Sequence[str]) -> None:
    parser.add_argument("name", metavar="NAME", help="a defense, with its settings or without: see `bands list`")
    parser.add_argument("victim", type=Path, metavar="VICTIM", help="a victim directory made by `bands attack`")
    _seed(parser)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="where the repaired model is kept, as a victim directory"
    )
    _json(parser)
    _settings(parser, args, "defend", DEFENSE_ROLES)


def _settings(parser: argparse.ArgumentParser, args: Sequence[str], command: str, roles: Sequence[str]) -> None:
    """Add the settings of the method that is named, and nothing where none is: its module is imported for it."""
    if list(args[:1]) != [command] or len(args) < 2 or args[1].startswith("-"):
        parser.epilog = f"a method's settings are flags too; see them with: bands {command} NAME --help"
        return
    from torchbands.core.registry import build

    from .flags import add_settings

    start = build(args[1], _role(args[1], roles))
    parser.description = textwrap.dedent(type(start).__doc__ or "").split("\n\n")[0]
    parser.set_defaults(start=start)
    add_settings(parser, start)


def _role(text: str, roles: Sequence[str]) -> str:
    """Which of several roles a method has. Raises UnknownName where none has it, InputError where several have."""
    from torchbands.core.registry import entries
    from torchbands.core.spec_text import name_of

    name = name_of(text)
    known = [entry for entry in entries() if entry.role in roles]
    found = [entry for entry in known if name in (entry.name, f"{entry.role}/{entry.name}")]
    if not found:
        kind = "attack" if "attack" in roles else "defense"
        raise UnknownName(kind, name, [entry.name for entry in known], hint="see them all with: bands list")
    if len(found) > 1:
        options = " or ".join(f"{entry.role}/{entry.name}" for entry in found)
        raise InputError(f"{name!r} names {len(found)} defenses", hint=f"say which: {options}")
    return found[0].role


def _bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser("bench", help="run, resume and report a benchmark", allow_abbrev=False)
    verbs = bench.add_subparsers(metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run", help="run a preset or a grid file; run the same command again to resume", allow_abbrev=False
    )
    run.add_argument("grid", metavar="PRESET|FILE", help="a preset's name, or a JSON file")
    run.add_argument("--store", metavar="DIR", required=True, help="where the results are kept")
    run.add_argument("--seeds", type=int, metavar="N", help="use seeds 0 to N-1 instead of the grid's own")
    run.add_argument("--no-report", action="store_true", help="do not write DIR/report.* when finished")
    run.set_defaults(calls="bench:run", parser=run)
    status = verbs.add_parser("status", help="show how much of a benchmark is finished", allow_abbrev=False)
    status.add_argument("store", metavar="DIR")
    status.set_defaults(calls="bench:status", parser=status)
    report = verbs.add_parser("report", help="write the report of a benchmark", allow_abbrev=False)
    report.add_argument("store", metavar="DIR")
    report.add_argument(
        "-o", "--out", metavar="FILE", help="file or directory to write, or - for stdout (default: DIR/report.*)"
    )
    report.add_argument(
        "--format",
        metavar="LIST",
        help="comma-separated: html, markdown, json, csv (one number per row), latex (tables for a paper); "
        "default: the "
        "first three, or the suffix of FILE",
    )
    report.set_defaults(calls="bench:report", parser=report)
    for verb in (run, status):
        _json(verb)


def _data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = commands.add_parser("data", help="list, download and locate data sets", allow_abbrev=False)
    verbs = data.add_subparsers(metavar="COMMAND", required=True)
    listing = verbs.add_parser(
        "list", help="list the data sets, and which of them are on this machine", allow_abbrev=False
    )
    listing.set_defaults(calls="data:show_list", parser=listing)
    _json(listing)
    for name, about in (("get", "download and verify a data set"), ("path", "print where a data set is cached")):
        verb = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
        verb.add_argument(
            "name", metavar="NAME", help="a name from `bands data list`; get also accepts minilm and wordnet"
        )
        verb.set_defaults(calls=f"data:{name}", parser=verb)


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of this run (default: 0)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print only JSON on stdout")


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End as argparse does on a wrong command line, with the nearest flag, which argparse does not name."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    typed = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
    close = difflib.get_close_matches(typed, flags, n=1) if typed else []
    said = f". Did you mean {close[0]}?" if close else ""
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{said}")


def _suggest(args: Sequence[str]) -> None:
    """Refuse an unknown command with the nearest one, which argparse does not."""
    if args and not args[0].startswith("-"):
        if args[0] not in _COMMANDS:
            raise UnknownName("command", args[0], _COMMANDS, hint="see: bands --help")
        group = _GROUPS.get(args[0], ())
        if group and len(args) > 1 and not args[1].startswith("-") and args[1] not in group:
            raise UnknownName(f"command of bands {args[0]}", args[1], group)
