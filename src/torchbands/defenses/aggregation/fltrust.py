"""FLTrust: the server trains on a few rows of its own, and trusts who goes its way."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Learner
from torchbands.core.seeding import seed_of
from torchbands.defenses.aggregation._geometry import distances
from torchbands.defenses.aggregation._global import GlobalModel
from torchbands.learners.sgd import SGD
from torchbands.learners.vectors import weights_of


@method("fltrust", paper="Cao et al., NDSS 2021, arXiv:2012.13995", needs=("clean:100",))
class FLTrust(Aggregator):
    """Updates are scaled to the length of the server's own, and weighted by their cosine to it where that is above 0.

    Deviations from the paper: the server trains for whole passes over its rows, as clients here do; the global rate is
    1; running statistics are the mean by the same trust; where nobody is trusted, the global model stays as it is. A
    client's suspicion is 1 - its cosine, and clients without trust are not kept.
    """

    local: Learner = SGD(epochs=1, batch=32, lr=0.05, schedule="constant")
    """How the server trains on its rows: as its clients do."""

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        if clean is None:
            raise InputError(f"{self.name} trains on {self.clean_needed()} clean rows of the server's own, got none")
        return TrustingServer(self.local, model, clean, seed)


class TrustingServer(Server):
    def __init__(self, local: Learner, model: Model, clean: Data, seed: int) -> None:
        self.local, self.clean, self.seed, self.rounds = local, clean, seed, 0
        self.model = GlobalModel(model)

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        own = self._train(weights).double()
        length, sizes = torch.linalg.vector_norm(own), distances(sent.weights)
        along = torch.cat([part.double() @ own for part in sent.weights.split(64)])
        cosine = (along / (sizes * length).clamp_min(1e-300)).clamp(-1, 1)
        trust = cosine.clamp_min(0)
        mix = trust / trust.sum().clamp_min(1e-300)
        step = (mix * length / sizes.clamp_min(1e-300)).to(sent.weights.dtype) @ sent.weights
        running = mix.to(sent.buffers.dtype) @ sent.buffers
        self.model.moved(running)
        return Aggregate(step, running, (1 - cosine).float().cpu(), (trust > 0).cpu())

    def _train(self, weights: Tensor) -> Tensor:
        """(D,): how the server's own rows change the global model."""
        model = self.model.at(weights)
        self.local.fit(model, self.clean, seed=seed_of("fltrust", self.seed, self.rounds))
        self.rounds += 1
        return weights_of(model) - weights
