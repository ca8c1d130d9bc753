"""The outcome as one page that needs nothing else: no network, no other file, no script."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from torchbands.report.fragments import harmless
from torchbands.scanner.alerts import LEVELS, RULES, Level
from torchbands.scanner.outcome import Outcome, Picture

from . import formatting, pictures

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """The page. Every string is made plain and escaped; pictures pass `fragments.harmless` first."""
    return (
        _environment()
        .get_template("scan.html.j2")
        .render(
            o=outcome,
            error=error,
            fail_on=fail_on,
            failing=LEVELS[LEVELS.index(fail_on) :],
            style=Markup(_style()),
            policy=_POLICY,
            answers=formatting.answers(outcome),
            suspected=formatting.suspected(outcome),
            costs=formatting.cost(outcome),
            facts=formatting.facts(outcome.subject.facts),
            calibration=formatting.calibration(outcome),
            shown=[(picture_of(p), p.caption) for p in outcome.pictures],
            words_only=not any("<img" in p.html for p in outcome.pictures),
        )
    )


def picture_of(picture: Picture) -> Markup:
    """Its fragment with only pictures, text marks and tables left, and no hidden characters."""
    kept = harmless(picture.html)
    return Markup("".join(c for c in kept if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn")))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("torchbands.report.scan"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"plain": formatting.plain, "number": formatting.number}
    made.globals |= {
        "ANSWERS": formatting.ANSWERS,
        "RULES": RULES,
        "pair": formatting.pair,
        "title_of": formatting.title,
        "repairs_of": formatting.repairs,
        "REPAIR_COLUMNS": formatting.REPAIR_COLUMNS,
        "facts_of": formatting.facts,
        "references_of": formatting.references_of,
        "scale_of": pictures.scale_of,
        "bar_of": pictures.bar_of,
        "dots_of": pictures.dots_of,
        "strength_of": formatting.strength,
    }
    return made


@lru_cache(maxsize=1)
def _style() -> str:
    base = (files("torchbands.report") / "templates" / "report.css").read_text("utf-8")
    own = (files("torchbands.report.scan") / "templates" / "scan.css").read_text("utf-8")
    return f"{base.strip()}\n{own.strip()}"
