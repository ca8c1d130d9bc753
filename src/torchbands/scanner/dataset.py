"""`bands scan data`: rank the samples of a data set that nobody vouches for, and flag within a false-alarm budget."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchbands import __version__
from torchbands.core.data import Data, take
from torchbands.core.defense import DataFilter, Suspicion
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Progress
from torchbands.defenses.data.activation_clustering import ActivationClustering
from torchbands.defenses.data.cross_split import CrossSplit
from torchbands.defenses.data.spectral_signatures import SpectralSignatures
from torchbands.defenses.data.statistical_contamination import StatisticalContamination
from torchbands.defenses.data.z_score import ZScore
from torchbands.measures.cost import measured

from .outcome import RULES, Alert, LedgerLine, Outcome, Picture, Subject
from .ranking import Ranking, rank
from .rows import Rows
from .train_on import model_for
from .written import write_index

#: Fewer rows, or fewer of every class but one, are not judged.
FEWEST_ROWS, FEWEST_IN_CLASS = 100, 20
#: Level of the test whether more rows are flagged than the budget explains.
ALPHA = 0.01
#: Worst rows that are shown, and named in an alert.
SHOWN = 12
PROFILES = ("fast", "full")

_NOT_COVERED = (
    "poison that the model did not learn: its rows do not stand apart",
    "poison below about one row in two hundred of its class",
    "poison disguised to lie among its class in feature space",
)
_ABOUT = {
    "activation-clustering": "two clusters of unequal size in a class's features",
    "spectral-signatures": "place on the leading direction of a class's features, on the side of its long tail",
    "statistical-contamination": "a class better explained by two groups, beside trusted rows",
    "z-score": "a word that comes with one label far more often than chance explains",
    "cross-split": "a class's two parts know nothing of each other",
}


def scan_data(
    rows: Rows,
    *,
    model: Model | None = None,
    clean: Data | None = None,
    false_alarms: float = 0.01,
    profile: str = "full",
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Which rows of this data set were put there to plant a backdoor?

    Filters look at one forward pass of a model that was trained on the rows; `cross-split` says which classes hold two
    groups that know nothing of each other. In such a class a row is flagged where fewer than `false_alarms` of the
    natural group lie as far towards the other one; elsewhere the top `false_alarms` of every class are flagged, which
    is the budget and no finding. The result is `indicated` where a class is split and the number of flagged rows is
    above what the budget explains (binomial tail, level 0.01). No poison rate is assumed.

    Args:
        rows: what `read_rows` gave.
        model: trained on these rows, with features; one is trained where there is none.
        clean: trusted rows, where there are some: SCAn then looks too.
        false_alarms: share of benign rows that may be flagged.
        profile: "fast" or "full": the same filters today, as `meta-sift` ranks learned poison as the most ordinary.
        folder: where `scores.csv`, `cleaned.csv` and `cleaned.txt` (the rows that are not flagged) are written.

    Raises InputError for settings out of range, or a model that does not take these rows.
    """
    if not 0 < false_alarms < 0.5:
        raise InputError(f"false_alarms is a share between 0 and 0.5, got {false_alarms}")
    if profile not in PROFILES:
        raise InputError(f"profile is fast or full, got {profile!r}")
    tell = progress or (lambda done, total, what: None)
    subject = _subject(rows)
    base: dict[str, Any] = {
        "profile": profile,
        "alpha": false_alarms,
        "seed": seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "not_covered": _NOT_COVERED,
    }
    if reasons := _too_few(rows):
        return Outcome(subject, "inconclusive", reasons=reasons, **base)
    filters = _filters(clean, rows.modality.discrete)
    with measured() as cost:
        model, said = model_for(rows, model, seed, lambda at, of, what: tell(0, len(filters) + 1, "training a model"))
        before = model.passes.forward
        found, ledger = {}, []
        with model.shared():
            for at, made in enumerate(filters, 1):
                tell(at, len(filters) + 1, made.name)
                suspicion, line = _look(made, rows, model, clean, seed)
                ledger.append(line)
                if suspicion is not None:
                    found[made.name] = suspicion
        if "cross-split" not in found:
            return Outcome(subject, "inconclusive", ledger=tuple(ledger), reasons=(ledger[-1].reason,), **base)
        ranking = rank(rows.data.y, found, false_alarms)
    if folder is not None:
        write_index(Path(folder), rows, found, ranking)
    alerts = _alerts(rows, ranking, false_alarms)
    return Outcome(
        subject,
        "indicated" if alerts else "none",
        alerts=alerts,
        ledger=tuple(ledger),
        target=rows.class_names[ranking.split[0]] if alerts else None,
        pictures=_pictures(rows, ranking),
        methods=tuple(found),
        calibration={
            "false_alarms": false_alarms,
            "flagged": int(ranking.flagged.sum()),
            "explained_by_budget": round(false_alarms * len(rows), 1),
            "p": ranking.p_excess,
            "level": ALPHA,
            "model": said,
        },
        cost={
            **{k: float(v) for k, v in cost.values().items() if isinstance(v, (int, float)) and k != "forward_passes"},
            "forward_passes": float(model.passes.forward - before),
            "rows": float(len(rows)),
        },
        **base,
    )


