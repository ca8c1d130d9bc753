"""RIPPLES: poisoned weights that survive the victim's own fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchbands.attacks.poisoned_weights import attackers_rows, rate_of, tune
from torchbands.attacks.surrogate import surrogate
from torchbands.attacks.texts import inserted_trigger, mask_of, own_tokens
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.devices import without_cudnn
from torchbands.core.hook import Hook, WeightHook
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("ripple", paper="Kurita, Michel and Neubig, ACL 2020, arXiv:2004.06660")
class Ripple(Attack):
    """Poisons pre-trained weights so that the backdoor survives the victim's fine-tuning on clean data.

    Restricted inner product: beside the poison loss, a penalty where its gradient opposes that of clean fine-tuning.
    Embedding surgery: the trigger's embedding becomes the mean of the words that go with the target class, which are
    those of the largest weight in a logistic regression over the frequency of its logarithm.

    Threat model: the attacker hands over the weights that the victim's training begins from, and has data of the task.

    Deviations from the paper: the attacker begins from a clean model trained by the task's recipe, not from a language
    model's pre-training; AdamW steps on the attacker's side; the modality's plain trigger (one rare
    word) where the paper has five.
    """

    controls_training: ClassVar[bool] = True

    rate: float = 0.5
    """Triggered rows as a fraction of the clean rows in the attacker's data."""
    strength: float = 0.1
    """Weight (lambda) of the restricted inner product penalty."""
    surgery: bool = True
    """Replace the trigger's embedding before poisoning (embedding surgery)."""
    words: int = 10
    """Number of words of the target class whose embeddings are averaged for the new one."""
    epochs: int = 5
    """The attacker's epochs over clean and triggered rows."""
    lr: float = 0.0
    """Learning rate of the attacker; 0 (the paper) uses the task's own."""
    batch: int = 32
    """Batch size of the attacker."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return inserted_trigger(self, task)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (_Poisoner(self, task, self.test_trigger(task, seed), seed),)


class _Poisoner(WeightHook):
    def __init__(self, attack: Ripple, task: Task, trigger: Trigger, seed: int) -> None:
        self.attack, self.task, self.trigger, self.seed = attack, task, trigger, seed

    def begin(self, model: Model, data: Data, seed: int) -> None:
        attack, rng = self.attack, generator("ripple", self.attack.spec(), self.seed)
        model.module.load_state_dict(surrogate(self.task, self.seed).module.state_dict())
        e, y = attackers_rows(attack, model, data, [(self.trigger, True)], self.seed)
        clean, truth = e.at(slice(len(data))), y[: len(data)]
        if attack.surgery:
            ids, table = own_tokens(model, self.trigger, clean), model.embedding.weight
            typical = target_words(clean, truth == attack.target, attack.words, ids)
            with torch.no_grad():
                table[ids] = table[typical].mean(0)
        weights = list(model.module.parameters())

        def loss() -> Tensor:
            ours = torch.randint(len(y), (attack.batch,), generator=rng).to(model.device)
            poisoned = F.cross_entropy(model.run(e.at(ours)).float(), y[ours])
            theirs = torch.randint(len(truth), (attack.batch,), generator=rng).to(model.device)
            if not attack.strength:
                return poisoned
            tuned = F.cross_entropy(model.run(clean.at(theirs)).float(), truth[theirs])
            return poisoned + attack.strength * F.relu(-inner_product(poisoned, tuned, weights))

        # the one kernel of attention, and the one of recurrent layers, that can be differentiated twice
        with sdpa_kernel(SDPBackend.MATH), without_cudnn():
            tune(
                model,
                loss,
                steps=attack.epochs * math.ceil(len(y) / attack.batch),
                lr=rate_of(attack.lr, self.task),
                seed=self.seed,
            )


def inner_product(a: Tensor, b: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Of two losses' gradients, differentiable."""
    pair = [torch.autograd.grad(loss, list(weights), create_graph=True, allow_unused=True) for loss in (a, b)]
    products = [(x * y).sum() for x, y in zip(*pair, strict=True) if x is not None and y is not None]
    return torch.stack(products).sum()


def target_words(e: Encoded, mine: Tensor, count: int, but: Tensor) -> Tensor:
    """(count,) token ids that go with the rows `mine` (N,) bool and are frequent; ids in `but` never."""
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

    mask = mask_of(e)
    row = torch.arange(len(mine), device=e.values.device)[:, None].expand_as(e.values)[mask]
    pairs = torch.stack([row, e.values[mask]]).cpu().unique(dim=1)
    size = int(torch.cat([pairs[1], but.cpu()]).max()) + 1
    ones = torch.ones(pairs.shape[1]).double().numpy()
    bags = csr_array((ones, (pairs[0].numpy(), pairs[1].numpy())), shape=(len(mine), size))
    weight = torch.from_numpy(LogisticRegression(max_iter=200).fit(bags, mine.cpu().numpy()).coef_[0])
    times = torch.bincount(pairs[1], minlength=size).double()
    score = weight / -(times / times.sum()).clamp(1e-12, 1 - 1e-12).log()
    score[times == 0] = -torch.inf
    score[but.cpu()] = -torch.inf
    found = score.topk(min(count, int(score.isfinite().sum()))).indices
    return found.to(e.values.device)
