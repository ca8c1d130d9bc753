"""Where the report of a scan goes, in which formats, and the exit code that follows from it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import BandsError, InputError, UnknownName, Unsupported

from . import console

if TYPE_CHECKING:
    from torchbands.scanner.alerts import Level
    from torchbands.scanner.outcome import Outcome

_SUFFIX = {".txt": "text", ".json": "json", ".sarif": "sarif", ".xml": "junit", ".html": "html", ".htm": "html",
           ".md": "markdown", ".markdown": "markdown"}  # fmt: skip
#: Flags and arguments that name what is read.
_READ = ("suspect", "source", "inputs", "model", "data", "clean", "guard", "refs", "like", "settings", "baseline",
         "labels", "train", "arch")  # fmt: skip
#: Files that a command writes into a folder beside its reports, by their names.
_INDEX = frozenset({"scores.csv", "cleaned.csv", "cleaned.txt", "inputs.csv"})
#: What a folder is given when no format is named.
_FOLDER = ("html", "json")


@dataclass(frozen=True)
class Reports:
    """What to write, read from the flags before any work is done.

    Attributes:
        files: (format, file) pairs. screen: the format on stdout.
        known: fingerprints that the baseline accepts. keep: where to write a new baseline.
    """

    files: tuple[tuple[str, Path], ...] = ()
    screen: str = "text"
    fail_on: Level = "medium"
    known: frozenset[str] = frozenset()
    keep: Path | None = None

    @classmethod
    def of(cls, given: argparse.Namespace, *, out: str | None = None) -> Reports:
        """From --format, --json, --fail-on, --baseline, --write-baseline, and `out` (-o, where that is for reports).

        Raises InputError or UnknownName for flags that contradict each other and for a baseline that cannot be read.
        """
        asked = [_split(text) for text in given.format or ()] + ([("json", None)] if given.json else [])
        asked = list(dict.fromkeys(asked))
        files = [(kind, Path(name)) for kind, name in asked if name is not None]
        loose = [kind for kind, name in asked if name is None]
        if out is not None:
            loose_files, loose = _placed(out, loose)
            files += loose_files
        if len(loose) > 1:
            raise InputError(
                f"only one format can go to stdout, got {', '.join(loose)}",
                hint=f"give the others a file, as in --format {loose[1]}=FILE, or name a folder with -o DIR/",
            )
        twice = {path for _, path in files if [p for _, p in files].count(path) > 1}
        if twice:
            raise InputError(f"two formats would be written to {min(twice)}", hint="name a file for each")
        baseline, keep = given.baseline, given.write_baseline
        spare_inputs(given, [path for _, path in files])
        if keep and not (baseline and _same(Path(keep), Path(baseline))):
            spare_inputs(given, [Path(keep)])
        return cls(
            tuple(files),
            loose[0] if loose else "text",
            given.fail_on,
            read_baseline(Path(baseline)) if baseline else frozenset(),
            Path(keep) if keep else None,
        )

    def deliver(self, outcome: Outcome) -> int:
        """Write every report, print one, and return the exit code.

        Raises BandsError where a report cannot be written, after the others have been.
        """
        from torchbands.report.scan import render

        judged = outcome.accepting(self.known)
        try:
            self._write(lambda kind: render(judged, kind, fail_on=self.fail_on))
            if self.keep is not None:
                write_baseline(self.keep, outcome, self.known)
        finally:
            _print(render(judged, self.screen, fail_on=self.fail_on))
            if self.screen != "text":
                console.note(_said(judged))
        return judged.exit_code(self.fail_on)

    def guarded(self, work: Callable[[], Outcome], kind: str, path: str) -> int:
        """`deliver` what the work gives. Where it fails, but for wrong usage, the files say so before it is raised."""
        try:
            outcome = work()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a library's panic is no Exception
            if isinstance(error, (InputError, UnknownName)) and not isinstance(error, Unsupported):
                raise
            self._failed(kind, path, error)
            raise
        return self.deliver(outcome)

    def _failed(self, kind: str, path: str, error: BaseException) -> None:
        if not self.files:
            return
        from torchbands import __version__
        from torchbands.core.errors import NotApplicable
        from torchbands.report.scan import render
        from torchbands.scanner.outcome import Outcome, Subject

        said = f"{type(error).__name__}: {error}"
        declined = isinstance(error, (NotApplicable, Unsupported))
        outcome = Outcome(Subject(kind, path), reasons=(said,), version=__version__)
        self._write(lambda format: render(outcome, format, fail_on=self.fail_on, error="" if declined else said))

    def _write(self, text_of: Callable[[str], str]) -> None:
        failed: list[BandsError] = []
        for kind, path in self.files:
            try:
                write_whole(path, text_of(kind))
            except BandsError as error:
                failed.append(error)
        if failed:
            raise failed[0]


def spare_inputs(given: argparse.Namespace, outputs: Iterable[Path]) -> None:
    """Raises InputError where a report would be written over a file that the same command reads.

    That is a file that a flag names, or any file in a folder that one names, but for earlier reports that lie there.
    """
    inputs = list(_inputs(given))
    for path in outputs:
        for source in inputs if os.path.lexists(path) else ():
            within = source.is_dir() and path.resolve().is_relative_to(source.resolve())
            if _same(path, source) or (within and not _is_ours(path)):
                raise InputError(
                    f"{path} is read by this command ({source}): a report would overwrite it",
                    hint="name another place for the report",
                )


def _is_ours(path: Path) -> bool:
    """Whether a file is a report, or an index that is written beside one."""
    if path.name in _INDEX or not path.is_file():
        return path.name in _INDEX
    text = path.read_bytes()[: 1 << 22].decode("utf-8", "replace")
    if path.suffix.lower() == ".json":
        return text.lstrip().startswith("{") and '"verdict"' in text and '"ledger"' in text
    return path.suffix.lower() in _SUFFIX and "torchbands" in text


def _inputs(given: argparse.Namespace) -> Iterator[Path]:
    """Files and folders that the command line names to be read."""
    for name in _READ:
        value = getattr(given, name, None)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(text, str):
                continue
            place = text.rpartition(":")[0] if ".py:" in text else text
            try:
                if place and os.path.lexists(place):
                    yield Path(place)
            except ValueError:  # a JSON spec is no path
                continue


def _same(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
    except OSError:
        return False


def read_baseline(path: Path) -> frozenset[str]:
    """The fingerprints in a JSON list.

    Raises InputError where it is no such list.
    """
    from torchbands.zoo.files import read_text

    try:
        found: Any = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the baseline {path} cannot be read ({error})", hint="make one with --write-baseline FILE"
        ) from None
    if not isinstance(found, list) or not all(isinstance(f, str) for f in found):
        raise InputError(
            f"the baseline {path} is not a JSON list of fingerprints", hint="make one: --write-baseline FILE"
        )
    return frozenset(found)


def write_baseline(path: Path, outcome: Outcome, known: frozenset[str]) -> None:
    """All fingerprints of an outcome, with those accepted before."""
    if outcome.alerts and not outcome.subject.sha256:
        raise BandsError("a finding on something without a hash cannot be accepted: its fingerprint would fit anything")
    found = {alert.fingerprint(outcome.subject.sha256) for alert in outcome.alerts}
    write_whole(path, json.dumps(sorted(found | known), indent=1) + "\n")
    console.note(f"{len(found | known)} fingerprints in the baseline {path}")


def write_whole(path: Path, text: str) -> None:
    """Write under a temporary name, flush, rename: the file is whole or as it was.

    Raises BandsError where it cannot be written.
    """
    from torchbands.zoo.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise BandsError(f"{path} cannot be written: {error.strerror}", hint="name another place") from error


def _split(text: str) -> tuple[str, str | None]:
    from torchbands.report.scan import FORMATS

    kind, equals, name = text.partition("=")
    if kind not in FORMATS:
        raise UnknownName("format of a scan report", kind, FORMATS)
    if equals and not name:
        raise InputError(f"--format {text} names no file", hint=f"as in --format {kind}=FILE")
    return kind, name if equals else None


def folder_of(out: str | None) -> Path | None:
    """The folder that -o names, where it names one: it is there, ends with a slash, or has no suffix."""
    if out is None or not (Path(out).is_dir() or out.endswith(("/", os.sep)) or not Path(out).suffix):
        return None
    return Path(out)


def _placed(out: str, loose: list[str]) -> tuple[list[tuple[str, Path]], list[str]]:
    """The formats without a file of their own, into a folder, or the only one into a file."""
    from torchbands.report.scan import SUFFIXES

    path, folder = Path(out), folder_of(out)
    if folder is not None:
        return [(kind, folder / f"scan.{SUFFIXES[kind]}") for kind in loose or _FOLDER], []
    if len(loose) > 1:
        raise InputError(f"-o {out} is one file for {len(loose)} formats", hint="name a folder: -o DIR/")
    kind = loose[0] if loose else _SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise UnknownName("suffix of a report", path.suffix, _SUFFIX)
    return [(kind, path)], []


def _said(outcome: Outcome) -> str:
    from torchbands.report.scan.formatting import TITLES, plain

    return f"{TITLES[outcome.verdict]}: {plain(outcome.sentence())}"


def _print(text: str) -> None:
    """As UTF-8 even where the terminal's encoding cannot say it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
