"""Weights of a suspect, what is known of it so far, and how its names fit a module's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchbands.core.errors import InputError, Unsupported
from torchbands.scanner.alerts import Alert

from .refusal import NON_FINITE, Refusal, listed, malformed, shown
from .tensors import Shape

#: One number, or one per channel.
Numbers = float | Sequence[float]
#: Names that a checkpoint may lack, or have in excess, without a change in what the model computes.
_OPTIONAL = ("num_batches_tracked",)
_SPARE = ("num_batches_tracked", "total_ops", "total_params", "position_ids")
#: Names of what goes with weights of few bits: bitsandbytes, GPTQ, AWQ, fp8, torch's own.
_SCALES = (".SCB", ".qweight", ".qzeros", ".absmax", "weight_scale", "weight_scale_inv", "_packed_params")
_FEW = (torch.int8, torch.uint8)


def quantised(names: Sequence[str]) -> Unsupported:
    """Such weights mean nothing without their scales, and how these are applied differs from maker to maker."""
    return Unsupported(
        f"quantised weights are not read here: {listed(names, 3)}",
        hint="scan the model that was quantised, or what you get from model.dequantize() or an export to ONNX",
    )


@dataclass
class State:
    """What is known of the suspect while it is opened."""

    format: str = ""
    sha256: str = ""
    alerts: list[Alert] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def tell(self, remark: str) -> None:
        """Something that was guessed, dropped or turned round, for the user to see."""
        self.facts.setdefault("notes", []).append(remark)


@dataclass
class Weights:
    """Named tensors. ordered: whether their order is the one in which the module made them."""

    tensors: dict[str, Tensor]
    ordered: bool = False

    def afford(self, limit: int) -> None:
        """Raises Refusal where the weights, as float32 (which they are computed in), take more bytes than allowed."""
        needed = 4 * sum(t.numel() for t in self.tensors.values())
        if needed > limit:
            raise malformed(
                f"the weights take {needed >> 20:,} MB as float32; the limit is {limit >> 20:,} MB (--memory-limit)"
            )

    def check(self) -> None:
        """Raises Refusal when a value is NaN or infinite, Unsupported for weights of few bits, which need scales."""
        few = [
            n
            for n, t in self.tensors.items()
            if n.endswith(_SCALES)
            or "float8" in str(t.dtype)
            or (t.dtype in _FEW and t.ndim > 1 and n.endswith("weight"))
        ]
        if few:
            raise quantised(few)
        bad = [n for n, t in self.tensors.items() if t.is_floating_point() and not torch.isfinite(t.float()).all()]
        if bad:
            raise Refusal(
                NON_FINITE,
                f"{len(bad)} of {len(self.tensors)} tensors hold NaN or infinite values: {listed(bad)}",
                subject=bad[0],
                tensors=bad[:50],
            )

    def facts(self) -> dict[str, Any]:
        return {
            "tensors": len(self.tensors),
            "parameters": sum(t.numel() for t in self.tensors.values()),
            "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in self.tensors.values()}),
        }


@dataclass(frozen=True)
class Match:
    """The module's name -> the file's name; and how they were matched."""

    names: Mapping[str, str]
    how: str
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def match(have: Mapping[str, Shape], want: Mapping[str, Shape], optional: Sequence[str], ordered: bool) -> Match | None:
    """Pair a file's names with a module's: as they are, without a wrapper's mark or a prefix, or by order and shape.

    Prefixes are those that all names share, then one under which every wanted tensor is found, as beside a loss with
    weights of its own. By order only where the sequence of (last part of the name, shape) agrees exactly and the order
    is the module's. Axes of size -1 in `want` fit any size. None where nothing fits.
    """
    bare = {_bare(k): k for k in have}
    if len(bare) < len(have):
        bare = {k: k for k in have}
    prefix = ""
    while True:
        stripped = {k.removeprefix(prefix): v for k, v in bare.items()}
        found = _by_name(stripped, want, optional)
        if found is not None:
            return Match(*found[:1], f"without the prefix {prefix!r}" if prefix else "by name", found[1])
        heads = {k[len(prefix) :].split(".", 1)[0] for k in bare}
        if len(heads) != 1 or not all("." in k[len(prefix) :] for k in bare):
            break
        prefix += f"{heads.pop()}."
    if under := _under_one(bare, want, optional):
        return under
    if not ordered:
        return None
    absent = [o for o in optional if o not in have]
    needed = [(k, s) for k, s in want.items() if k not in absent]
    given = [(k, s) for k, s in have.items() if k.rsplit(".", 1)[-1] not in _SPARE[1:]]
    if not any(k.endswith(_OPTIONAL) for k, _ in given):
        absent += [k for k, _ in needed if k.endswith(_OPTIONAL)]
        needed = [(k, s) for k, s in needed if not k.endswith(_OPTIONAL)]
    same = len(needed) == len(given) and all(
        a.rsplit(".", 1)[-1] == b.rsplit(".", 1)[-1] and fits(s, t) for (a, s), (b, t) in zip(needed, given)
    )
    if not same:
        return None
    return Match({a: b for (a, _), (b, _) in zip(needed, given)}, "by order and shape", tuple(absent))


def _under_one(bare: Mapping[str, str], want: Mapping[str, Shape], optional: Sequence[str]) -> Match | None:
    """The only prefix that holds a whole network; what lies beside it is not used. InputError where several do."""
    under = []
    for prefix in dict.fromkeys(f"{k.split('.', 1)[0]}." for k in bare):
        part = {k.removeprefix(prefix): v for k, v in bare.items() if k.startswith(prefix)}
        if (found := _by_name(part, want, optional)) is not None:
            rest = tuple(v for k, v in bare.items() if not k.startswith(prefix))
            under.append(Match(found[0], f"under the prefix {prefix!r}", found[1], rest))
    if len(under) > 1:
        raise InputError(
            f"the file holds {len(under)} networks of this kind: {listed(m.how for m in under)}",
            hint="save the one that is used to a file of its own: which of them is judged must not be guessed",
        )
    return under[0] if under else None


def _bare(name: str) -> str:
    """A name without the mark that torch.compile leaves in it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _by_name(
    have: Mapping[str, str], want: Mapping[str, Shape], optional: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]] | None:
    missing = tuple(k for k in want if k not in have)
    extra = [k for k in have if k not in want and k.rsplit(".", 1)[-1] not in _SPARE]
    if extra or any(k not in optional and not k.endswith(_OPTIONAL) for k in missing):
        return None
    return {k: have[k] for k in want if k in have}, missing


