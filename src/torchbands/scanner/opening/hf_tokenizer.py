"""A tokenizer.json that cannot blow up a text: what it may write for one character is computed before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torchbands.core.errors import Unsupported

from .refusal import malformed, shown

#: Characters that normalisation may make of one; compatibility forms make 18 of some.
MAX_GROWTH = 64
#: Types that answer from a text's last token, which they find by the padding after it.
_LAST = ("gpt2",)
#: A repetition of what itself repeats: takes time that grows as a power, or worse, with the text.
_NESTED = re.compile(r"\([^()]*[+*][^()]*\)[+*{]")


def check(table: Mapping[str, Any]) -> None:
    """Raises Refusal for rewriting that multiplies, and for patterns whose time is not bounded by the text."""
    growth = _growth(table.get("normalizer"), 0) * _growth(table.get("pre_tokenizer"), 0)
    if growth > MAX_GROWTH:
        raise malformed(f"tokenizer.json may write {growth:,} characters for one; the most is {MAX_GROWTH}")


def check_padding(config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises Unsupported for a decoder that cannot tell where a text ends, so that transformers reads one at a time."""
    if config.get("model_type") in _LAST and config.get("pad_token_id") is None:
        name = settings.get("pad_token") or settings.get("eos_token")
        word = (name.get("content") if isinstance(name, Mapping) else name) or "<pad>"
        raise Unsupported(
            "config.json names no pad_token_id, without which this model cannot read texts of different lengths",
            hint=f"say which token it was trained with, such as {shown(word, 40)}: model.config.pad_token_id = "
            f"tokenizer.convert_tokens_to_ids({shown(word, 40)}); model.save_pretrained(FOLDER)",
        )


def differences(table: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What tokenizer_config.json says otherwise than tokenizer.json, which is the one that is obeyed here."""
    said = []
    bert = _step(table.get("normalizer"), "BertNormalizer", 0)
    for name, inner in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents")):
        theirs = settings.get(name)
        if bert is not None and theirs is not None and theirs != bert.get(inner):
            said.append(f"{name} {theirs} (there: {inner} {bert.get(inner)})")
    level = _step(table.get("pre_tokenizer"), "ByteLevel", 0)
    space = settings.get("add_prefix_space")
    if level is not None and isinstance(space, bool) and space != level.get("add_prefix_space"):
        said.append(f"add_prefix_space {space} (there: {level.get('add_prefix_space')})")
    remarks = (
        [f"tokenizer_config.json and tokenizer.json differ, and the latter is obeyed: {'; '.join(said)}"]
        if said
        else []
    )
    if settings.get("truncation_side") == "left":
        remarks.append("tokenizer_config.json cuts long texts on the left; here their ends are cut")
    return remarks


def _step(part: Any, kind: str, depth: int) -> Mapping[str, Any] | None:
    """The first step of a kind among steps that may hold others."""
    if depth > 16 or not isinstance(part, Mapping):
        return None
    if part.get("type") == kind:
        return part
    for name in ("normalizers", "pretokenizers"):
        steps = part.get(name)
        for step in steps if isinstance(steps, list) else []:
            if (found := _step(step, kind, depth + 1)) is not None:
                return found
    return None


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
