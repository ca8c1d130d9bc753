"""Words marked in what a modality drew of a row, so that a reader sees where a trigger stands."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from torchbands.core.words import escaped

#: Words that are marked in one row, at most.
MOST = 20
_TAG = re.compile(r"(<[^>]*>)")
#: How tokenizers write that a token goes on within a word, or begins one.
_WITHIN, _BEGINS = "##", ("Ġ", "▁")


def marked(fragment: str, words: Iterable[str]) -> str:
    """The fragment with every occurrence of these words inside <mark>, whatever their case; tags stay as they are."""
    patterns = [p for word in list(dict.fromkeys(words))[:MOST] if (p := _pattern(word))]
    if not patterns:
        return fragment
    any_of = re.compile("|".join(sorted(patterns, key=len, reverse=True)), re.IGNORECASE)
    parts = _TAG.split(fragment)
    return "".join(
        part if part.startswith("<") else any_of.sub(lambda m: f"<mark>{m[0]}</mark>", part) for part in parts
    )


def _pattern(word: str) -> str:
    within = word.startswith(_WITHIN)
    bare = word.removeprefix(_WITHIN)
    for sign in _BEGINS:
        bare = bare.removeprefix(sign)
    bare = bare.strip()
    if not bare:
        return ""
    found = re.escape(html.escape(escaped(bare)))
    before = "" if within or not bare[0].isalnum() else r"(?<![\w&#])"
    return before + found + (r"(?!\w)" if bare[-1].isalnum() else "")
