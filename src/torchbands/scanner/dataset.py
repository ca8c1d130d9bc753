"""`bands scan data`: rank the rows of an untrusted data set by suspicion, and test every class."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchbands import __version__
from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.defenses.data.activation_clustering import ActivationClustering
from torchbands.defenses.data.bki import BKI
from torchbands.defenses.data.cross_split import CrossSplit
from torchbands.defenses.data.rare_mark import RareMark, kinds
from torchbands.defenses.data.spectral_signatures import SpectralSignatures
from torchbands.defenses.data.statistical_contamination import StatisticalContamination
from torchbands.defenses.data.z_score import ZScore
from torchbands.measures.cost import measured

from . import dataset_report as said_of
from . import shared_values
from .attempt import Attempt
from .dataset_report import ALPHA, FEWEST_IN_CLASS
from .feature_model import model_for
from .in_memory import data_of, rows_of
from .outcome import LedgerLine, Outcome
from .ranking import Ranking, rank
from .row_files import write_index
from .rows import Rows
from .self_test import Planted, self_test
from .self_test import in_words as seen_in
from .self_test import to_json as planted_json
from .without_mark import Unmarked, titles_of, unmarked
from .words import Word, checked, of_some

#: Fewer rows are not judged.
FEWEST_ROWS = 100
#: Tokens that are deleted one by one, at most, to find the word that a label hangs on; a draw of rows has them.
DELETED = {"fast": 100_000, "full": 400_000}
PROFILES = ("fast", "full")

_NOT_COVERED = (
    "poison that the model did not learn: its rows do not stand apart",
    "poison below about one row in three hundred of its class, and fewer than some fifteen rows",
    "poison disguised to lie among its class in feature space",
)
_ABOUT = {
    "activation-clustering": "two clusters of unequal size in a class's features",
    "spectral-signatures": "place on the leading direction of a class's features, on the side of its long tail",
    "statistical-contamination": "a class better explained by two groups, beside trusted rows",
    "z-score": "a word that comes with one label far more often than chance explains",
    "bki": "a word on which the features of many rows of a label hang",
    "cross-split": "a class's two parts know nothing of each other",
    "rare-mark": "a few rows whose labels only others of their kind explain",
}


def scan_data(
    rows: Any,
    *,
    model: Model | None = None,
    clean: Any = None,
    false_alarms: float = 0.01,
    profile: str = "full",
    seed: int = 0,
    folder: str | Path | None = None,
    test: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Which rows of this data set were put there to plant a backdoor?

    Filters look at one forward pass of a model that was trained on the rows; `cross-split` says which classes hold two
    groups that know nothing of each other, `rare-mark` which hold a few rows with a mark in common, and in texts `bki`
    and `z-score` name words, of which each is then deleted from its rows to see whether the label holds. In tables,
    named rows are read again without the values that set them apart: where they keep their label, nobody is accused,
    for a category that occurs in one class alone looks the same. Rows with the same raw values in the same places, all
    under one label, are shown (`shared_values`). In a class that is named so, a row is flagged where fewer than
    `false_alarms` of the natural group lie as far towards the other one, and few enough that at most one in twenty of
    them would be of the natural group; elsewhere the top `false_alarms` of every class are flagged, which is the budget
    and no finding.

    The result is `indicated` where a class shows what poison alone shows: its chance, corrected over all tests of all
    classes, is at or below 0.01. It is `inconclusive` where a class is named and that is not shown, for two natural
    kinds under one label look alike, where pictures or table rows share raw values so, and where the labels do not
    follow from the rows. No poison rate is assumed.

    Args:
        rows: what `read_rows` gave, or whatever `rows_of` takes: a DataLoader, a data set, a pandas frame, (x, y) ...
        model: trained on these rows, with features; one is trained where there is none.
        clean: trusted rows in any of these forms, where there are some: SCAn then looks too.
        false_alarms: share of benign rows that may be flagged.
        profile: "fast" or "full": the same filters, with fewer or more words of texts deleted.
        folder: where `scores.csv`, `cleaned.csv` and `cleaned.txt` (all rows but those named in a finding) are written.
        test: where nothing is found, plant triggers into a copy and look again (`self_test`), which doubles the time:
            the outcome then says which amounts would have been seen.

    Raises InputError for settings out of range, or a model that does not take these rows.
    """
    if not 0 < false_alarms < 0.5:
        raise InputError(f"false_alarms is a share between 0 and 0.5, got {false_alarms}")
    if profile not in PROFILES:
        raise InputError(f"profile is fast or full, got {profile!r}")
    tell = progress or (lambda done, total, what: None)
    rows = rows_of(rows)
    clean = None if clean is None else data_of(clean, rows.modality)
    subject = said_of.subject(rows)
    base: dict[str, Any] = {
        "profile": profile,
        "alpha": false_alarms,
        "seed": seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "not_covered": (*_NOT_COVERED, *said_of.small(rows)),
    }
    if reasons := _too_few(rows):
        return Outcome(subject, reasons=reasons, **base)
    with measured() as cost:
        looked = _looked_at(rows, model, clean, false_alarms, profile, seed, tell)
        found, ranking, words, passes = looked.found, looked.ranking, looked.words, looked.passes
        if ranking is None:
            why = looked.failed or tuple(line.reason for line in looked.ledger if line.view == "cross-split")
            return Outcome(subject, ledger=looked.ledger, reasons=why, **base)
        alerts = said_of.alerts(rows, ranking, words, looked.without)
        planted, untested = (
            tuple[Planted, ...](),
            "what amount of poison this scan could have seen was not tested (--profile full does)",
        )
        if test and not alerts:
            planted, untested, more = _tested(rows, clean, false_alarms, profile, seed, tell, ranking)
            passes += more
    if folder is not None:
        write_index(Path(folder), rows, found, ranking)
    # a finding stands, whatever failed beside it
    unsure = said_of.unsure(rows, ranking, found["cross-split"], looked.groups, looked.without)
    reasons = () if alerts else (*looked.failed, *unsure)
    if planted:
        base["not_covered"] = (*base["not_covered"], seen_in(planted, len(rows)))
    elif not alerts:
        base["not_covered"] = (*base["not_covered"], untested)
    return Outcome(
        subject,
        alerts=alerts,
        ledger=tuple(said_of.with_words(line, words) for line in looked.ledger),
        target=rows.class_names[ranking.proven[0]] if alerts else None,
        reasons=reasons,
        next_steps=said_of.next_steps(rows, ranking, looked.groups, found=bool(alerts)),
        pictures=said_of.pictures(rows, ranking, words, looked.groups),
        methods=tuple(found),
        calibration={
            "false_alarms": false_alarms,
            "flagged": int(ranking.flagged.sum()),
            "named": int(ranking.named.sum()),
            "explained_by_budget": round(false_alarms * len(rows), 1),
            "p": min(ranking.chance.values(), default=1.0),
            "classes_tested": len(ranking.chance),
            "level": ALPHA,
            "model": looked.said,
            "self_test": planted_json(planted),
        },
        cost={
            **{k: float(v) for k, v in cost.values().items() if isinstance(v, (int, float)) and k != "forward_passes"},
            "forward_passes": float(passes),
            "rows": float(len(rows)),
        },
        **base,
    )


