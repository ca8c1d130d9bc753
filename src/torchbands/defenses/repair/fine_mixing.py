"""Fine-mixing: resets most weights to the pre-trained ones, then fine-tunes on clean rows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.learners.finetune import finetune

#: Words seen less often than this count as seen this often.
RARE = 20


@method(
    "fine-mixing",
    paper="Zhang et al., Findings of EMNLP 2022, arXiv:2210.09545",
    needs=("gradients", "weights", "clean:2500"),
    version=2,
)
class FineMixing(Repair):
    """Keeps each fine-tuned weight with probability `ratio`, resets the others to pre-trained, then fine-tunes.

    Before that, embedding purification (E-PUR): the `words` tokens whose embeddings moved most from the pre-trained
    ones, for how often they occur, get those back: |moved| / log(max(frequency, 20)).

    Ratios are tried from the smallest; the first whose accuracy on held-out clean rows is within `tolerance` of the
    given model's is taken, else the most accurate.

    Threat model: the attacker fine-tuned a public encoder; the defender has the public weights. Needs: a network with
    `pretrained_state()`; others are declined, for their weights began from nothing that is known.

    Deviations from the paper: frequencies are counted in the clean rows, not in a large corpus; few ratios are tried;
    the learning rate suits MiniLM (BERT: 2e-5); weights that the public encoder does not have (the head) are kept.

    Cost: one fine-tuning for each ratio tried.
    """

    contract_declines: ClassVar[bool] = True

    ratios: tuple[float, ...] = (0.1, 0.3, 0.5)
    """Fractions of fine-tuned weights to keep, tried in this order."""
    words: int = 200
    """Number of embeddings that E-PUR resets to their pre-trained values; 0: none."""
    tolerance: float = 0.03
    """Largest drop of held-out clean accuracy, as a fraction."""
    held_out: float = 0.2
    """Fraction of the clean rows held out to choose the ratio."""
    epochs: int = 4
    """Epochs over the remaining clean rows, for each ratio."""
    lr: float = 2e-4
    """Learning rate of AdamW, with a half-cosine schedule."""
    batch: int = 16
    """Batch size."""

    def __post_init__(self) -> None:
        if not self.ratios or not all(0.0 <= r <= 1.0 for r in self.ratios):
            raise InputError(f"{self.name}: ratios are fractions in [0, 1], at least one, got {self.ratios}")
        if not 0.0 < self.held_out < 1.0:
            raise InputError(f"{self.name}: held_out is a fraction between 0 and 1, got {self.held_out}")

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        public = public_weights(model)
        order = torch.randperm(len(clean), generator=generator("fine-mixing", seed))
        cut = max(1, round(self.held_out * len(clean)))
        judge, rest = clean[order[:cut]], clean[order[cut:] if cut < len(clean) else order]
        wanted = accuracy(model, judge) - self.tolerance
        best, found = -1.0, model.clone()
        purified = self._purified(model, public, rest)
        for ratio in self.ratios:
            tried = purified.clone()
            mix(tried, public, ratio, generator("fine-mixing mask", seed))
            finetune(tried, rest, epochs=self.epochs, lr=self.lr, batch=self.batch, adam=True, seed=seed)
            reached = accuracy(tried, judge)
            if reached > best:
                best, found = reached, tried
            if reached >= wanted:
                break
        return found

    def _purified(self, model: Model, public: dict[str, Tensor], clean: Data) -> Model:
        out = model.clone()
        name = f"{out.traced.embedding}.weight"
        if self.words and name in public and model.modality.discrete:
            table, before = out.module.get_parameter(name), public[name]
            e = model.modality.encode(whole(clean.x))
            seen = e.values if e.mask is None else e.values[e.mask]
            frequency = torch.bincount(seen.flatten(), minlength=len(before)).to(before)
            moved = (table.detach() - before).norm(dim=1) / frequency.clamp_min(RARE).log()
            rows = moved.topk(min(self.words, len(moved))).indices
            with torch.no_grad():
                table[rows] = before[rows]
        return out


def public_weights(model: Model) -> dict[str, Tensor]:
    """The public weights by the module's own parameter names, on its device.

    Raises NotApplicable where the network did not begin from any, or does not name them.
    """
    state = getattr(model.module, "pretrained_state", None)
    if state is None:
        raise NotApplicable("the network did not begin from public weights, so there is nothing to mix in")
    known = dict(model.module.named_parameters())
    found = {k: v.to(known[k]) for k, v in state().items() if k in known and known[k].shape == v.shape}
    if not found:
        raise NotApplicable("none of the network's weights is one of the public encoder (an adapter hides them)")
    return found


@torch.no_grad()
def mix(model: Model, public: dict[str, Tensor], ratio: float, rng: torch.Generator) -> None:
    """Keep each of the model's weights with probability `ratio`, in place; the others become the public ones."""
    for name, weight in model.module.named_parameters():
        if name in public:
            keep = torch.rand(weight.shape, generator=rng).to(weight.device) < ratio
            weight.copy_(torch.where(keep, weight, public[name]))


def accuracy(model: Model, data: Data) -> float:
    """Of a model on raw labelled rows."""
    return float((model.logits(data.x).argmax(1) == data.y).float().mean())
