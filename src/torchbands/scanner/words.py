"""Words that filters suspect, and the counterfactual check: without the word, does the row keep its label?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.defense import Suspicion
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.defenses.data._tokens import tokens_of
from torchbands.defenses.data.bki import BKI

from .rows import Rows

#: Filters that name words, each with the key of its evidence.
NAMES = {"bki": "keywords", "z-score": "tokens"}
#: Share of a word's rows that hold its companions, and of a row's tokens that must be left to read it by.
COMPANY, LEFT = 0.8, 0.5


@dataclass(frozen=True)
class Word:
    """A word, with the words that always come with it, and what the model says without them.

    Attributes:
        rows: (N,) bool, rows of the label that hold it.
        tried: different rows that could be read without it. changed: those that the model then gives another label.
        p: the chance, at most, of so many changes if rows kept their label as often as not, or of a word that comes
            with the label so often if it had nothing to do with it; for all words tried and all words of the data.
    """

    word: str
    label: int
    rows: Tensor
    tried: int
    changed: int
    p: float

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "word": self.word,
            "label": self.label,
            "rows": int(self.rows.sum()),
            "tried_without": self.tried,
            "changed_without": self.changed,
            "p": self.p,
        }


def of_some(made: BKI, rows: Rows, model: Model, seed: int, tokens: int) -> Suspicion:
    """BKI on as many rows, drawn at random, as have so many tokens together; the others score 0. A word that a trigger
    needs is found in some of its rows as well."""
    lengths = tokens_of(made, rows.modality, rows.data)[1].sum(1)
    order = torch.randperm(len(rows), generator=generator("bki", len(rows), seed))
    some = order[: max(1, int((lengths[order].cumsum(0) <= tokens).sum()))].sort().values
    found = made.score(rows.data[some], model, seed=seed)
    scores = torch.zeros(len(rows)).index_put_((some,), found.scores)
    return Suspicion(scores, None, {**found.evidence, "rows": len(some)})


def checked(rows: Rows, model: Model, found: Mapping[str, Suspicion]) -> list[Word]:
    """Every word that a filter named for a label, with its check.

    A word that merely speaks for its label leaves rows behind that still speak for it. Relabelled rows do not: without
    the trigger they get the label they had. Rows that are alike without the word count once.
    """
    seeds: dict[tuple[int, int], str] = {}
    for name, key in NAMES.items():
        if name in found:
            cutoff = float(found[name].evidence.get("cutoff", -torch.inf))
            for told in found[name].evidence[key]:
                if told.get("deviations", torch.inf) > cutoff:
                    seeds.setdefault((int(told["id"]), int(told["label"])), str(told["token"]))
    if not seeds:
        return []
    ids, mask = tokens_of(BKI(), rows.modality, rows.data)
    width = int(ids.max()) + 1
    met = len(ids[mask].unique()) * len(rows.data.y.unique())
    made = [_check(model, ids, mask, rows.data.y, t, c, word, width) for (t, c), word in seeds.items()]
    return [
        Word(w.word, w.label, w.rows, w.tried, w.changed, min(1.0, max(len(made) * flip, met * pure)))
        for w, flip, pure in made
    ]


def _check(
    model: Model, ids: Tensor, mask: Tensor, y: Tensor, token: int, label: int, word: str, width: int
) -> tuple[Word, float, float]:
    """The word with its two chances, not corrected."""
    from scipy.stats import binom

    held = ((ids == token) & mask).any(1)
    mine = held & (y == label)
    company = _company(ids, mask, y == label, mine, width)
    company[token] = True
    taken = company[ids] & mask
    able = held & ((mask & ~taken).sum(1) >= LEFT * mask.sum(1)) & (mask.sum(1) > 1)
    at = _different(ids, mask & ~taken, able.nonzero().flatten(), y)
    share = float((y == label).double().mean())
    pure = float(binom.sf(int((y[at] == label).sum()) - 1, len(at), share))
    at = at[y[at] == label]
    tried = changed = 0
    if len(at):
        before = _said(model, ids[at], mask[at])
        after = _said(model, ids[at], mask[at] & ~taken[at])
        tried, changed = int((before == label).sum()), int(((before == label) & (after != label)).sum())
    return Word(word, label, mine, tried, changed, 1.0), float(binom.sf(changed - 1, tried, 0.5)), pure


def _company(ids: Tensor, mask: Tensor, labelled: Tensor, mine: Tensor, width: int) -> Tensor:
    """(width,) tokens that nearly all rows of the word hold, and hardly any row of another label: the rest of a
    sentence."""

    def rows_with(part: Tensor) -> Tensor:
        row = torch.arange(len(ids))[:, None].expand_as(ids)[part]
        pairs = (row * width + ids[part]).unique()
        return torch.bincount(pairs % width, minlength=width)

    with_it = rows_with(mask & mine[:, None])
    of_label, of_others = rows_with(mask & labelled[:, None]), rows_with(mask & ~labelled[:, None])
    return (with_it >= COMPANY * mine.sum()) & (of_label >= COMPANY * (of_label + of_others)) & (with_it > 0)


def _different(ids: Tensor, kept: Tensor, rows: Tensor, y: Tensor) -> Tensor:
    """The first of all rows that are alike in what is kept of them and in their label."""
    if len(rows) == 0:
        return rows
    short, there = _without(ids[rows], kept[rows])
    key = torch.cat([torch.where(there, short, -1), y[rows, None]], 1)
    kind = key.unique(dim=0, return_inverse=True)[1]
    first = torch.full((int(kind.max()) + 1,), len(rows)).scatter_reduce_(0, kind, torch.arange(len(rows)), "amin")
    return rows[first.sort().values]


def _without(ids: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with only the tokens that are kept, moved together; and their mask."""
    order = (~kept).long().argsort(dim=1, stable=True)
    return ids.gather(1, order), kept.gather(1, order)


def _said(model: Model, ids: Tensor, kept: Tensor) -> Tensor:
    short, there = _without(ids, kept)
    said = []
    with torch.no_grad():
        for part in torch.arange(len(ids)).split(model.chunk):
            longest = int(there[part].sum(1).max())
            e = Encoded(short[part, :longest], there[part, :longest]).to(model.device)
            said.append(model.run(e).argmax(1).cpu())
    return torch.cat(said)