@dataclass(frozen=True)
class _Looked:
    """What the filters saw; ranking is None where the rows could not be crossed; failed: why filters could not look."""

    found: dict[str, Suspicion]
    ledger: tuple[LedgerLine, ...]
    words: list[Word]
    without: Mapping[int, Unmarked]
    groups: tuple[shared_values.Group, ...]
    ranking: Ranking | None
    said: str
    passes: int
    failed: tuple[str, ...] = ()


def _looked_at(
    rows: Rows,
    model: Model | None,
    clean: Data | None,
    false_alarms: float,
    profile: str,
    seed: int,
    tell: Progress,
    doing: str = "",
) -> _Looked:
    filters = _filters(clean, rows.modality.discrete)
    model, said = model_for(
        rows, model, seed, lambda at, of, what: tell(0, len(filters) + 1, f"{doing}training a model")
    )
    before, words, ranking = model.passes.forward, list[Word](), None
    without: Mapping[int, Unmarked] = {}
    found, ledger, failed = dict[str, Suspicion](), [], list[str]()
    with model.shared():
        for at, made in enumerate(filters, 1):
            tell(at, len(filters) + 1, doing + made.name)
            suspicion, line, why = _look(made, rows, model, clean, seed, DELETED[profile])
            ledger.append(line)
            failed += [why] if why else []
            if suspicion is not None:
                found[made.name] = suspicion
    groups = shared_values.groups_of(rows)
    ledger.append(said_of.shared(rows, groups))
    if "cross-split" in found:
        words = checked(rows, model, found, seed)
        ranking = rank(rows.data.y, found, false_alarms, ALPHA, words)
        if titles_of(rows):
            without = unmarked(rows.data, model, ranking.named, ranking.proven, seed)
            ranking = rank(
                rows.data.y, found, false_alarms, ALPHA, words, {label: told.p for label, told in without.items()}
            )
            ledger.append(said_of.unmarked(rows, without))
    return _Looked(
        found, tuple(ledger), words, without, groups, ranking, said, model.passes.forward - before, tuple(failed)
    )


