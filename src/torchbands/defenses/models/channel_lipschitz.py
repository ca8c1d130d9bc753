"""Channel Lipschitzness as a detector: a unit that serves a trigger is far more sensitive than its neighbours."""

from __future__ import annotations

from typing import ClassVar

import torch

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.measures.lipschitz import channel_lipschitz, z_scores


@method("channel-lipschitz", paper="Zheng et al., ECCV 2022, arXiv:2208.03111", needs=("weights",))
class ChannelLipschitz(ModelDetector):
    """Largest z-score of a unit's Lipschitz bound within its layer. Needs no data and no forward pass.

    Needs: weights. Gives no target.

    Deviations from the paper: the paper prunes the units above mean + u sd; here the same statistic is read as a score
    and any such unit flags the model. Linear, attention and convolution units count alike, with or without a norm
    behind them (the paper: convolution with BatchNorm only). In a layer of n units no score exceeds (n - 1) / sqrt(n),
    so a layer of fewer than 11 units can never flag.
    """

    contract_unshown: ClassVar[str] = "among the 8 to 32 units of a toy's layer no unit can stand out by much"

    u: float = 3.0
    """Outlier threshold: standard deviations above the layer's mean."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        bounds = channel_lipschitz(model)
        if not bounds:
            raise NotApplicable("the model has no layer with units besides its head")
        scores = {layer: z_scores(bound) for layer, bound in bounds.items()}
        tops = torch.stack([z.max() for z in scores.values()])
        counts = torch.stack([(z > self.u).sum() for z in scores.values()])
        best = int(tops.argmax())
        layer = list(scores)[best]
        return Finding(
            score=float(tops[best]),
            flagged=bool((counts > 0).any()),
            evidence={
                "layer": layer,
                "unit": int(scores[layer].argmax()),
                "largest_z": dict(zip(scores, [round(z, 4) for z in tops.tolist()])),
                "outliers": {name: n for name, n in zip(scores, counts.tolist()) if n},
            },
        )
