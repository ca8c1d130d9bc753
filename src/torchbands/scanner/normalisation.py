"""A forgotten normalisation: the accuracy on clean rows tells, and the usual ones are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchbands.core.data import Data, take
from torchbands.core.model import Model
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize

#: name -> mean and std per channel, of three channels and of one.
USUAL: dict[int, dict[str, tuple[Sequence[float], Sequence[float]]]] = {
    3: {
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "to -1 ... 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "to 0 ... 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    },
    1: {
        "MNIST's": ((0.1307,), (0.3081,)),
        "Fashion-MNIST's": ((0.286,), (0.353,)),
        "to -1 ... 1": ((0.5,), (0.5,)),
        "to 0 ... 255": ((0.0,), (1 / 255,)),
    },
}
#: Rows that the accuracy is told from.
ROWS = 512
#: A suspect this far below the references' lowest accuracy (or below this many times guessing) reads something else.
FAR, GUESSING = 0.6, 1.5


@dataclass(frozen=True)
class Misread:
    """Clean rows that the suspect does not read. mean, std: a normalisation with which it does, where there is one."""

    accuracy: float
    expected: float | None
    name: str = ""
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    better: float = 0.0

    def reason(self) -> str:
        """What is wrong, in a sentence."""
        against = "" if self.expected is None else f", where the references know {self.expected:.0%} or more"
        if not self.mean:
            return (
                f"the suspect knows {self.accuracy:.0%} of the clean rows{against}: it was trained on other rows, on "
                "other classes or in another order of them, or it reads them another way"
            )
        return (
            f"the suspect knows {self.accuracy:.0%} of the clean rows{against}; with {self.name} normalisation it "
            f"knows {self.better:.0%}: the normalisation was forgotten"
        )

    def next_step(self) -> str:
        """What to type."""
        if not self.mean:
            return "check --data, --class-names and --mean/--std: what the model was trained with"
        return f"scan it with {flags(self.mean, self.std)}"


def flags(mean: Sequence[float], std: Sequence[float]) -> str:
    """--mean and --std as they are typed."""
    return f"--mean {','.join(f'{m:.4g}' for m in mean)} --std {','.join(f'{s:.4g}' for s in std)}"


def misread(model: Model, clean: Data, expected: float | None = None) -> Misread | None:
    """Whether the model reads clean rows at all; `expected`: the lowest accuracy of its references."""
    rows = clean.sample(ROWS, "accuracy", 0, balanced=True) if len(clean) > ROWS else clean
    if len(rows) == 0:
        return None
    accuracy = accuracy_of(model, rows)
    few = GUESSING / model.classes if expected is None else FAR * expected
    if accuracy >= few or (expected is None and model.classes < 3):
        return None
    found = Misread(accuracy, expected)
    if not isinstance(model.modality, Image) or "weights" not in model.capabilities:
        return found
    x = take(rows.x, torch.arange(len(rows)))
    assert isinstance(x, Tensor)
    usual = dict(USUAL.get(model.modality.channels, {}))
    usual["the rows' own"] = (x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).clamp_min(1e-3).tolist())
    for name, (mean, std) in usual.items():
        with_it = accuracy_of(normalised(model, mean, std), rows)
        if with_it > max(found.better, 2 * accuracy, few):
            found = Misread(accuracy, expected, name, mean, std, with_it)
    return found


def normalised(model: Model, mean: Sequence[float], std: Sequence[float]) -> Model:
    """The model with (x - mean) / std before it."""
    layer = Normalize(len(mean), list(mean), list(std), 4).to(model.device)
    return Model(nn.Sequential(layer, model.module), model.modality, model.classes, precision=model.precision)


def accuracy_of(model: Model, rows: Data) -> float:
    """The share of rows that it knows."""
    return float((model.logits(rows.x).argmax(1).cpu() == rows.y.cpu()).float().mean())
