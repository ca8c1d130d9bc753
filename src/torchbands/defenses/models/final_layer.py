"""Final-layer statistics: the final weights of a backdoor's target class differ from those of other classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model

#: What is read of every class's row of weights.
INDICATORS = ("mean", "norm", "largest", "skewness", "bias", "unlike")
#: A normal distribution's median absolute deviation, in standard deviations.
NORMAL = 0.6745


@method("final-layer", paper="after Yu et al., 2026 (DFBScanner), arXiv:2605.18907", needs=("weights",))
class FinalLayer(ModelDetector):
    """How far the class with the oddest final-layer weights stands out. Needs no data and no forward pass.

    Six indicators of every class: mean, norm, largest weight and skewness of its row in the final layer, its bias, and
    how little its row is like the other rows (minus their mean cosine). Each is put on one scale over the classes (by
    median and median absolute deviation) and cut at +-`cap`; the clue of a class is their mean, `per_class` the clue
    on that same scale, the score the largest. Flagged: a score above `threshold`. With fewer than 4 classes there is
    nothing to be an outlier of: NotApplicable.

    Classes differ in a clean model too (rare ones, similar ones), and other recipes move the final layer without a
    backdoor, so a verdict of this method says little without reference models.

    Needs: weights, a linear head.

    After the paper: that only the final layer's parameters are read, that several anomaly indicators of them are
    combined into one clue, and that the largest anomaly decides. This is in its abstract and on its repository's page;
    its sections and its code were not at hand.

    Deviations from the paper: which indicators there are, how they are combined, the scale that makes them comparable
    and the threshold are ours (rows' means and norms are those of Fields et al., ICCV Workshops 2021); the authors'
    repository names a script that selects indicators, and no selection is made here. So its reported rates (97 % true,
    1 % false) are neither confirmed nor refuted by this method.
    """

    unreproduced: ClassVar[str] = (
        "only the abstract of its paper was at hand: indicators, their combination and the threshold are not the "
        "authors', and its rates stay far from the 97 % true and 1 % false alarms that they report"
    )

    contract_unshown: ClassVar[str] = "among the 4 classes of a toy no class can be told as an outlier"

    cap: float = 6.0
    """Upper limit of each indicator's contribution."""
    threshold: float = 5.0
    """Models with a higher score are flagged; one in 15 random final layers with 20 classes exceeds the default."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        if model.head is None:
            raise NotApplicable("no linear head was found, so there is no final layer to read")
        if model.classes < 4:
            raise NotApplicable(f"{model.classes} classes are too few for an outlier among them, which needs 4")
        head = model.module.get_submodule(model.head)
        assert isinstance(head.weight, Tensor)
        bias = head.bias if isinstance(head.bias, Tensor) else None
        scores = indicators(head.weight.detach(), None if bias is None else bias.detach())
        if not bool(scores.isfinite().all()):
            raise NotApplicable("weights of the final layer are not finite")
        clue = standing_out(scores).clamp(-self.cap, self.cap).mean(0)
        found = standing_out(clue)
        target = int(found.argmax())
        return Finding(
            score=float(found[target]),
            flagged=bool(found[target] > self.threshold),
            target=target,
            per_class=found.float(),
            evidence={"indicators": dict(zip(INDICATORS, standing_out(scores)[:, target].tolist(), strict=True))},
        )


def indicators(weight: Tensor, bias: Tensor | None) -> Tensor:
    """(K, D) rows and (K,) biases -> (6, K) in double, each higher where a class is more suspicious."""
    w = weight.double().cpu()
    b = torch.zeros(len(w)).double() if bias is None else bias.double().cpu()
    centred = w - w.mean(1, keepdim=True)
    spread = centred.square().mean(1).sqrt().clamp_min(1e-12)
    unit = nn.functional.normalize(w, dim=1)
    alike = (unit @ unit.sum(0) - unit.square().sum(1)) / (len(w) - 1)
    return torch.stack([w.mean(1), w.norm(dim=1), w.amax(1), centred.pow(3).mean(1) / spread**3, b, -alike])


def standing_out(values: Tensor) -> Tensor:
    """Modified z-scores over the last axis; 0 where all but a few values are the same and for those that are."""
    middle = values.median(-1, keepdim=True).values
    off = values - middle
    usual = off.abs().median(-1, keepdim=True).values
    return torch.where(off == 0, 0.0, NORMAL * off / usual.clamp_min(1e-12))
