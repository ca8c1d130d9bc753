"""DeBackdoor: triggers are searched by annealing over templates, with nothing but a model's answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.core.template import State, Template
from torchbands.core.trigger import Trigger

from ._templates import templates_for


@method(
    "debackdoor",
    paper="Popovic et al., USENIX Security 2025, arXiv:2503.21305",
    needs=("logits", "clean:100"),
    version=2,
)
class DeBackdoor(ModelDetector):
    """Black box: simulated annealing over trigger templates; how well does the best one reach each class?

    A candidate's worth for target t is cASR = mean sigmoid(sharpness * (p_t - max_{i != t} p_i)) over the triggered
    samples of other classes: it guides the search and chooses the trigger. `per_class` holds the log odds of the
    largest mean posterior that any candidate reached, higher more suspicious; the score is the largest; `statistics`
    the (templates x K) of them one template at a time, for calibration against references; `per_pair` the same for a
    single source class. The paper judges by the success of what was found, which is in the evidence; no threshold of
    its own is applied here, so nothing is flagged.

    Templates: a patch and a blend (images), words at the start (text), one or two fields (tables), dimensions
    (observations), the free bytes of a NOP (code). Other modalities are declined. Two classes are no different.

    Needs: logits (a black box will do), a few clean labelled samples.

    Deviations from the paper: all targets are searched together, and every answer counts for every target and source.
    A quarter of the budget goes to random candidates, of which each target takes the best to start from. The target
    is one class for all sources (All2One); One2One is read off the same answers. Filters, warps and generators have
    no template here. The model's score is of posteriors, since cASR has the same floor and ceiling for many classes.

    With more classes than candidates can be paid for in two rounds, the chains go to the targets that the random
    candidates speak for most.

    Cost: `passes` forward passes in all, and no gradient; at least two candidates of each template.
    """

    free: ClassVar[Free] = {"templates": "text"}

    contract_settings: ClassVar[dict[str, Any]] = {"passes": 10_000}

    passes: int = 30_000
    """Query budget: triggered samples sent to the model, over all templates."""
    rows: int = 32
    """Clean samples on which every candidate is evaluated, the same number for every class."""
    chains: int = 10
    """Annealing chains run in parallel, at least one for each class."""
    sharpness: float = 5.0
    """Sharpness of the sigmoid (the paper's lambda)."""
    hot: float = 0.05
    """Initial temperature: a step that loses this much cASR is accepted with probability 1/e."""
    cold: float = 0.001
    """Final temperature."""
    templates: tuple[str, ...] = ()
    """Names of the trigger templates to search; empty: all that the modality has."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        if min(self.passes, self.rows, self.chains) < 1:
            raise InputError("debackdoor: passes, rows and chains are at least 1")
        templates = templates_for(model.modality, self.templates)
        rows = clean.sample(self.rows, "debackdoor", seed, balanced=True)
        searches = [
            _Search(self, model, rows, template).run(self.passes // len(templates), seed) for template in templates
        ]
        odds = torch.stack([log_odds(s.posterior) for s in searches])  # (templates, K)
        no_source = torch.eye(model.classes, dtype=torch.bool)
        no_source[torch.bincount(rows.y, minlength=model.classes) == 0] = True
        pairs = torch.stack([log_odds(s.pairs) for s in searches]).amax(0).masked_fill(no_source, torch.nan)
        which, target = divmod(int(odds.argmax()), model.classes)
        found = searches[which]
        evidence: dict[str, Any] = {
            "template": found.template.name,
            "cASR": {s.template.name: [round(v, 4) for v in s.best.tolist()] for s in searches},
            "success": round(float(found.success[target]), 4),
            "passes": sum(s.spent for s in searches),
            "candidates": sum(s.tried for s in searches),
        }
        return Finding(
            score=float(odds.max()),
            target=target,
            source=int(found.pairs.masked_fill(no_source, -1.0)[:, target].argmax()),
            trigger=found.trigger(target),
            per_class=odds.amax(0),
            per_pair=pairs,
            statistics=odds.flatten(),
            evidence=evidence,
        )

    def work(self, model: Model, rows: int) -> Work:
        return Work(self.passes)


@dataclass
class _Worth:
    """Of C candidates for K targets, over samples of other classes: (C, K) cASR and share sent there, (K,) largest mean
    posterior of any, and the same of each of S source classes that have samples, (S, K)."""

    total: Tensor
    success: Tensor
    posterior: Tensor
    sources: Tensor
    pairs: Tensor


class _Search:
    """The search of one template for all targets."""

    def __init__(self, settings: DeBackdoor, model: Model, rows: Data, template: Template[Any]) -> None:
        self.settings, self.model, self.rows, self.template = settings, model, rows, template
        k = model.classes
        self.best, self.success = torch.full((k,), -1.0), torch.zeros(k)
        self.posterior, self.pairs = torch.zeros(k), torch.zeros(k, k)
        self.spent = self.tried = 0
        self._kept: State = {}

    def trigger(self, k: int) -> Trigger:
        """The best for target k."""
        return self.template.harden(self._kept, k)

    def run(self, budget: int, seed: int) -> _Search:
        """Random candidates, then one or more chains for each target."""
        s, k = self.settings, self.model.classes
        rng = generator("debackdoor", self.template.name, seed)
        count = max(1, min(k * math.ceil(s.chains / k), budget // (2 * len(self.rows))))
        rounds = max(2, budget // (count * len(self.rows)))
        first = max(1, rounds // 4)
        for _ in range(first):
            self._ask(self.template.draw(count, rng))
        targets = torch.arange(count) % k if count >= k else self.best.topk(count).indices
        at = {name: t[targets] for name, t in self._kept.items()}
        worth = self.best[targets]
        for step in range(rounds - first):
            heat = 1 - step / (rounds - first)
            there = self.template.move(at, heat, rng)
            now = self._ask(there).gather(1, targets[:, None]).squeeze(1)
            temperature = s.cold * (s.hot / s.cold) ** heat
            accepted = torch.rand(count, generator=rng).log() * temperature < now - worth
            at = _where(accepted, there, at)
            worth = torch.where(accepted, now, worth)
        return self

    def _ask(self, state: State) -> Tensor:
        """(C, K) worth of candidates; the best so far are kept."""
        count = len(next(iter(state.values())))
        parts = in_parts(self.model, count, lambda part: self._worth(_at(state, part)), each=len(self.rows))
        self.spent += count * len(self.rows)
        self.tried += count
        total, success = torch.cat([w.total for w in parts]), torch.cat([w.success for w in parts])
        top, which = total.max(0)
        better = top > self.best
        chosen = _at(state, which)
        self._kept = _where(better, chosen, self._kept) if self._kept else chosen
        self.best = torch.where(better, top, self.best)
        self.success = torch.where(better, success.gather(0, which[None])[0], self.success)
        for w in parts:
            self.posterior = torch.maximum(self.posterior, w.posterior)
            self.pairs[w.sources] = torch.maximum(self.pairs[w.sources], w.pairs)
        return total

    def _worth(self, state: State) -> _Worth:
        count, n, k = len(next(iter(state.values()))), len(self.rows), self.model.classes
        answers = self.model.logits(self.template.write(self.rows.x, state)).softmax(1)
        gaps, answers = margins(answers).view(count, n, k), answers.view(count, n, k)
        own = F.one_hot(self.rows.y, k).float()  # (n, K)
        others = (1 - own) / (1 - own).sum(0).clamp_min(1)
        sources, which = self.rows.y.unique(return_inverse=True)
        of = F.one_hot(which).float()
        return _Worth(
            ((self.settings.sharpness * gaps).sigmoid() * others).sum(1),
            ((gaps > 0) * others).sum(1),
            (answers * others).sum(1).amax(0),
            sources,
            torch.einsum("cnk,ns->csk", answers, of / of.sum(0)).amax(0),
        )


def margins(probabilities: Tensor) -> Tensor:
    """(N, K) by how much each class exceeds the largest other one."""
    top = probabilities.topk(2, 1)
    rivals = top.values[:, :1].expand_as(probabilities).scatter(1, top.indices[:, :1], top.values[:, 1:])
    return probabilities - rivals


def log_odds(share: Tensor) -> Tensor:
    """Logit of shares, with 0 and 1 as far as 1e-6 from the end."""
    return share.clamp(1e-6, 1 - 1e-6).logit()


def _at(state: State, rows: Tensor) -> State:
    return {name: t[rows] for name, t in state.items()}


def _where(chosen: Tensor, new: State, old: State) -> State:
    return {name: torch.where(chosen.view(-1, *[1] * (t.ndim - 1)), t, old[name]) for name, t in new.items()}
