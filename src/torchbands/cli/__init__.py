"""The command `bands`. Heavy imports are deferred until a command needs them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from torchbands.core.errors import BandsError, InputError, NotApplicable, UnknownName, UnsafeFile, Unsupported

# Threads that wait by spinning made training six times slower as soon as another process wanted a core (measured).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DONE, TOOL_ERROR, DECLINED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 2, 3, 4, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        The exit code: 0 done, 1 findings and nothing else, 2 something went wrong, 3 the method does not apply or the
        file is not read here, 4 wrong usage, 130 interrupted, 129 and 143 told to stop.
    """
    if argv is None:
        for name in ("SIGTERM", "SIGHUP"):
            if number := getattr(signal, name, None):
                signal.signal(number, _stopped)
    from .streams import shown_streams

    with shown_streams():
        return _main(argv)


class Stopped(BaseException):
    """Told to stop by a signal: what is written under a temporary name is removed on the way out."""


def _stopped(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # the second one does not interrupt the tidying up
    raise Stopped(number)


def _main(argv: Sequence[str] | None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    verbose = any(flag in args for flag in ("-v", "--verbose"))
    args = [a for a in args if a not in ("-v", "--verbose")]
    try:
        args, allowed = _named(args, "--allow", "my_module:rewrite, or --allow my-images/")
        args, own = _named(args, "--load", "my_method.py")
        from torchbands.core.outside import allowing

        from .parser import run

        _admit(allowed, own)

        with allowing(*allowed):
            code = run(args)
        sys.stdout.flush()
        return code
    except Unsupported as error:
        return _fail(f"unsupported: {error}", DECLINED, verbose)
    except UnsafeFile as error:  # neither the tool nor the command is at fault: nothing of the file was used
        return _fail(f"refused: {error}", DECLINED, verbose)
    except BandsError as error:
        return _fail(f"error: {error}", USAGE if isinstance(error, (InputError, UnknownName)) else TOOL_ERROR, verbose)
    except NotApplicable as declined:
        return _fail(f"not applicable: {declined.reason}", DECLINED, verbose)
    except SystemExit as stop:  # the parsers' own: 0 after --help, 2 for a wrong command line
        return DONE if stop.code in (0, None) else USAGE
    except KeyboardInterrupt:
        message = "\ninterrupted: finished work is kept; run the same command again to resume"
        code = _fail(message, INTERRUPTED, False)
        if argv is None:  # an import that was interrupted makes the interpreter end by the signal instead of the code
            sys.stderr.flush()
            os._exit(code)
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Stopped as stop:
        message = "stopped: finished work is kept; run the same command again to resume"
        return _fail(message, 128 + int(stop.args[0]), False)
    except BaseException as error:  # some libraries' panics are no Exception, and Python would end with 1: findings
        hint = "" if verbose else "\n  run it again with -v for the traceback; please report this"
        return _fail(f"error: {type(error).__name__}: {error}{hint}", TOOL_ERROR, verbose)


def _named(args: list[str], flag: str, example: str) -> tuple[list[str], list[str]]:
    """The arguments without a flag that every command has, and what it names: the user's own words, of no file."""
    left: list[str] = []
    names: list[str] = []
    given = iter(args)
    for word in given:
        if word == flag and not (name := next(given, "")):
            raise InputError(f"{flag} needs a value", hint=f"as in {flag} {example}")
        if word == flag:
            names.append(name)
        elif word.startswith(f"{flag}="):
            names.append(word.partition("=")[2])
        else:
            left.append(word)
    return left, names


def _admit(allowed: list[str], own: list[str]) -> None:
    """Let in what the user named: modules of the current folder that files may name, and methods of his own files."""
    from .suspect_flags import own_code

    for name in allowed:
        own_code(name)
    if own or "torchbands.cli.own_methods" in sys.modules:
        from .own_methods import LOADED, load

        LOADED.clear()
        for name in own:
            load(name)


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code