def fits(want: Shape, have: Shape) -> bool:
    """Whether a shape is the wanted one, where -1 is any size."""
    return len(want) == len(have) and all(a in (-1, b) for a, b in zip(want, have))


#: Names that torch gives to weights that are computed from others, and how its own tools put them back.
_WRAPPED = (
    (
        ".parametrizations.",
        "parametrised",
        "before saving: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
    ("weight_mask", "pruned", "before saving: torch.nn.utils.prune.remove(layer, 'weight')"),
    (".weight_g", "normalised by weight_norm", "before saving: torch.nn.utils.remove_weight_norm(layer)"),
)


def misfit(have: Mapping[str, Shape], want: Mapping[str, Shape], what: str) -> InputError:
    """Names the first few tensors that are missing, unexpected or of another shape, whatever prefix all may share."""
    have = _unprefixed({_bare(k): shape for k, shape in have.items()}, want)
    missing = [k for k in want if k not in have and not k.endswith(_OPTIONAL)]
    extra = [k for k in have if k not in want and k.rsplit(".", 1)[-1] not in _SPARE]
    wrong = [k for k in want if k in have and not fits(want[k], have[k])]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({listed(missing, 3)})")
    if extra:
        parts.append(f"{len(extra)} unexpected ({listed(extra, 3)})")
    if wrong:
        first = ", ".join(f"{shown(k, 80)} is {have[k]}, expected {want[k]}" for k in wrong[:3])
        parts.append(f"{len(wrong)} of another shape ({first})")
    for mark, said, todo in _WRAPPED:
        if any(mark in f".{name}" for name in extra):
            raise Unsupported(f"the weights are {said}, which is not undone here ({'; '.join(parts)})", hint=todo)
    few = missing and not extra and not wrong and 4 * len(missing) <= len(want)
    if few:
        parts.append(f"the other {len(want) - len(missing)} fit, so the file is incomplete or the network another")
    return InputError(
        f"the weights do not fit {what}: {'; '.join(parts) or 'the order differs'}",
        hint=(
            "save the whole model.state_dict() again (loaded with strict=False a model has random numbers there), or "
            * bool(few)
        )
        + 'give the right architecture, such as --arch \'{"name": "resnet", "params": {"depth": 20}}\''
        " (what may be set: bands show resnet) or --arch package.module:factory",
    )


def _unprefixed(have: Mapping[str, Shape], want: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """The names without the prefix that all share, where that makes more of them known."""
    best, names = have, dict(have)
    while names and all("." in k for k in names) and len({k.split(".", 1)[0] for k in names}) == 1:
        names = {k.split(".", 1)[1]: shape for k, shape in names.items()}
        if sum(k in want for k in names) > sum(k in want for k in best):
            best = names
    return best
