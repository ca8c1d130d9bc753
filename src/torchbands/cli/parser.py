"""The command tree, in argparse alone: `bands --help` imports nothing else."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from torchbands import __version__
from torchbands.core.errors import UnknownName

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
_FLAGS_OF = "its own flags; see them with: bands {} NAME --help"


def run(args: Sequence[str]) -> int:
    """Parse and carry out."""
    parser = make_parser()
    _suggest(args)
    with raw_streams():
        given = parser.parse_args(args)
    if not hasattr(given, "calls"):
        parser.print_help()
        return 0
    module, function = str(given.calls).split(":")
    code: int = getattr(importlib.import_module(f"torchbands.cli.{module}"), function)(given)
    return code


def make_parser() -> argparse.ArgumentParser:
    """The whole tree."""
    parser = argparse.ArgumentParser(
        prog="bands",
        description="Plant published backdoor attacks in models you train, find them, remove them, and measure it all.",
        epilog="exit codes: 0 done, and a scan found nothing at or above --fail-on; 1 findings; 2 something went "
        "wrong; 3 inconclusive, not applicable or nothing scanned; 4 wrong usage; "
        "5 repaired, but unproven; 130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bands {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="show where an error came from (any command)")
    parser.add_argument(
        "--allow", action="append", metavar="NAME",
        help="a function (package.module:function), file or folder that a card or grid may name; it is not run or read "
        "because a file says so, but because you do (any command; may be given several times)",
    )  # fmt: skip
    parser.add_argument(
        "--load", action="append", metavar="FILE.py",
        help="a Python file of your own that registers methods: it is run, and they take part as built-in ones do (any "
        "command; may be given several times; no file can ask for it)",
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, calls: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        made.set_defaults(calls=calls)
        return made

    scanning.add_to(commands)
    listing = command("list", "methods:show_list", "list every attack, defense, task and other method")
    listing.add_argument("role", nargs="?", metavar="ROLE", help="only this role: attack, repair, input-detector ...")
    _json(listing)
    show = command("show", "methods:show", "say what a method does, needs and may be set to")
    show.add_argument(
        "name",
        metavar="NAME",
        help="a name, role/name where two roles share one, or what a report prints: 'i-bau(rounds=1)'",
    )
    _json(show)
    for name, about in (
        ("attack", "train a model with a planted backdoor and measure what it does"),
        ("defend", "run a defense on a victim made by `bands attack`"),
    ):
        made = command(name, f"attack_defend:{name}", about)
        made.add_argument("name", metavar="NAME", help=f"see: bands list{' attack' if name == 'attack' else ''}")
        made.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help=_FLAGS_OF.format(name))
    _bench(commands)
    _data(commands)
    _json(command("doctor", "doctor:doctor", "say what is installed, which device is used and which data is here"))
    return parser


def _bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser("bench", help="run a benchmark, resume it, report it", allow_abbrev=False)
    verbs = bench.add_subparsers(metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run", help="run a preset or a grid file; the same command again resumes", allow_abbrev=False
    )
    run.add_argument("grid", metavar="PRESET|FILE", help="a preset's name, or a JSON file")
    run.add_argument("--store", metavar="DIR", required=True, help="where the results are kept")
    run.add_argument("--seeds", type=int, metavar="N", help="use seeds 0..N-1 in place of the grid's own")
    run.add_argument("--no-report", action="store_true", help="do not write DIR/report.* at the end")
    run.set_defaults(calls="bench:run")
    status = verbs.add_parser("status", help="how much of a store is finished", allow_abbrev=False)
    status.add_argument("store", metavar="DIR")
    status.set_defaults(calls="bench:status")
    report = verbs.add_parser("report", help="write the report of a store", allow_abbrev=False)
    report.add_argument("store", metavar="DIR")
    report.add_argument(
        "-o", "--out", metavar="FILE", help="file or directory to write, or - for stdout (default: DIR/report.*)"
    )
    report.add_argument(
        "--format",
        metavar="LIST",
        help="of html, markdown, json, csv (every number, one a row) and latex (tables for a paper); default: the "
        "first three, or the suffix of FILE",
    )
    report.set_defaults(calls="bench:report")
    for verb in (run, status):
        _json(verb)


def _data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = commands.add_parser("data", help="list, fetch and find the real data sets", allow_abbrev=False)
    verbs = data.add_subparsers(metavar="COMMAND", required=True)
    listing = verbs.add_parser("list", help="which data sets there are, and which are here", allow_abbrev=False)
    listing.set_defaults(calls="data:show_list")
    _json(listing)
    for name, about in (("get", "fetch and verify a data set"), ("path", "print where a data set is cached")):
        verb = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
        verb.add_argument("name", metavar="NAME", help="of `bands data list`; get knows minilm and wordnet too")
        verb.set_defaults(calls=f"data:{name}")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")


def _suggest(args: Sequence[str]) -> None:
    """Refuse an unknown command with the nearest one, which argparse does not."""
    if args and not args[0].startswith("-"):
        if args[0] not in _COMMANDS:
            raise UnknownName("command", args[0], _COMMANDS, hint="see: bands --help")
        group = _GROUPS.get(args[0], ())
        if group and len(args) > 1 and not args[1].startswith("-") and args[1] not in group:
            raise UnknownName(f"command of bands {args[0]}", args[1], group)
