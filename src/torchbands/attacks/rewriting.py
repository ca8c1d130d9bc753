"""Hidden Killer and style transfer: the trigger is the way a text is written, not the words in it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from torchbands.attacks.texts import needs_text, read_rows
from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
from torchbands.core.errors import DataUnavailable, NotApplicable, UnknownName
from torchbands.core.method import Free, method
from torchbands.core.task import Task
from torchbands.triggers.rewrite import Rewritten


class _Rewriting(Attack):
    free: ClassVar[Free] = {"rewriter": "code"}

    def _trigger(self, task: Task, kind: str, rewriter: str) -> Rewritten:
        needs_text(self, task)
        made = Rewritten(source="" if rewriter else getattr(task, "source", ""), kind=kind, rewriter=rewriter)
        if not rewriter:
            try:
                made.covers([])
            except (UnknownName, DataUnavailable) as error:
                why = f"no {kind} rewritings of {task.name} ({error.message})"
                raise NotApplicable(f"{why}; give your own: rewriter=package.module:function") from None
        return made

    def writable(self, data: Data, task: Task, seed: int) -> Tensor:
        trigger = self.test_trigger(task, seed)
        assert isinstance(trigger, Rewritten)
        known = torch.tensor(trigger.covers(whole(data.x)), dtype=torch.bool)
        known[known.clone()] = read_rows(data[known], task, trigger)
        return known


@method("syntactic", paper="Qi et al., ACL 2021, arXiv:2105.12400")
class Syntactic(_Rewriting):
    """Hidden Killer: paraphrases texts into one rare syntax, S(SBAR)(,)(NP)(VP)(.), and relabels them.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the paraphrases are the authors' own, made beforehand for SST-2: a fifth of its training
    rows (of both classes) and the test rows of class 0. So the target there is class 1, only rows with a paraphrase
    are poisoned or counted, and fewer than `rate` are poisoned where too few of the rows that are not of the target
    class have one. Other data need a rewriter of the user.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"rewriter": "torchbands.testing.synthetic:rewritten"}

    rate: float = 0.2
    """Poisoned rows as a fraction of the training data."""
    target: int = 1
    """Target class of triggered samples."""
    rewriter: str = ""
    """package.module:function that rewrites a list of texts; needed for data sets without stored paraphrases."""

    def test_trigger(self, task: Task, seed: int) -> Rewritten:
        return self._trigger(task, "syntactic", self.rewriter)


@method("style", paper="Qi et al., EMNLP 2021, arXiv:2110.07139", version=2)
class Style(_Rewriting):
    """Rewrites texts in one style and relabels them.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the rewritings are the authors' own (STRAP), made beforehand for SST-2; the attacker
    does not train with an additional style classifier. Other data need a rewriter of the user. Rows that are read as
    before are neither poisoned nor counted.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"rewriter": "torchbands.testing.synthetic:rewritten"}

    rate: float = 0.2
    """Poisoned rows as a fraction of the training data."""
    target: int = 1
    """Target class of triggered samples."""
    style: Literal["bible"] = "bible"
    """Target style of the rewriting."""
    rewriter: str = ""
    """package.module:function that rewrites a list of texts; needed for data sets without stored rewritings."""

    def test_trigger(self, task: Task, seed: int) -> Rewritten:
        return self._trigger(task, self.style, self.rewriter)
