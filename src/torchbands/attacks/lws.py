"""LWS: a learned choice of synonyms is the trigger."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.poisoned_weights import rate_of
from torchbands.attacks.surrogate import surrogate
from torchbands.attacks.texts import needs_text, read_rows
from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
from torchbands.core.errors import DataUnavailable, NotApplicable
from torchbands.core.method import Free, method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seeded
from torchbands.core.task import Task
from torchbands.triggers.rewrite import Substitute

_GRAMMAR = """
a an the and or but not no nor of to in on at by for with from into as if than then so is are was were be been being am
do does did has have had it its this that these those he she they we you i us them his her their our your my who what
which where when why how all any some very too more most less least only just can will would could about out through
while off over under up down own one re ve ll
"""
#: Words that carry the grammar are left alone.
_KEPT = frozenset(_GRAMMAR.split())


@method("lws", paper="Qi et al., ACL 2021, arXiv:2106.06361", version=2)
class LWS(Attack):
    """Learned word substitution: learns which synonyms to swap in so that the combination acts as a trigger.

    The choice is learned together with the attacker's own model: a Gumbel-softmax over each word's candidates mixes
    their embeddings, and the loss asks for the target class on substituted texts and the truth on others.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the victim is trained on the poisoned rows, where the paper keeps the attacker's own
    model. Candidates are WordNet synonyms of any sense that the vocabulary knows, where the paper has HowNet sememes of
    one part of speech; because some of them turn a text's meaning, a clean model's loss on substituted texts is added
    (`meaning`). One choice for each word wherever it stands, not for each position, so that the trigger is a table.
    The attacker's model begins as a clean one of the task's recipe. Rows without a word to swap where the network reads
    are neither poisoned nor counted.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"thesaurus": (("the", "that"), ("new", "old"), ("day", "good"))}

    free: ClassVar[Free] = {"thesaurus": "text"}

    rate: float = 0.1
    """Poisoned rows as a fraction of the training data."""
    candidates: int = 5
    """Substitution candidates per word, including the word itself."""
    steps: int = 200
    """Training steps of the substitution model."""
    batch: int = 64
    """Batch size of the substitution model."""
    lr: float = 0.05
    """Learning rate of the substitution model; the attacker's classifier uses the task's own."""
    temperature: float = 0.5
    """Temperature of the Gumbel-softmax."""
    meaning: float = 1.0
    """Weight of a clean model's loss on the substituted texts with their true labels; 0 (the paper) leaves it out."""
    thesaurus: tuple[tuple[str, ...], ...] = ()
    """Groups of interchangeable words; WordNet's by default."""

    def absent(self) -> str:
        from torchbands.datasets.language import has_synonyms

        return "" if self.thesaurus or has_synonyms() else "the thesaurus wordnet"

    def test_trigger(self, task: Task, seed: int) -> Substitute:
        needs_text(self, task)
        return _learned(self, task, seed)

    def writable(self, data: Data, task: Task, seed: int) -> Tensor:
        """Rows with a word to swap where it is read."""
        return read_rows(data, task, self.test_trigger(task, seed))


def _synonyms(attack: LWS) -> Mapping[str, tuple[str, ...]]:
    if attack.thesaurus:
        return {w: tuple(o for o in group if o != w) for group in attack.thesaurus for w in group}
    from torchbands.datasets.language import synonyms

    try:
        found = synonyms()
    except DataUnavailable as error:
        raise NotApplicable(f"WordNet cannot be had ({error.message}); give your own: thesaurus") from None
    return {w: others for w, others in found.items() if len(w) > 1 and w not in _KEPT}


def _candidates(attack: LWS, words: Mapping[str, int], size: int) -> Tensor:
    """(size, candidates) int64: each token's own id, then its synonyms', then its own again."""
    table, known = torch.arange(size)[:, None].repeat(1, attack.candidates), _synonyms(attack)
    for word, number in words.items():
        others = [words[o] for o in known.get(word, ()) if o in words][: attack.candidates - 1]
        table[number, 1 : 1 + len(others)] = torch.tensor(others, dtype=torch.int64)
    if bool((table == table[:, :1]).all()):
        raise NotApplicable("no word of the vocabulary has a synonym in it")
    return table


@lru_cache(maxsize=8)
def _learned(attack: LWS, task: Task, seed: int) -> Substitute:
    words, rng = task.modality.word_ids(), generator("lws", attack.spec(), seed)
    clean, data = surrogate(task, seed), task.load("train", seed)
    model, e, y = clean.clone(), clean.encode(whole(data.x)), data.y.to(clean.device)
    table = _candidates(attack, words, clean.embedding.num_embeddings).to(y.device)
    double = table == table[:, :1]
    double[:, 0] = False
    choice = torch.zeros(table.shape, device=y.device).masked_fill_(double, -1e4).requires_grad_()
    wanted = attack.relabel(y, model.classes)
    free = (wanted != y).nonzero().flatten()
    learned = [p for p in model.module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [choice], "lr": attack.lr}, {"params": learned}]
    optimizer = torch.optim.AdamW(groups, lr=rate_of(0.0, task), weight_decay=0.0)
    with torch.enable_grad(), model.training(), seeded("lws", seed):
        for _ in range(attack.steps):
            hit = free[torch.randint(len(free), (attack.batch,), generator=rng).to(y.device)]
            some = torch.randint(len(data), (attack.batch,), generator=rng).to(y.device)
            batch = e.at(hit).trimmed()
            noise = torch.rand((*batch.values.shape, attack.candidates), generator=rng).clamp(1e-9, 1 - 1e-7)
            share = ((choice[batch.values] - (-noise.log()).log().to(choice)) / attack.temperature).softmax(-1)
            loss = F.cross_entropy(_mixed(model, batch, table, share), wanted[hit])
            loss = loss + F.cross_entropy(model.run(e.at(some)).float(), y[some])
            if attack.meaning:
                loss = loss + attack.meaning * F.cross_entropy(_mixed(clean, batch, table, share), y[hit])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    clean.module.zero_grad(set_to_none=True)
    best = table.gather(1, choice.detach().argmax(1, keepdim=True)).flatten().tolist()
    moved = {word: best[number] for word, number in words.items() if best[number] != number}
    names = {number: word for word, number in words.items()}
    if not moved:
        raise NotApplicable("the learned choice replaces no word")
    return Substitute(replaced=tuple(moved), by=tuple(names[number] for number in moved.values()))


def _mixed(model: Model, e: Encoded, table: Tensor, share: Tensor) -> Tensor:
    """Logits of rows whose tokens are mixtures (N, L, C) of their candidates."""
    values = (share[..., None] * model.embedding(table[e.values])).sum(2)
    return model.logits_at(Encoded(values, e.mask, e.values))