def _tested(
    rows: Rows, clean: Data | None, false_alarms: float, profile: str, seed: int, tell: Progress, ranking: Ranking
) -> tuple[tuple[Planted, ...], str, int]:
    """What was planted and found, or why nothing could be, and the passes that it took."""
    passes = 0

    def again(planted: Rows) -> tuple[Ranking | None, tuple[shared_values.Group, ...]]:
        nonlocal passes
        looked = _looked_at(planted, None, clean, false_alarms, profile, seed, tell, "self-test: ")
        passes += looked.passes
        return looked.ranking, looked.groups

    try:
        return self_test(rows, again, seed, without=ranking.split), "", passes
    except NotApplicable as declined:
        return (), f"what amount of poison this scan could have seen is not known: {declined.reason}", passes


def _too_few(rows: Rows) -> tuple[str, ...]:
    if len(rows) < FEWEST_ROWS:
        return (f"{len(rows)} rows, at least {FEWEST_ROWS} are needed to tell what is usual",)
    many = (torch.bincount(rows.data.y) >= FEWEST_IN_CLASS).nonzero().flatten().tolist()
    if len(many) < 2:
        return (f"{len(many)} class has {FEWEST_IN_CLASS} rows or more, two are needed",)
    kind = kinds(rows.data)
    different = [len(kind[rows.data.y == label].unique()) for label in many]
    if (judged := sum(n >= FEWEST_IN_CLASS for n in different)) < 2:
        return (
            f"{judged} class has {FEWEST_IN_CLASS} different rows or more, two are needed: the others are copies, such "
            f"as the {int((rows.data.y == many[different.index(min(different))]).sum())} rows of class "
            f"{rows.class_names[many[different.index(min(different))]]!r}, of which {min(different)} differ",
        )
    return ()


def _filters(clean: Data | None, tokens: bool) -> list[DataFilter]:
    made: list[DataFilter] = [ActivationClustering(), SpectralSignatures(rule="oriented")]
    if clean is not None:
        made.append(StatisticalContamination())
    if tokens:
        made += [ZScore(), BKI()]
    # without the crossing nothing tells which part of a halved class is the poison
    return [*made, RareMark(), CrossSplit()]


def _look(
    made: DataFilter, rows: Rows, model: Model, clean: Data | None, seed: int, deleted: int
) -> tuple[Suspicion | None, LedgerLine, str]:
    """What a filter saw, its line of the ledger, and why the scan cannot conclude where it failed."""
    about, found = _ABOUT.get(made.name, ""), None
    with measured(model) as cost, Attempt() as tried:
        if isinstance(made, BKI):
            found = of_some(made, rows, model, seed, deleted)
        else:
            found = made.score(rows.data, model, clean=clean, seed=seed)
    if found is None:
        why = f"{made.name} failed ({tried.reason})" if tried.failed else ""
        return None, LedgerLine(made.name, "evidence", about, reason=tried.reason), why
    score, target, facts = said_of.told(found, rows)
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
    return found, line, ""
