"""Words that filters suspect, and the counterfactual check: without the word, does the row keep its label?"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Suspicion
from torchbands.core.errors import Diverged
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.defenses.data._crossing import halves
from torchbands.defenses.data._sifters import fresh
from torchbands.defenses.data._tokens import tokens_of
from torchbands.defenses.data.bki import BKI
from torchbands.defenses.data.cross_split import CrossSplit

from .rows import Rows

#: Filters that name words, each with the key of its evidence.
NAMES = {"bki": "keywords", "z-score": "tokens"}
#: Share of a word's rows that hold its companions, and of a row's tokens that must be left to read it by.
COMPANY, LEFT = 0.8, 0.5
#: Steps that the networks which read are trained at least.
STEPS = 600
#: Id of padding, in every modality made of tokens.
PAD = 0


@dataclass(frozen=True)
class Word:
    """A word, with the words that always come with it, and what the model says without them.

    Attributes:
        rows: (N,) bool, rows of the label that hold it.
        tried: different rows that hold it and get their label. changed: those that get another one without it.
        p: the chance, at most, of so many changes if rows without the word were no more like those of other labels
            than like those of their own, or of a word that comes with the label so often if it had nothing to do with
            it; for all words tried and all words of the data.
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


def checked(rows: Rows, model: Model, found: Mapping[str, Suspicion], seed: int = 0) -> list[Word]:
    """Every word that a filter named for a label, with its check.

    Two fresh networks of the model's architecture learn one half of the rows each and read the other half without the
    word: what they say of a row is not what they remember of it. A word that merely speaks for its label leaves rows
    behind that still speak for it. Relabelled rows do not: without the trigger they get the label they had. What the
    same networks say of other rows of the label, and of rows of other labels, tells how well they read: without the
    word, rows must be more like the second than like the first. Rows that are alike without the word count once; rows
    that the model itself does not give their label are not tried.
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
    cuts = [_cut(ids, mask, rows.data.y, token, label) for token, label in seeds]
    if any(len(cut.rows) for cut in cuts):
        half = halves(rows.data.y, generator("words", len(rows), seed))
        readers = [taught(rows.data, model, half, fold, seed) for fold in (0, 1)]
        everything = torch.arange(len(rows))
        plain = _read(readers, half, everything, ids, mask)
        obeyed = model.logits(rows.data.x).argmax(1) == rows.data.y
    made = []
    for cut, ((_, label), word) in zip(cuts, seeds.items(), strict=True):
        tried = changed = 0
        between = 1.0
        if len(cut.rows):
            at = cut.rows[obeyed[cut.rows]]
            tried, changed = len(at), int((_read(readers, half, at, ids, mask & ~cut.taken[ids]) != label).sum())
            own = (rows.data.y == label) & ~cut.held
            shares = [float((plain[part] != label).double().mean()) for part in (own, rows.data.y != label)]
            between = sum(shares) / 2 if own.any() else 1.0
        p = min(1.0, max(len(cuts) * at_least(changed, tried, between), cut.pure))
        made.append(Word(word, label, cut.held, tried, changed, p))
    return made


def _read(readers: Sequence[Model], half: Tensor, rows: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
    """(n,) labels of rows by the network that did not learn them."""
    said = torch.zeros(len(rows), dtype=torch.long)
    for fold, reader in enumerate(readers):
        mine = half[rows] != fold
        said[mine] = said_of_kept(reader, ids[rows[mine]], kept[rows[mine]])
    return said


@dataclass(frozen=True)
class _Cut:
    """What is taken out: tokens (by id); the rows of the label that hold the word, and those of them that are tried;
    the chance, at most, of a word that comes with the label so often by chance, over all words and labels."""

    taken: Tensor
    held: Tensor
    rows: Tensor
    pure: float


def at_least(hits: int, tries: int, chance: float) -> float:
    """Binomial tail."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, tries, chance))


def _cut(ids: Tensor, mask: Tensor, y: Tensor, token: int, label: int) -> _Cut:
    held = ((ids == token) & mask).any(1)
    mine = held & (y == label)
    taken = company(ids, mask, y == label, mine)
    taken[token] = True
    left = mask & ~taken[ids]
    able = held & (left.sum(1) >= LEFT * mask.sum(1)) & left.any(1)
    at = _different(ids, left, able.nonzero().flatten(), y)
    pure = at_least(int((y[at] == label).sum()), len(at), float((y == label).double().mean()))
    return _Cut(taken, mine, at[y[at] == label], pure * len(ids[mask].unique()) * len(y.unique()))


def taught(data: Data, model: Model, half: Tensor, fold: int, seed: int) -> Model:
    """A fresh network that learned this half; one that diverged knows nothing, and says one label with any word."""
    network = fresh(model, "words", fold, seed)
    mine = (half == fold).nonzero().flatten()
    with contextlib.suppress(Diverged):
        CrossSplit(steps=STEPS).learner_for(len(mine)).fit(network, data[mine], seed=seed)
    return network


def company(ids: Tensor, mask: Tensor, labelled: Tensor, mine: Tensor) -> Tensor:
    """(V,) tokens that nearly all rows `mine` hold, and hardly any row of another label: the rest of a sentence."""
    width = int(ids.max()) + 1

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
    """Rows with only the tokens that are kept, moved together, padding behind them; and their mask.

    A network may look at what lies just behind the end: a word that was taken out must not lie there.
    """
    order = (~kept).long().argsort(dim=1, stable=True)
    there = kept.gather(1, order)
    return ids.gather(1, order).masked_fill(~there, PAD), there


def said_of_kept(model: Model, ids: Tensor, kept: Tensor) -> Tensor:
    short, there = _without(ids, kept)
    said = [torch.zeros(0, dtype=torch.long)]
    with torch.no_grad():
        for part in torch.arange(len(ids)).split(model.chunk) if len(ids) else ():
            longest = int(there[part].sum(1).max())
            e = Encoded(short[part, :longest], there[part, :longest]).to(model.device)
            said.append(model.run(e).argmax(1).cpu())
    return torch.cat(said)
