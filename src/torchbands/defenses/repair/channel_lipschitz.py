"""Channel Lipschitz pruning: data-free pruning of units that amplify far more than the rest of their layer."""

from __future__ import annotations

from typing import Any, ClassVar

from torchbands.core.data import Data
from torchbands.core.defense import Repair, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.measures.lipschitz import channel_lipschitz, z_scores


@method("channel-lipschitz", paper="Zheng et al., ECCV 2022, arXiv:2208.03111", needs=("units", "weights"))
class ChannelLipschitz(Repair):
    """Zeroes units whose Lipschitz bound is more than `u` standard deviations above their layer's mean (CLP).

    Deviations from the paper: besides convolutions with BatchNorm, linear and attention units are judged by the norm of
    their row; in a layer of fewer than 11 units no unit can be 3 deviations out, so none is ever pruned there.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"u": 1.5}  # a toy's layers are too small for 3

    u: float = 3.0
    """Outlier threshold: standard deviations above the layer's mean."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        bounds = channel_lipschitz(model)
        if not bounds:
            raise NotApplicable("the network has no units besides its head")
        return model.baked({layer: (z_scores(bound) <= self.u).float() for layer, bound in bounds.items()})
