"""A tokenizer.json that cannot blow up a text: what it may write for one character is computed before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .trouble import malformed

#: Characters that normalisation may make of one; compatibility forms make 18 of some.
MAX_GROWTH = 64
#: A repetition of what itself repeats: takes time that grows as a power, or worse, with the text.
_NESTED = re.compile(r"\([^()]*[+*][^()]*\)[+*{]")


def check(table: Mapping[str, Any]) -> None:
    """Raises Trouble for rewriting that multiplies, and for patterns whose time is not bounded by the text."""
    growth = _growth(table.get("normalizer"), 0) * _growth(table.get("pre_tokenizer"), 0)
    if growth > MAX_GROWTH:
        raise malformed(f"tokenizer.json may write {growth:,} characters for one; the most is {MAX_GROWTH}")


def _growth(part: Any, depth: int) -> int:
    if depth > 16:
        raise malformed("tokenizer.json nests its steps too deeply")
    if not isinstance(part, Mapping):
        return 1
    grown = 1
    for name in ("normalizers", "pretokenizers"):
        steps = part.get(name)
        for step in steps if isinstance(steps, list) else []:
            grown = min(grown * _growth(step, depth + 1), 1 << 40)
    pattern = part.get("pattern")
    said = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    if isinstance(said, str) and (len(said) > 2000 or _NESTED.search(said)):
        raise malformed("tokenizer.json has a pattern whose time is not bounded by the text")
    for name in ("content", "prepend", "replacement"):
        if isinstance(text := part.get(name), str):
            grown = min(grown * max(1, len(text)), 1 << 40)
    return grown
