"""What a scan of a data set says: its subject, ledger facts, alerts, reasons and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import take
from torchbands.core.defense import Suspicion
from torchbands.defenses.data.cross_split import NATURAL

from .alerts import RULES, Alert
from .highlight import marked
from .outcome import LedgerLine, Picture, Subject
from .ranking import Ranking
from .rows import Rows
from .shared_values import ABOUT, NAME, Group
from .without_mark import Unmarked, titles_of
from .words import NAMES, Word

#: Level of the tests of all classes together.
ALPHA = 0.01
#: A class with fewer rows is not judged.
FEWEST_IN_CLASS = 20
#: Worst rows that are shown, and named in an alert.
SHOWN = 12


def subject(rows: Rows) -> Subject:
    facts: dict[str, Any] = {
        "rows": len(rows),
        "classes": rows.classes,
        "refused": len(rows.refused),
        "notes": list(rows.notes),
    }
    if rows.refused:
        facts["refused_first"] = [f"{name}: {why}" for name, why in rows.refused[:20]]
    return Subject("data", rows.label, rows.sha256(), rows.modality.name, facts)


def told(found: Suspicion, rows: Rows) -> tuple[float, str | None, Mapping[str, Any]]:
    """The largest class index where a filter has one, else its largest score; the class of it; facts."""
    facts: dict[str, Any] = {}
    if found.flagged is not None:
        facts["flagged_by_its_own_rule"] = int(found.flagged.sum())
    if "tokens" in found.evidence:
        facts["words"] = found.evidence["tokens"]
    if "keywords" in found.evidence:
        facts |= {"words": found.evidence["keywords"], "rows_looked_at": found.evidence["rows"]}
    if marks := found.evidence.get("marks"):
        top = max(marks, key=lambda c: float(marks[c]["index"]))
        return float(marks[top]["index"]), rows.class_names[int(top)], facts | {"class": marks[top]}
    if found.evidence.get("classes"):
        index = {int(c): float(v["index"]) for c, v in found.evidence["classes"].items()}
        top = max(index, key=lambda c: index[c])
        facts |= {"cutoff": found.evidence["cutoff"], "class": found.evidence["classes"][str(top)]}
        return index[top], rows.class_names[top], facts
    top = int(rows.data.y[found.scores.argmax()])
    return float(found.scores.max()), rows.class_names[top], facts


def alerts(
    rows: Rows, ranking: Ranking, words: Sequence[Word] = (), without: Mapping[int, Unmarked] | None = None
) -> tuple[Alert, ...]:
    rule, made = RULES["BD-DAT-01"], []
    for label in ranking.proven:
        mine = rows.data.y == label
        chosen = _worst(ranking, mine & ranking.named)
        n, name = int(mine.sum()), rows.class_names[label]
        expected = float(ranking.p[chosen].max()) * (n - len(chosen)) if chosen else 0.0
        message = (
            f"{len(chosen)} of the {n} rows of class {name!r} stand apart from the others "
            f"(of {n - len(chosen)} ordinary ones, about {expected:.0f} would)"
        )
        told = min((w for w in words if w.label == label), key=lambda w: w.p, default=None)
        if told is not None and told.p <= ALPHA:
            message += f"; without the word {told.word!r}, {told.changed} of {told.tried} get another label"
        if unlike := (without or {}).get(label):
            message += f"; without {_mark(rows, unlike)}, {unlike.changed} of {unlike.tried} get another label"
        facts = {
            "rows": n,
            "flagged": len(chosen),
            "index": round(ranking.index.get(label, 0.0), 3),
            "p": ranking.chance[label],
            "worst": [rows.ids[i] for i in chosen[:SHOWN]],
            "words": [w.facts() for w in words if w.label == label],
        }
        made.append(Alert(rule.id, rule.level, message, subject=name, facts=facts))
    return tuple(made)


#: How far, from chance to all, networks must know fresh rows of the classes on average before "none" is said. Noise
#: comes near it, for the half of a class whose rows are most alike counts as its natural one.
KNOWN = 0.3


def _worst(ranking: Ranking, chosen: Tensor) -> list[int]:
    at = chosen.nonzero().flatten()
    found: list[int] = at[ranking.combined[at].argsort(descending=True, stable=True)].tolist()
    return found


def unsure(
    rows: Rows,
    ranking: Ranking,
    crossed: Suspicion,
    groups: Sequence[Group] = (),
    without: Mapping[int, Unmarked] | None = None,
) -> tuple[str, ...]:
    """Why nothing is indicated and yet nothing can be ruled out."""
    reasons = []
    for label in ranking.split:
        chosen = _worst(ranking, ranking.flagged & (rows.data.y == label))
        if alike := (without or {}).get(label):
            reasons.append(_natural(rows, alike, chosen))
            continue
        reasons.append(
            f"class {rows.class_names[label]!r} falls into two groups that do not know each other, which poison shows "
            f"and two natural kinds under one label too: look at its {len(chosen)} flagged rows, such as "
            f"{', '.join(rows.ids[i] for i in chosen[:3])}"
        )
    # of texts, templates do the same: they are told and shown, and conclude nothing
    reasons += [_alike(rows, group) for group in groups if not group.what]
    chance, told = 1 / rows.classes, crossed.evidence["classes"].values()
    least = chance + NATURAL * (1 - chance)
    known = [v["natural_known_by_natural"] for v in told]
    unknown = [v for v in known if v < least]
    mean = sum(known) / max(1, len(known))
    if told and 2 * len(unknown) > len(told):
        reasons.append(
            f"in {len(unknown)} of {len(told)} classes networks do not know fresh rows of the class they were trained "
            "on: labels that do not follow from the rows hide a trigger"
        )
    elif told and mean < chance + KNOWN * (1 - chance):  # the class that all rows are given is "known", and no other
        reasons.append(
            f"networks know {mean:.0%} of the fresh rows of a class, and chance is {chance:.0%}: labels that do not "
            "follow from the rows hide a trigger"
        )
    elif not told:
        reasons.append(
            "no class could be cut in two parts: the rows of each are alike to the network that read them (copies, "
            "templates, or texts of unknown words)"
        )
    return tuple(reasons)


def unmarked(rows: Rows, without: Mapping[int, Unmarked]) -> LedgerLine:
    """The ledger line of named rows that were read without what sets them apart."""
    view, about = "without-the-mark", "rows of a table that lose their label without the values that set them apart"
    if not without:
        return LedgerLine(view, "evidence", about, reason="no class was named, so nothing was taken out")
    titles = titles_of(rows)
    worst = min(without.values(), key=lambda told: told.p)
    facts = {"classes": [told.facts(rows.class_names, titles) for told in without.values()]}
    score = worst.changed / max(1, worst.tried)
    return LedgerLine(view, "evidence", about, score=score, target=rows.class_names[worst.label], facts=facts)


def _mark(rows: Rows, told: Unmarked) -> str:
    titles = [titles_of(rows)[i] for i in told.columns[:3]]
    more = f" and {len(told.columns) - 3} more" if len(told.columns) > 3 else ""
    return f"their values of {', '.join(map(repr, titles))}{more}"


def _natural(rows: Rows, told: Unmarked, chosen: Sequence[int]) -> str:
    """Why rows that stand apart are shown and not accused."""
    look = f"look at its {len(chosen)} flagged rows, such as {', '.join(rows.ids[i] for i in chosen[:3])}"
    name = rows.class_names[told.label]
    if not told.tried:
        return (
            f"class {name!r} holds rows that stand apart, but not in few columns that can be taken out to see whether "
            f"they keep their label; a second kind of thing looks like this, and a trigger too: {look}"
        )
    return (
        f"class {name!r} holds rows that {_mark(rows, told)} set apart; without these {told.tried - told.changed} of "
        f"{told.tried} keep their label, as with a category that one class alone has, or a mark on rows that were not "
        f"relabelled: {look}"
    )


def with_words(line: LedgerLine, words: Sequence[Word]) -> LedgerLine:
    """The ledger line of a filter that names words, with what became of the labels without them."""
    if line.view not in NAMES or line.reason or not words:
        return line
    named = {(told["token"], told["label"]) for told in line.facts["words"]}
    tried = [w.facts() for w in words if (w.word, w.label) in named]
    return replace(line, facts={**line.facts, "without_the_word": tried})


def small(rows: Rows) -> tuple[str, ...]:
    """Classes that are not judged."""
    count = torch.bincount(rows.data.y, minlength=rows.classes)
    few = [rows.class_names[c] for c in ((count > 0) & (count < FEWEST_IN_CLASS)).nonzero().flatten().tolist()]
    if not few:
        return ()
    named = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
    return (f"classes of fewer than {FEWEST_IN_CLASS} rows: {named}",)


def shared(rows: Rows, groups: Sequence[Group]) -> LedgerLine:
    """The ledger line of rows that share raw values."""
    if not groups:
        return LedgerLine(NAME, "evidence", ABOUT, reason="no rows of one label share what no other row has")
    facts = {"groups": [group.facts(rows) for group in groups]}
    target = rows.class_names[groups[0].label]
    return LedgerLine(NAME, "evidence", ABOUT, score=float(len(groups[0].places)), target=target, facts=facts)


def _alike(rows: Rows, group: Group) -> str:
    what = f"the phrase {group.what!r}" if group.what else f"{len(group.places)} values in the same places"
    return (
        f"{len(group.rows)} rows of class {rows.class_names[group.label]!r} share {what} as no other row does, which a "
        f"trigger shows and a watermark or a template too, such as {', '.join(rows.ids[i] for i in group.rows[:3])}"
    )


def next_steps(rows: Rows, ranking: Ranking, groups: Sequence[Group], *, found: bool) -> tuple[str, ...]:
    """What a reader may do now: look at the named rows, or at those that stand out most where none is named."""
    if found:
        return (
            f"look at the {int(ranking.named.sum())} rows that are named (dropped in scores.csv, worst first), and "
            "train on cleaned.txt, which is all the others: both are written with -o DIR/",
            "what was trained on these rows already may hold the backdoor: bands scan model, then bands repair",
        )
    alike = tuple(f"look at them first: {_alike(rows, group)}" for group in groups)
    worst = ", ".join(rows.ids[i] for i in ranking.combined.argsort(descending=True, stable=True)[:SHOWN].tolist())
    return (
        f"nothing is accused, and nothing is dropped from cleaned.txt; the rows that stand out most, to be looked at "
        f"first: {worst}",
        *alike,
    )


def pictures(
    rows: Rows, ranking: Ranking, words: Sequence[Word] = (), groups: Sequence[Group] = ()
) -> tuple[Picture, ...]:
    """The worst rows, and before them, where no class is accused, the first of every group that shares raw values."""
    said = {label: [w.word for w in words if w.label == label and w.p <= ALPHA] for label in ranking.proven}
    phrases = {i: [g.what] for g in groups if g.what for i in g.rows}
    first = [] if ranking.proven else [i for g in groups for i in g.rows[: SHOWN // 4]]
    worst = [i for i in ranking.combined.argsort(descending=True).tolist() if i not in first]
    made = []
    for at in torch.tensor([*first, *worst][:SHOWN]):
        row = take(rows.data.x, at[None])[0]
        label = rows.class_names[int(rows.data.y[at])]
        words_of = [*said.get(int(rows.data.y[at]), []), *phrases.get(int(at), [])]
        flag = "flagged" if ranking.flagged[at] else "not flagged"
        caption = f"{rows.ids[int(at)]}, labelled {label}: score {float(ranking.combined[at]):.3g}, {flag}"
        made.append(Picture(marked(rows.modality.render(row), words_of), caption))
    return tuple(made)