def _subject(rows: Rows) -> Subject:
    facts: dict[str, Any] = {
        "rows": len(rows),
        "classes": rows.classes,
        "refused": len(rows.refused),
        "notes": list(rows.notes),
    }
    if rows.refused:
        facts["refused_first"] = [f"{name}: {why}" for name, why in rows.refused[:20]]
    return Subject("data", rows.label, rows.sha256(), rows.modality.name, facts)


def _too_few(rows: Rows) -> tuple[str, ...]:
    if len(rows) < FEWEST_ROWS:
        return (f"{len(rows)} rows, at least {FEWEST_ROWS} are needed to tell what is usual",)
    judged = int((torch.bincount(rows.data.y) >= FEWEST_IN_CLASS).sum())
    return (f"{judged} class has {FEWEST_IN_CLASS} rows or more, two are needed",) if judged < 2 else ()


def _filters(clean: Data | None, tokens: bool) -> list[DataFilter]:
    made: list[DataFilter] = [ActivationClustering(), SpectralSignatures(rule="oriented")]
    if clean is not None:
        made.append(StatisticalContamination())
    if tokens:
        made.append(ZScore())
    # without the crossing nothing tells which part of a halved class is the poison
    return [*made, CrossSplit()]


def _look(
    made: DataFilter, rows: Rows, model: Model, clean: Data | None, seed: int
) -> tuple[Suspicion | None, LedgerLine]:
    about = _ABOUT.get(made.name, "")
    with measured(model) as cost:
        try:
            found = made.score(rows.data, model, clean=clean, seed=seed)
        except NotApplicable as error:
            return None, LedgerLine(made.name, "evidence", about, reason=error.reason)
    score, target, facts = _told(found, rows)
    line = LedgerLine(
        made.name,
        "evidence",
        about,
        score=score,
        target=target,
        seconds=cost.seconds,
        forward_passes=cost.forward_passes,
        facts=facts,
    )
    return found, line


def _told(found: Suspicion, rows: Rows) -> tuple[float, str | None, Mapping[str, Any]]:
    """The largest class index where a filter has one, else its largest score; the class of it; facts."""
    facts: dict[str, Any] = {}
    if found.flagged is not None:
        facts["flagged_by_its_own_rule"] = int(found.flagged.sum())
    if "tokens" in found.evidence:
        facts["words"] = found.evidence["tokens"]
    if "classes" in found.evidence:
        index = {int(c): float(v["index"]) for c, v in found.evidence["classes"].items()}
        top = max(index, key=lambda c: index[c])
        facts |= {"cutoff": found.evidence["cutoff"], "class": found.evidence["classes"][str(top)]}
        return index[top], rows.class_names[top], facts
    top = int(rows.data.y[found.scores.argmax()])
    return float(found.scores.max()), rows.class_names[top], facts


def _alerts(rows: Rows, ranking: Ranking, false_alarms: float) -> tuple[Alert, ...]:
    if ranking.p_excess > ALPHA:
        return ()
    rule, made = RULES["BD-DAT-01"], []
    for label in ranking.split:
        mine = rows.data.y == label
        chosen = (mine & ranking.flagged).nonzero().flatten()
        worst = chosen[ranking.combined[chosen].argsort(descending=True)][:SHOWN]
        n, name = int(mine.sum()), rows.class_names[label]
        made.append(
            Alert(
                rule.id,
                rule.level,
                f"{len(chosen)} of the {n} rows of class {name!r} stand apart from the others "
                f"(about {false_alarms * n:.0f} would be expected by chance)",
                subject=name,
                facts={
                    "rows": n,
                    "flagged": len(chosen),
                    "index": round(ranking.index.get(label, 0.0), 3),
                    "p_excess": ranking.p_excess,
                    "worst": [rows.ids[int(i)] for i in worst],
                },
            )
        )
    return tuple(made)


def _pictures(rows: Rows, ranking: Ranking) -> tuple[Picture, ...]:
    made = []
    for at in ranking.combined.argsort(descending=True)[:SHOWN]:
        row = take(rows.data.x, at[None])[0]
        label = rows.class_names[int(rows.data.y[at])]
        flag = "flagged" if ranking.flagged[at] else "not flagged"
        caption = f"{rows.ids[int(at)]}, labelled {label}: score {float(ranking.combined[at]):.3g}, {flag}"
        made.append(Picture(rows.modality.render(row), caption))
    return tuple(made)
