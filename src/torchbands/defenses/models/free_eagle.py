"""FreeEagle: data-free; hidden states optimised for one class also lean towards a backdoor's target."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.layers import Split
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of

from ._inversion import frozen


@method(
    "free-eagle", paper="Fu et al., USENIX Security 2023, arXiv:2302.14500", needs=("gradients", "units"), version=2
)
class FreeEagle(ModelDetector):
    """Optimises dummy hidden states for every class; the class they all also lean towards is suspect.

    The network is cut in the middle. For each class, dummy hidden states minimise the cross-entropy of the second half
    (with weight decay). Their mean posteriors are a matrix (class made for, class leant to) with a zero diagonal; the
    mean of its columns is v, the score (max v - Q3) / (Q3 - Q1). Flagged: score > 2. `per_pair` holds the logs of the
    matrix. With 2 or 3 classes the score could not exceed 1 (with 2 it is always 1/2): it is then the largest log
    posterior off the diagonal, and nothing is flagged.

    Needs: gradients, units; no data.

    Deviations from the paper: all classes are searched together. The cut is the output nearest to the middle of the
    layers through which everything passes (else before the head); hidden states stay non-negative only where the rest
    of the network clips them anyway. They start from the mean and deviation of hidden states of noise inputs (authors'
    code: from uniform numbers in [0, 1]), and the search of a group ends early by `tolerance` (authors: never).
    """

    dummies: int = 1
    """Dummy hidden states per class."""
    steps: int = 1000
    """Maximum number of Adam steps."""
    lr: float = 1e-2
    """Learning rate of Adam."""
    decay: float = 5e-3
    """Weight decay of the hidden states."""
    tolerance: float = 1e-4
    """The search stops when the mean loss falls by less than this in 10 steps."""
    threshold: float = 2.0
    """Models with at least this score are flagged."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        layer, cut = middle_cut(model)
        noise = model.modality.random(64, generator("free-eagle", seed))
        with torch.no_grad():
            seen = cut.body(noise).detach().float().to(model.device)
            clipped = torch.allclose(cut.head(seen).float(), cut.head(seen.clamp_min(0)).float(), atol=1e-4)
        groups = torch.arange(model.classes).split(max(1, model.gradient_chunk // self.dummies))
        with frozen(model.module):
            rows = [self._search(cut, seen, group, clipped, seed) for group in groups]
        logs = torch.cat([found for found, _ in rows]).cpu()
        logs.fill_diagonal_(torch.nan)
        lean = logs.exp().nan_to_num(0).mean(0)
        score, evidence = anomaly(lean)
        flagged: bool | None = score > self.threshold
        if model.classes < 4:
            evidence["reason"] = f"{model.classes} classes are too few for quartiles, which need at least 4"
            score, flagged = float(logs.nan_to_num(-torch.inf).max()), None
        target = int(lean.argmax())
        return Finding(
            score=score,
            flagged=flagged,
            target=target,
            source=int(logs[:, target].nan_to_num(-torch.inf).argmax()),
            per_class=lean.clamp_min(1e-30).log(),
            per_pair=logs,
            evidence=evidence | {"cut": layer or "before the head", "steps": [taken for _, taken in rows]},
        )

    def _search(self, cut: Split, seen: Tensor, group: Tensor, clipped: bool, seed: int) -> tuple[Tensor, int]:
        """(classes of the group, K) log mean posteriors, and the steps taken."""
        labels = group.repeat_interleave(self.dummies).to(seen.device)
        numbers = (group[:, None] * self.dummies + torch.arange(self.dummies)).flatten()
        drawn = RowRng(seed_of("free-eagle dummies", seed), numbers).normal(*seen.shape[1:])
        start = drawn.to(seen) * seen.std() + seen.mean()
        hidden = nn.Parameter(start.clamp(0.0 if clipped else -999.0, 999.0))
        optimizer = torch.optim.Adam([hidden], lr=self.lr, weight_decay=self.decay)
        last, taken = torch.inf, 0
        for taken in range(1, self.steps + 1):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(cut.head(hidden).float(), labels, reduction="sum") / self.dummies
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                hidden.clamp_(0.0 if clipped else -999.0, 999.0)
            if taken % 10 == 0:
                now = float(loss.detach()) / len(group)
                if last - now < self.tolerance:
                    break
                last = now
        with torch.no_grad():
            logs = cut.head(hidden).float().log_softmax(1).view(len(group), self.dummies, -1)
            return logs.logsumexp(1) - torch.tensor(self.dummies).log(), taken


def anomaly(lean: Tensor) -> tuple[float, dict[str, Any]]:
    """(max - Q3) / (Q3 - Q1) of (K,) values; 0 where all are equal."""
    values = lean.double()
    low, high = values.quantile(0.25), values.quantile(0.75)
    gap, spread = float(values.max() - high), float(high - low)
    score = gap / max(spread, 1e-9 * float(values.max()), 1e-30) if gap > 0 else 0.0
    return score, {"lean": [float(f"{v:.4g}") for v in values.tolist()], "spread": float(f"{spread:.4g}")}


def middle_cut(model: Model) -> tuple[str | None, Split]:
    """The layer nearest to the middle where the model can be cut (of two, the norm), and the parts; else the head.

    Raises NotApplicable where it cannot be cut at all.
    """
    units = model.units()
    middle = (len(units) - 1) / 2
    tried: set[str] = set()
    for at in sorted(range(len(units)), key=lambda i: (abs(i - middle), units[i].kind != "norm")):
        for name in _enclosing(units[at].layer):
            if name in tried or isinstance(model.module.get_submodule(name), (nn.ModuleList, nn.ModuleDict)):
                continue
            tried.add(name)
            try:
                return name, model.split(name)
            except (NotApplicable, IndexError, RuntimeError):  # not called, or what follows sees more than its output
                continue
    return None, model.split()


def _enclosing(path: str) -> list[str]:
    """A module's path and those of the modules around it, innermost first."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
