"""Token effects: what each token of the vocabulary does to each class, tried one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data, take
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.trigger import Trigger
from torchbands.modalities.tokens import TokenMixture

from ._inversion import frozen, token_writer


@method("token-effects", paper="torchbands", needs=("gradients", "clean:200"), version=2)
class TokenEffects(ModelDetector):
    """By how much each token, put before clean samples, raises the log odds of each class (per_trigger).

    An ordinary word has an effect of its own ("awful" speaks for a negative review), and it has nearly the same one in
    every model of the recipe. A trigger's token has one that no reference model gives it, whatever the place of the
    effect among other words. So a number means something only beside the same token's in reference models
    (`torchbands.scanner`); the score is the largest effect, and no rule flags anything.

    A method of this toolkit. It is the exhaustive form of the vocabulary ranking that trigger searches begin with
    (HotFlip, Ebrahimi et al., ACL 2018; Wallace et al., EMNLP 2019).

    Deviations from the paper: none; there is no paper. All learned positions of an insertion hold the same token.

    Needs: clean labelled samples, and inputs made of tokens; embeddings are written, so a black box will not do.

    Cost: tokens x rows forward passes of the shortest of its samples; the rows are as many as `passes` allows.
    """

    passes: int = 60_000
    """Maximum number of forward passes, not counting two rows for every token."""
    rows: int = 8
    """Maximum number of samples that a token is tried on."""
    precision: Literal["float32", "fast"] = "fast"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        writer = token_writer(self, model)
        count = max(2, min(self.rows, self.passes // len(writer.candidates)))
        with frozen(model.module):
            effects = self._effects(model, writer, _short(model, clean, count))
        token, target = divmod(int(effects.argmax()), model.classes)

        def insertion(tokens: Sequence[int]) -> Trigger:
            framed = len(writer.template) > len(writer.free)  # bytes of an instruction: all of them are needed
            chosen = torch.tensor(list(tokens), device=writer.candidates.device)
            return writer.words(chosen.repeat_interleave(len(writer.free) if framed else 1))

        top = effects.topk(min(3, len(effects)), 0).indices.T
        return Finding(
            score=float(effects.max()),
            target=target,
            trigger=insertion([token]),
            per_trigger=effects,
            insertion=insertion,
            evidence={
                "tokens": len(effects),
                "rows": count,
                "largest": [" ".join(map(str, getattr(insertion(row), "words", ()))) for row in top.tolist()],
            },
        )

    def work(self, model: Model, rows: int) -> Work:
        tokens = len(token_writer(self, model).candidates)
        count = min(rows, max(2, min(self.rows, self.passes // tokens)))
        return Work(count * (tokens + 1))

    @torch.no_grad()
    def _effects(self, model: Model, writer: TokenMixture, e: Encoded) -> Tensor:
        """(T, K) mean change of the log-odds of every class by one token, at the first of the writer's positions."""
        rows, free = len(e.values), len(writer.free)
        before = torch.cat(in_parts(model, rows, lambda part: _odds(model.logits_at(e.at(part.to(model.device))))))

        def effects(part: Tensor) -> Tensor:
            pairs, odds = torch.arange(len(part) * rows, device=model.device), []
            for some in pairs.split(model.chunk):  # the rows of one token may not fit
                words = part.to(model.device)[some // rows][:, None].repeat(1, free)
                odds.append(_odds(model.logits_at(writer.insert(e.at(some % rows), writer.table[words], words))))
            return (torch.cat(odds).view(len(part), rows, -1).mean(1) - before.mean(0)).cpu()

        return torch.cat(in_parts(model, len(writer.candidates), effects, each=rows))


def _odds(logits: Tensor) -> Tensor:
    """(N, K) logits -> (N, K) log-odds of every class against all others."""
    told = logits.float().log_softmax(1)
    top = told.argmax(1, keepdim=True)
    # 1 - p is exact where p is at most a half; of the likeliest class the others are summed
    rest = told.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    others = torch.log1p(-told.exp().clamp_max(0.5)).scatter(1, top, rest)
    return told - others


def _short(model: Model, clean: Data, count: int) -> Encoded:
    """`count` short samples, of the classes in turn, embedded without padding: they cost least. A sample that already
    is of the class that a token leads to shows little of its effect, so there are always two classes."""
    lengths = model.encode(clean.x).lengths()
    length = torch.zeros(len(clean), dtype=torch.int64) if lengths is None else lengths.cpu()
    picked = []
    for label in clean.y.unique():
        mine = (clean.y == label).nonzero().flatten()
        mine = mine[length[mine].argsort(stable=True)]
        picked.append(mine[len(mine) // 8 :][: -(-count // 2)])
    turns = [rows[i] for i in range(max(map(len, picked))) for rows in picked if i < len(rows)]
    return model.embed(take(clean.x, torch.stack(turns)[:count])).trimmed()
