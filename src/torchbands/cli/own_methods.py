"""`--load FILE.py`: registers the methods of a user's own file for the duration of one command.

The file is run with the user's rights, so it can only be named on the command line, never in a card, a grid or a
suspect.toml (see `core.outside`).
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from torchbands.core.errors import BandsError, InputError

#: The --load arguments of this command, as typed; printed follow-up commands repeat them.
LOADED: list[str] = []


def load(name: str) -> ModuleType:
    """Run a Python file and register its methods.

    Raises InputError where it is no Python file, stops with an error, takes a name that is taken, or has no methods.
    """
    from torchbands.core import registry
    from torchbands.core.method import METHODS

    path = Path(name).expanduser()
    if path.suffix != ".py" or not path.is_file():
        known = "is not a Python file" if path.exists() else "is not there"
        raise InputError(f"--load {name}: {known}", hint="as in: bands --load my_method.py list")
    path = path.resolve()
    registry.discover_plug_ins()  # first, so that a name that is taken is refused here and not later
    before = set(METHODS)
    module = _module(path)
    if before == set(METHODS) and not any(cls.__module__ == module.__name__ for cls in METHODS.values()):
        raise InputError(
            f"--load {name}: it registers no method",
            hint='a class becomes one by @torchbands.method("its-name"): see docs/extend.md',
        )
    LOADED.append(name)
    return module


def _module(path: Path) -> ModuleType:
    """The file as a module, run once; what lies beside it can be imported, behind everything that is installed."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    name = _name_of(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # where pickling, typing and the help of a method's settings look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, BandsError) or not isinstance(error, (Exception, SystemExit)):
            raise
        at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        at = [error.lineno] if isinstance(error, SyntaxError) else at
        line = f", line {at[-1]}" if at and at[-1] else ""
        raise InputError(
            f"--load {path.name}{line}: {type(error).__name__}: {error}",
            hint="run it alone to see more: python FILE.py",
        ) from error
    return module


def _name_of(path: Path) -> str:
    """The file's own name, where no other module has it: `--arch FILE:factory` then finds the same module."""
    taken = path.stem in sys.modules
    if path.stem.isidentifier() and not taken:
        found = importlib.util.find_spec(path.stem)
        if found is None or found.origin == str(path):
            return path.stem
    return f"own_{''.join(c if c.isalnum() else '_' for c in path.stem)}"
