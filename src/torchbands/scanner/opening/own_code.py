"""The user's own code, named by themselves: an importable module, or a file. Nothing that a file says comes here."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torchbands.core.errors import InputError


def is_file(text: str) -> bool:
    """Whether what stands before the colon is a file's path rather than a module's name."""
    path = text.rpartition(":")[0]
    return path.endswith(".py")


def from_file(text: str, flag: str) -> Any:
    """The attribute of `./path/to/file.py:name`. The file's folder is searched last for what the file imports."""
    path_text, _, attribute = text.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise InputError(f"{flag} {text!r}: there is no file {path}", hint="as in ./mynet.py:build")
    name = f"_bands_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look their module up
        folder = str(path.resolve().parent)
        sys.path.append(folder)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise InputError(f"{flag} {text!r}: {path} cannot be run ({type(error).__name__}: {error})") from None
        finally:
            sys.path.remove(folder)
    return attribute_of(sys.modules[name], attribute, flag, text)


def own_attribute(text: str, flag: str) -> Any:
    """What `package.module:name` or `./file.py:name` names."""
    if is_file(text):
        return from_file(text, flag)
    path, colon, attribute = text.partition(":")
    if not colon:
        raise InputError(f"{flag} {text!r} names no function", hint="as in my_module:fit, or ./my_file.py:fit")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise InputError(
            f"{flag} {text!r}: cannot import {path!r} ({error})",
            hint="name a module that is installed or lies in the current folder, or a file: ./my_file.py:fit",
        ) from None
    return attribute_of(module, attribute, flag, text)


def attribute_of(module: ModuleType, attribute: str, flag: str, text: str) -> Any:
    """A dotted attribute of a module."""
    found: Any = module
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        raise InputError(f"{flag} {text!r}: {text.rpartition(':')[0]!r} has no {attribute!r}") from None
    return found
