"""Weight statistics: norms, spectra and quantiles of every layer, for comparison with reference models."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator

#: Shares of a layer's weights below the magnitudes that are read.
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
#: What is read of every matrix.
COLUMNS = ("log norm", "log spectral norm", "stable rank", *(f"|w| at {q:.0%}" for q in QUANTILES), "excess kurtosis")
#: Weights at most whose magnitudes are sorted; of a larger layer every n-th is.
SORTED = 1 << 20
#: Sides of a matrix up to which its spectral norm is exact.
EXACT = 1024


@method(
    "weight-spectrum",
    paper="after Fields et al., ICCV Workshops 2021, arXiv:2109.02836",
    needs=("weights",),
)
class WeightSpectrum(ModelDetector):
    """Statistics of the weights alone, layer by layer. Tells training recipes apart; never a verdict.

    `statistics`: of every parameter with at least two axes, as a matrix (outputs, rest), log Frobenius norm, log
    spectral norm, stable rank (squared ratio of the two), |w| over its root mean square at 5 quantiles, and excess
    kurtosis; of every norm layer, mean and standard deviation of its scales; of the head, mean, standard deviation and
    largest |z| of its rows' norms; the log norm of all weights. As many for all models of one architecture, and
    unusual in both directions. The score is the head's largest |z|: a plain number that means little without
    references. Nothing is flagged. Of fewer than 4 rows the score is the largest |log(norm / mean norm)|.

    Needs: weights; no data, no forward pass of a sample.

    Deviations from the paper: it tests the weights of the head's rows alone; here every layer is described, to be
    compared with clean reference models. Spectral norms of matrices with both sides over 1,024 come from 60 power
    iterations, and quantiles of layers over a million weights from an even sample.
    """

    contract_unshown: ClassVar[str] = "its numbers mean something only beside those of reference models"

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        names, values = [], []
        with torch.no_grad():
            matrices = {n: p.detach().flatten(1).cpu() for n, p in model.module.named_parameters() if p.ndim > 1}
            if not matrices:
                raise NotApplicable("the model has no weight matrix")
            for name, matrix in matrices.items():
                if not bool(torch.isfinite(matrix).all()):
                    raise NotApplicable(f"weights of {name!r} are not finite, so they have no spectrum")
                values += spectrum(matrix)
                names += [f"{name}: {column}" for column in COLUMNS]
            for name, scale in _scales(model.module).items():
                values += [float(scale.mean()), float(scale.std(correction=0))]
                names += [f"{name}: mean scale", f"{name}: sd of scales"]
            rows = torch.linalg.vector_norm(_head(model, matrices).double(), dim=1)
            z = row_z(rows)
            score = float(z.abs().max())
            values += [float(rows.mean()), float(rows.std(correction=0)), score]
            names += ["head: mean row norm", "head: sd of row norms", "head: largest |z|"]
            total = math.sqrt(sum(float(m.double().square().sum()) for m in matrices.values()))
            values.append(math.log(max(total, 1e-12)))
            names.append("all: log norm")
        return Finding(
            score=score,
            statistics=torch.tensor(values),
            evidence={"names": names, "head_rows": [round(v, 5) for v in rows.tolist()], "row": int(z.abs().argmax())},
        )


def spectrum(matrix: Tensor) -> list[float]:
    """The numbers of COLUMNS for an (outputs, rest) matrix."""
    w = matrix.double()
    squares = w.square()
    energy = float(squares.sum())
    rms = max(math.sqrt(energy / w.numel()), 1e-12)
    top = spectral_norm(matrix)
    magnitudes = w.flatten()[:: -(-w.numel() // SORTED)].abs().sort().values
    at = [magnitudes[round(q * (len(magnitudes) - 1))] / rms for q in QUANTILES]
    centred = w - w.mean()
    variance = float(centred.square().mean())
    kurtosis = float(centred.pow(4).mean()) / variance**2 - 3 if variance > 1e-24 else 0.0
    norm = math.log(max(math.sqrt(energy), 1e-12))
    return [norm, math.log(max(top, 1e-12)), energy / max(top**2, 1e-24), *torch.stack(at).tolist(), kurtosis]


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value: exact up to 1,024 on the shorter side, else by power iteration (from below)."""
    w = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if len(w) <= EXACT:
        gram = w.double() @ w.double().T
        return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
    v = torch.randn(w.shape[1], generator=generator("spectral norm", *w.shape)).to(w)
    for _ in range(60):
        u = w @ v
        v = w.T @ (u / u.norm().clamp_min(1e-12))
        v = v / v.norm().clamp_min(1e-12)
    return float((w @ v).norm())


def row_z(norms: Tensor) -> Tensor:
    """(K,) standard scores of row norms; of fewer than 4, whose scores say nothing, log(norm / mean norm)."""
    if len(norms) < 4:
        return (norms.clamp_min(1e-12) / norms.mean().clamp_min(1e-12)).log()
    spread = norms.std(correction=0).clamp_min(1e-6 * float(norms.mean()) + 1e-12)
    return (norms - norms.mean()) / spread


def _scales(module: nn.Module) -> dict[str, Tensor]:
    """Path -> scales of every norm layer."""
    found = {n: getattr(m, "weight", None) for n, m in module.named_modules() if "Norm" in type(m).__name__}
    return {n: w.detach().double().cpu() for n, w in found.items() if isinstance(w, Tensor) and w.ndim == 1}


def _head(model: Model, matrices: dict[str, Tensor]) -> Tensor:
    """The (K, D) weights of the linear head, or of the last matrix where there is none."""
    if model.head is None:
        return list(matrices.values())[-1]
    weight = model.module.get_submodule(model.head).weight
    assert isinstance(weight, Tensor)
    return weight.detach().cpu()
