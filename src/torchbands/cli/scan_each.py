"""`bands scan each`: several models one after another, as hooks and build servers name them, with one exit code."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torchbands.core.errors import BandsError, InputError, UnknownName, Unspecified, Unsupported
from torchbands.core.words import escaped

from . import console
from .scan import model

FOUND, TOOL_ERROR, INCONCLUSIVE, USAGE = 1, 2, 3, 4
#: Of several exit codes the first of these is told: no error hides a finding, and no pass hides what was not judged.
WORST = (FOUND, TOOL_ERROR, USAGE, INCONCLUSIVE, 0)


def each(given: argparse.Namespace) -> int:
    """Scan every suspect; a file that cannot be read does not keep the others from being looked at."""
    suspects: list[str] = list(dict.fromkeys(given.suspects))
    if len(suspects) > 1:
        _refuse_one_file(given)
    codes = []
    for suspect in suspects:
        if len(suspects) > 1:
            console.note(f"\n{suspect}")
            print(f"== {escaped(suspect)}")
        made = argparse.Namespace(**{k: v for k, v in vars(given).items() if k != "suspects"})
        made.suspect, made.forget = suspect, True
        if given.out is not None and len(suspects) > 1:
            made.out = f"{Path(given.out) / _folder_of(suspect)}/"
        codes.append(_one(made))
        sys.stdout.flush()
    code = next(c for c in WORST if c in codes)
    if len(suspects) > 1:
        told = ", ".join(f"{codes.count(c)} {about}" for c, about in _ABOUT.items() if c in codes)
        console.note(f"\n{len(suspects)} models: {told}")
    return code


_ABOUT = {
    FOUND: "with findings",
    TOOL_ERROR: "with errors",
    USAGE: "that could not be asked for so",
    INCONCLUSIVE: "not judged",
    0: "without a finding",
}


def _one(given: argparse.Namespace) -> int:
    try:
        code = model(given)
    except Unsupported as error:
        return _said(f"unsupported: {error}", INCONCLUSIVE)
    except Unspecified as error:  # its file was read, and has no finding above low
        passes = given.accept_inconclusive and given.fail_on != "low"
        return _said(f"not judged: {error}", 0) if passes else _said(f"error: {error}", USAGE)
    except (InputError, UnknownName) as error:
        return _said(f"error: {error}", USAGE)
    except BandsError as error:
        return _said(f"error: {error}", TOOL_ERROR)
    if code == INCONCLUSIVE and given.accept_inconclusive:
        return _said("nothing was found and nothing is concluded, which --accept-inconclusive lets pass", 0)
    return code


def _said(message: str, code: int) -> int:
    console.note(message)
    return code


def _refuse_one_file(given: argparse.Namespace) -> None:
    """Raises InputError for what several reports would be written to."""
    named = next((f for f in given.format or () if "=" in f), None)
    if named is not None:
        raise InputError(f"--format {named} is one file for several models", hint="name a folder: -o DIR/")
    if given.write_baseline:
        raise InputError("--write-baseline is one file for several models", hint="write one for each: bands scan model")
    if given.out is not None and not given.out.endswith("/") and not Path(given.out).is_dir():
        raise InputError(f"-o {given.out} is one file for several models", hint=f"name a folder: -o {given.out}/")


def _folder_of(suspect: str) -> str:
    """A folder's name for the reports of a suspect, by its path."""
    made = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in suspect).strip("-.")
    return made or "model"
