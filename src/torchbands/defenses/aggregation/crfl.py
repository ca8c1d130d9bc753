"""CRFL: the global model is kept short and blurred, from which follows how much poison its smoothed vote withstands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import distances, middle, relative
from torchbands.defenses.aggregation._noise import Noise


@method("crfl", paper="Xie et al., ICML 2021, arXiv:2106.08283")
class CRFL(Aggregator):
    """The mean update; then the whole global model is clipped to a bound that grows by the round, and noise is added.

    `radius` is the paper's certificate. It needs the Lipschitz constant of the clients' gradients, which the paper
    gives for multinomial logistic regression alone, and the vote of many blurred copies of the model, which is not
    built: no record holds a radius.

    Deviations from the paper: clients count alike, not by their number of rows; noise is added in the last round too,
    which a server does not know for the last; running statistics are joined by the median of each, without clipping or
    noise; a client's suspicion, which the paper does not give, is the length of its update divided by the median.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"bound": 100.0}
    contract_unshown: ClassVar[str] = "it bounds the model and no client, and the contract's client boosts its update"

    bound: float = 15.0
    """Longest global model, in units of its parameters' Euclidean norm."""
    growth: float = 0.0
    """By how much the bound grows in a round."""
    sigma: float = 0.01
    """Standard deviation of the noise on each parameter."""

    def __post_init__(self) -> None:
        if self.bound <= 0 or self.growth < 0 or self.sigma < 0:
            raise InputError(f"{self.name}: bound is above 0, growth and sigma at least 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return CRFLServer(self, Noise(self.name, seed, self.sigma))


class CRFLServer(Server):
    def __init__(self, settings: CRFL, noise: Noise) -> None:
        self.settings, self.noise = settings, noise

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        bound = self.settings.bound + self.settings.growth * self.noise.rounds
        model = weights.double() + sent.weights.mean(0).double()
        short = model * (bound / torch.linalg.vector_norm(model).clamp_min(1e-300)).clamp_max(1)
        step = (short - weights.double()).to(weights.dtype)
        suspicion = relative(distances(sent.weights))
        return Aggregate(step + self.noise.like(step), middle(sent.buffers), suspicion)


def radius(
    first: float,
    second: float,
    *,
    sigma: float,
    bounds: Sequence[float],
    lipschitz: float,
    attackers: int,
    clients: int,
    poisoned: float,
    steps: int,
    lr: float,
    scale: float,
) -> float:
    """The largest backdoor pattern, by its Euclidean norm, that cannot change one smoothed answer.

    Args:
        first, second: bounds of the probability, among blurred models, of the answer (from below) and of the next class
            (from above). sigma: of the noise. bounds: of the model's length in each round after the attack, the last
            of all included.
        lipschitz: of the clients' gradient with respect to a row. attackers, clients: in the attacked round.
        poisoned: share of poisoned rows in a batch. steps, lr: of local training. scale: factor on what attackers send.

    0 where the answer is not sure to be first; infinity where nothing can be certified against it.
    """
    if not 0 <= second <= 1 or not 0 <= first <= 1 or attackers < 1 or clients < 1 or sigma <= 0:
        raise InputError("crfl: probabilities are in [0, 1], sigma above 0, attackers and clients at least 1")
    if first <= second:
        return 0.0
    gap = (math.sqrt(first) - math.sqrt(second)) ** 2
    if gap >= 1:
        return math.inf
    kept = math.prod(math.erf(bound / sigma / math.sqrt(2)) for bound in bounds)  # 2 Phi(bound / sigma) - 1
    moved = 2 * attackers**2 * (scale * steps * lr * lipschitz * poisoned / clients) ** 2 * kept
    return math.sqrt(-math.log1p(-gap) * sigma**2 / moved)
