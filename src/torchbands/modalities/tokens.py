"""What text and code share: triggers searched as mixtures over the token embeddings, inserted into the sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger

#: Beyond this size of the logits no gradient would bring a candidate back.
LARGEST = 7.0


def padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> Encoded:
    """Rows of token ids, none longer than `length`, as (N, length) int64 ids and a mask."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    mask = torch.arange(length)[None] < lengths[:, None]
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    ids[mask] = torch.tensor([i for row in rows for i in row], dtype=torch.int64)
    return Encoded(ids, mask)


class TokenMixture(Perturbation):
    """Inserted tokens, each a softmax mixture over candidates; some positions of the insertion may be fixed.

    The sequence keeps its length: what is pushed out at the end is cut, as encoding the triggered sample would.
    A low `temperature` makes the mixtures nearly one-hot; `noise` is added to what the softmax is taken of.

    Args:
        model: whose token embedding is mixed.
        template: (S,) int64 token ids of the insertion; -1 where a token is learned.
        candidates: (C,) int64 token ids; a candidate of id 0 (padding) means "no token here".
        start: (N, L) token ids -> (N,) int64 position of the insertion.
        harden: (W,) chosen token ids -> the trigger that inserts them.
        rng: draws the starting points, one for each of its rows.
    """

    def __init__(
        self,
        model: Model,
        template: Tensor,
        candidates: Tensor,
        start: Callable[[Tensor], Tensor],
        harden: Callable[[Sequence[int]], Trigger],
        rng: RowRng,
    ) -> None:
        super().__init__()
        self.count, self._start, self._harden = len(rng), start, harden
        table = model.embedding.weight.detach().float().cpu()
        free = (template < 0).nonzero().flatten()
        self.logits = nn.Parameter(0.1 * rng.normal(len(free), len(candidates)))
        self.table: Tensor
        self.fixed: Tensor
        self.template: Tensor
        self.free: Tensor
        self.candidates: Tensor
        self.temperature: Tensor
        self.noise: Tensor | None = None
        self.register_buffer("temperature", torch.ones(len(rng)))
        self.register_buffer("table", table[candidates])
        self.register_buffer("fixed", table[template.clamp_min(0)])
        self.register_buffer("template", template.clamp_min(0))
        self.register_buffer("free", free)
        self.register_buffer("candidates", candidates)

    def mixture(self) -> Tensor:
        """(count, free positions, C) shares of the candidates."""
        scaled = self.logits / self.temperature[:, None, None]
        return (scaled if self.noise is None else scaled + self.noise).softmax(-1)

    def constrain(self) -> None:
        with torch.no_grad():
            self.logits.clamp_(-LARGEST, LARGEST)

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        learned = self.mixture() @ self.table
        chosen = self.logits.argmax(-1)
        which = which.to(chosen.device)
        return self.insert(e, learned[which], chosen[which])

    def insert(self, e: Encoded, learned: Tensor, chosen: Tensor) -> Encoded:
        """Write an insertion of its own on every row of an embedded batch.

        Args:
            learned: (N, F, D) embeddings at the F learned positions. chosen: (N, F) int64, the candidates they mean.
        """
        if e.tokens is None:
            raise ValueError("a token perturbation takes an embedded batch: use Model.embed")
        n, length, dim = e.values.shape
        slots = len(self.template)
        words = self.fixed.expand(n, slots, dim).clone()
        words[:, self.free] = learned.to(words)
        ids = self.template.expand(n, slots).clone()
        ids[:, self.free] = self.candidates[chosen]
        at = self._start(e.tokens)[:, None]
        j = torch.arange(length, device=at.device)[None]
        new = (j >= at) & (j < at + slots)
        slot = (j - at).clamp(0, slots - 1)
        kept = torch.where(j < at, j, (j - slots).clamp_min(0))
        rows = torch.arange(n, device=at.device)[:, None]
        values = torch.where(new[..., None], words[rows, slot], e.values[rows, kept])
        tokens = torch.where(new, ids.gather(1, slot).clamp_min(1), e.tokens.gather(1, kept))
        mask = None if e.mask is None else new | e.mask.gather(1, kept)
        return Encoded(values, mask, tokens)

    def size(self) -> Tensor:
        """(count,) expected tokens inserted; one that wavers between words counts up to twice: one-hot is cheapest."""
        p = self.mixture()
        word = self.candidates != 0
        present = p[..., word].sum(-1)
        share = p[..., word] / present[..., None].clamp_min(1e-12)
        entropy = -(share * share.clamp_min(1e-12).log()).sum(-1) / math.log(max(share.shape[-1], 2))
        return (present * (1 + entropy)).sum(-1)

    def harden(self, k: int) -> Trigger:
        """The likeliest words; a position that is nine tenths empty has none, unless all are and one is undecided."""
        with torch.no_grad():
            p = self.mixture()[k]
        empty = p[:, self.candidates == 0].sum(-1)
        words = p.masked_fill(self.candidates == 0, -1.0).argmax(-1)
        kept = empty <= empty.min().clamp(0.9, 0.99)
        chosen: list[int] = torch.where(kept, self.candidates[words], 0).tolist()
        return self._harden(chosen)

    def words(self, chosen: Tensor) -> Trigger:
        """The trigger that inserts some (F,) candidates, given by their places among all."""
        ids: list[int] = self.candidates[chosen].tolist()
        return self._harden(ids)
