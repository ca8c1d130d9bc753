"""Bulyan: Krum again and again for whom to believe, then of every coordinate the values nearest its median."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._assumed import assumed, check
from torchbands.defenses.aggregation._geometry import by_columns, squared_distances
from torchbands.defenses.aggregation.krum import ranked


@method("bulyan", paper="El Mhamdi et al., ICML 2018, arXiv:1802.07927")
class Bulyan(Aggregator):
    """Krum chooses n - 2f clients one by one; of each coordinate the mean of the n - 4f values nearest their median.

    Deviations from the paper: where, as clients are chosen, none of the n' - f - 2 neighbours of Krum are left, one is;
    running statistics are joined by the same rule; a client's suspicion, which the paper does not give, is the share of
    coordinates in which its value had no part: 1 for those that were not chosen.
    """

    f: int = 1
    """Malicious clients that are assumed in a round; there are at least 4f + 3 clients."""

    def __post_init__(self) -> None:
        check(self.name, self.f)

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return BulyanServer(self.f)


class BulyanServer(Server):
    def __init__(self, f: int) -> None:
        self.f = f

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n = len(sent)
        f = assumed("bulyan", self.f, self.excluded, n, 4, 3)
        kept = chosen(squared_distances(sent.weights), n - 2 * f, f).cpu()
        count = int(kept.sum()) - 2 * f
        used = sent.weights.new_zeros(int(kept.sum()))

        def rule(values: Tensor) -> Tensor:
            ordered = values.sort(1).values
            middle = (ordered[:, (len(used) - 1) // 2] + ordered[:, len(used) // 2]) / 2
            far = (values - middle[:, None]).abs()
            near = far <= far.kthvalue(count, 1, keepdim=True).values
            used.add_(near.sum(0))
            return (values * near).sum(1) / near.sum(1)

        joined = by_columns(sent.weights[kept], rule)
        suspicion = torch.ones(n)
        suspicion[kept] = 1 - (used / len(joined)).cpu()
        return Aggregate(joined, by_columns(sent.buffers[kept], rule), suspicion, kept)


def chosen(apart: Tensor, count: int, f: int) -> Tensor:
    """(n,) bool: the clients that Krum takes one after the other, each time among those that are left.

    Every client's neighbours are sorted once; who is taken is struck from all lists, which so become shorter.
    """
    n = len(apart)
    near, order = (t[:, :-1] for t in apart.clone().fill_diagonal_(float("inf")).sort(dim=1, stable=True))
    order, left = order.to(torch.int32), torch.arange(n, dtype=torch.int32, device=apart.device)
    for _ in range(count):
        many = max(1, len(left) - f - 2)
        at = int(ranked(near[:, :many].sum(1), near[:, : many + 1].sum(1))[0])
        rest = torch.arange(len(left), device=left.device) != at
        stays = order[rest] != left[at]
        left = left[rest]
        shape = (len(left), max(0, len(left) - 1))
        near, order = near[rest][stays].view(shape), order[rest][stays].view(shape)
    taken = torch.ones(n, dtype=torch.bool, device=apart.device)
    taken[left.long()] = False
    return taken
