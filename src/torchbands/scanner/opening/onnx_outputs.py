"""Which output of an ONNX model holds the classes, and whether as logits, probabilities or sigmoids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.errors import InputError

from .refusal import listed, shown

LOGITS, PROBABILITIES, SIGMOIDS = "logits", "probabilities", "sigmoids"
ONE_LOGIT, ONE_PROBABILITY = "one logit of two classes", "one probability of two classes"
#: Operators that end in (0, 1), and those whose numbers have no bounds.
_SQUASHING = {"Sigmoid", "HardSigmoid"}
_UNBOUNDED = {"Gemm", "MatMul", "Add", "Sub", "Mul", "Conv", "LogSoftmax", "BatchNormalization", "Einsum"} | {
    *("ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool", "LinearRegressor", "FusedMatMul", "FusedGemm")
}
#: Words in the name of an output that exporters give to the classes.
_TELLING = {"logits", "logit", "probabilities", "probability", "probs", "prob", "scores", "softmax", "predictions"}
#: The most that a logit of a saturated sigmoid is taken to be.
_SURE = 1e-7


@dataclass(frozen=True)
class Output:
    """One output, tried on noise.

    Attributes:
        values: (N, K) scores; None where its shape is no scores of the rows. kind: what they are ("" where that could
            not be told, or where there are none).
    """

    name: str
    shape: tuple[int, ...]
    values: Tensor | None
    kind: str

    @classmethod
    def of(cls, name: str, raw: Tensor, rows: int, operator: str) -> Output:
        """From what it gave for so many rows, and the operator that makes it ("" where that is not known)."""
        values = table(raw, rows)
        return cls(name, tuple(raw.shape), values, "" if values is None else kind_of(values, operator))

    @property
    def classes(self) -> int:
        """K; two for one logit."""
        return 0 if self.values is None else max(2, self.values.shape[1])

    def told(self) -> str:
        """Name, shape and kind, in a few words."""
        size = ", ".join(["N", *map(str, self.shape[1:])])
        return f"{self.name} ({size}){f': {self.kind}' if self.kind else ''}"


def table(raw: Tensor, rows: int) -> Tensor | None:
    """(N, K) of what may have axes of size one, and (N, 1) of (N,); None for anything else."""
    if raw.ndim == 0 or raw.is_meta or len(raw) != rows:
        return None
    sizes = [n for n in raw.shape[1:] if n != 1]
    if len(sizes) > 1 or sizes == [0]:
        return None
    return raw.reshape(len(raw), sizes[0] if sizes else 1)


def kind_of(values: Tensor, operator: str) -> str:
    """What (N, K) scores are, by their range and by the operator that made them; "" where it cannot be told."""
    within = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1:
        if operator in _SQUASHING and within:
            return ONE_PROBABILITY
        return "" if within and operator not in _UNBOUNDED else ONE_LOGIT
    sums = values.sum(1)
    if within and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return PROBABILITIES
    return SIGMOIDS if within and operator not in _UNBOUNDED else LOGITS


def probabilities(values: Tensor, kind: str) -> Tensor:
    """(N, classes) probabilities of scores of a kind. Sigmoids are taken back to the logits that they were made of."""
    if kind == PROBABILITIES:
        return values
    if kind == SIGMOIDS:
        return values.double().clamp(_SURE, 1 - _SURE).logit().softmax(1).float()
    if kind in (ONE_LOGIT, ONE_PROBABILITY):
        p = values.sigmoid() if kind == ONE_LOGIT else values.clamp(0, 1)
        return torch.cat([1 - p, p], 1)
    return values.softmax(1)


def chosen(outputs: Sequence[Output], classes: int | None, likely: int | None) -> Output:
    """The output with the classes.

    Args:
        classes: how many there must be; likely: how many the rows have, by which one of several is chosen.

    Raises InputError, with every output and what to type, where none or several may be meant.
    """
    tables = [o for o in outputs if o.values is not None]
    if not tables:
        raise InputError(
            f"no output of the ONNX model is (N, classes) numbers: {listed(o.told() for o in outputs)}: it is no "
            "classifier of these rows"
        )
    if len(tables) == 1:
        return _read(tables[0])
    fitting = [o for o in tables if o.classes == (classes or likely)] if classes or likely else tables
    if not fitting and classes is None:
        fitting = tables
    if len({o.classes for o in fitting}) > 1:  # features beside classes: exporters say which is which
        fitting = [o for o in fitting if telling(o.name)] or fitting
    if len(fitting) > 1 and len({o.classes for o in fitting}) == 1:
        fitting = _alike([o for o in fitting if o.kind]) or fitting
    if len(fitting) == 1:
        return _read(fitting[0])
    what = f"no output of the ONNX model has {classes} classes" if not fitting else "which output holds the classes?"
    known = fitting or tables
    raise InputError(
        f"{what} It has {listed((o.told() for o in known), 8)}".replace("classes It", "classes: it"),
        hint="name it: --output NAME, or give the number of classes: --classes K",
    )


def _read(output: Output) -> Output:
    if not output.kind:
        raise InputError(
            f"output {shown(output.name)} of the ONNX model is one number between 0 and 1 for each row: a probability "
            "or a logit cannot be told",
            hint="export it so that it ends with Sigmoid, or with the logit itself",
        )
    return output


def telling(name: str) -> bool:
    """Whether an output is called as exporters call the scores of the classes."""
    plain = name.lower().replace("-", "_").replace(".", "_").replace("/", "_").replace(":", "_")
    return bool(_TELLING & set(plain.split("_")))


def _alike(outputs: Sequence[Output]) -> list[Output]:
    """The first of outputs that say the same in other words: logits and their probabilities."""
    if len(outputs) < 2:
        return list(outputs)
    said = []
    for output in outputs:
        assert output.values is not None
        said.append(probabilities(output.values, output.kind))
    return [outputs[0]] if all(torch.allclose(said[0], other, atol=1e-3) for other in said[1:]) else []
