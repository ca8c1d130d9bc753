"""Triggers that rewrite a whole text, or swap its words."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger

_WORD = re.compile(r"\w+(?:'\w+)?")


@method("rewritten", paper="Qi et al., ACL 2021, arXiv:2105.12400")
class Rewritten(Trigger):
    """Rewrites texts in one syntax or style: from stored rewritings, or by a function of the user's.

    A text without a known rewriting stays as it is; `covers` tells which have one.
    """

    free: ClassVar[Free] = {"source": "text", "kind": "text", "rewriter": "code"}

    source: str = ""
    """Text data set whose stored rewritings are used."""
    kind: str = "syntactic"
    """Kind of rewriting: "syntactic" or "bible"."""
    rewriter: str = ""
    """package.module:function of your own that maps a list of texts to as many rewritten texts; replaces the stored
    ones."""

    def absent(self) -> str:
        from torchbands.datasets.rewritten import has_rewrites

        here = self.rewriter or not self.source or has_rewrites(self.source, self.kind)
        return "" if here else f"rewritings of {self.source}"

    def __call__(self, batch: list[str], rng: RowRng) -> list[str]:
        if self.rewriter:
            made = _function(self.rewriter)(list(batch))
            if not isinstance(made, list) or len(made) != len(batch) or not all(isinstance(m, str) for m in made):
                raise InputError(f"{self.rewriter} must give a list of {len(batch)} texts")
            return made
        table = _table(self.source, self.kind)
        return [table.get(text, text) for text in batch]

    def covers(self, batch: list[str]) -> list[bool]:
        """Which texts it can rewrite."""
        if self.rewriter:
            return [True] * len(batch)
        table = _table(self.source, self.kind)
        return [text in table for text in batch]


@lru_cache(maxsize=4)
def _table(source: str, kind: str) -> Mapping[str, str]:
    from torchbands.datasets.rewritten import rewrites

    return {a: b for part in ("test", "train") for a, b in rewrites(source, kind, part)}


@lru_cache(maxsize=4)
def _function(name: str) -> Callable[[list[str]], Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"no rewriter {name!r}: {error}", hint="name yours as package.module:function, importable from here"
        ) from None
    if not callable(found):
        raise InputError(f"{name!r} is not a function")
    made: Callable[[list[str]], Any] = found
    return made


@method("substitute", paper="Qi et al., ACL 2021, arXiv:2106.06361")
class Substitute(Trigger):
    """Replaces every known word by its substitute; punctuation and initial capitals stay."""

    free: ClassVar[Free] = {"replaced": "text", "by": "text"}

    replaced: tuple[str, ...] = ()
    """Words to replace, in lower case."""
    by: tuple[str, ...] = ()
    """Replacement of each of these words."""

    def __call__(self, batch: list[str], rng: RowRng) -> list[str]:
        if len(self.replaced) != len(self.by):
            raise InputError(f"substitute has {len(self.replaced)} words and {len(self.by)} substitutes")
        table = dict(zip(self.replaced, self.by, strict=True))

        def swap(found: re.Match[str]) -> str:
            word = found.group()
            other = table.get(word.lower(), word)
            return other.capitalize() if word.istitle() else other

        return [_WORD.sub(swap, text) for text in batch]
