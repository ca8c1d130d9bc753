"""A stand-in for torchvision that lets trojanzoo be imported where torchvision cannot be.

trojanvision imports some forty names from torchvision (weights, network classes, data sets, prototypes that torchvision
itself has since removed) when it is imported, and needs almost none of them to run a defense on a given model. Here
every module `torchvision.*` exists and every name in it is an empty class that takes any arguments. Nothing
of what is timed passes through it: marks are 3x3 or full-size arrays already, and models normalise by themselves.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence

from torch import Tensor


class Placeholder:
    """Any class of torchvision: may be subclassed and constructed, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`transforms.functional.resize` to the size the image has, the only use made of it here."""
    if tuple(image.shape[-2:]) != tuple(size):
        raise NotImplementedError(f"the stand-in resizes nothing: {tuple(image.shape[-2:])} to {tuple(size)}")
    return image


class Module(types.ModuleType):
    def __getattr__(self, name: str) -> type[Placeholder]:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Placeholder,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "torchvision.transforms.functional":
            module.resize = resize  # type: ignore[attr-defined]


def install() -> None:
    """Put the stand-in first, and give matplotlib back the `cm.get_cmap` that it removed in 3.9."""
    import matplotlib
    import matplotlib.cm

    sys.meta_path.insert(0, Finder())
    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[attr-defined]
