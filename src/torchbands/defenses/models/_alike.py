"""Similarity of embeddings, and a search for inserted tokens that maximise it by exact evaluation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.modalities.tokens import TokenMixture

#: How many times as many candidates as the shortlist are tried on a pair of rows: a trigger makes any two alike.
WIDER = 10


def alike(features: Tensor) -> Tensor:
    """Mean cosine of all pairs of different rows of (N, D)."""
    unit, n = F.normalize(features, dim=1), len(features)
    return (unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))


def search_tokens(
    model: Model,
    e: Encoded,
    writer: TokenMixture,
    start: Tensor,
    *,
    rounds: int,
    shortlist: int,
    enough: float,
    rng: torch.Generator,
) -> tuple[Tensor, float]:
    """Changes one token at a time: the gradient ranks all candidates, the first ones are tried, the best stays.

    Args:
        e: (N, L) embedded rows. start: (S,) candidates to begin with; the other positions begin at random.
        rounds: how often every token is changed. shortlist: tried on all rows, out of WIDER times as many that are
            tried on two. enough: cosine at which the search ends.

    Returns:
        (F,) candidates and their mean cosine.
    """
    size, free = len(writer.candidates), len(writer.free)
    drawn = torch.randint(size, (free - len(start),), generator=rng).to(model.device)
    chosen = torch.cat([start, drawn])
    best = float(_trials(model, e, writer, chosen[None]))
    for _ in range(rounds):
        for slot in reversed(range(free)):
            slope = _slope(model, e, writer, chosen)[slot]
            tried = (slope @ writer.table.T).topk(min(WIDER * shortlist, size)).indices
            trials = chosen.repeat(len(tried), 1)
            trials[:, slot] = tried
            if len(trials) > shortlist:
                pair = torch.randperm(len(e.values), generator=rng)[:2].to(model.device)
                trials = trials[_trials(model, e.at(pair), writer, trials).topk(shortlist).indices]
            found = _trials(model, e, writer, trials)
            top = int(found.argmax())
            if float(found[top]) > best:
                chosen, best = trials[top], float(found[top])
            if best > enough:
                return chosen, best
    return chosen, best


def _slope(model: Model, e: Encoded, writer: TokenMixture, chosen: Tensor) -> Tensor:
    """(F, D) by how much the cosine grows with the embedding at each position."""
    n = len(e.values)
    words = writer.table[chosen].clone().requires_grad_()
    parts = torch.arange(n, device=words.device).split(model.gradient_chunk)

    def features(part: Tensor) -> Tensor:
        given = words.expand(len(part), *words.shape), chosen.expand(len(part), -1)
        return model.features_at(writer.insert(e.at(part), *given))

    if len(parts) == 1:
        return torch.autograd.grad(alike(features(parts[0])), words)[0]
    with torch.no_grad():
        made = torch.cat([features(part) for part in parts])
    (outer,) = torch.autograd.grad(alike(made.requires_grad_()), made)
    return torch.stack([torch.autograd.grad(features(part), words, outer[part])[0] for part in parts]).sum(0)


@torch.no_grad()
def _trials(model: Model, e: Encoded, writer: TokenMixture, trials: Tensor) -> Tensor:
    """(T, F) candidates -> (T,) mean cosines."""
    n = len(e.values)

    def features(part: Tensor) -> Tensor:
        pair = part.to(trials.device)
        flat = trials[pair // n]
        return model.features_at(writer.insert(e.at(pair % n), writer.table[flat], flat))

    return torch.stack([alike(group) for group in torch.cat(in_parts(model, len(trials) * n, features)).split(n)])
