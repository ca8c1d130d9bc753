"""In the child: one forward and backward pass, under its limits, before the parent makes any.

The rows of a batch are later chosen by what a row weighs (`torchbands.core.budget`), so that only what a few rows cost
is decided by the suspect.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchbands.core.budget import row_bytes
from torchbands.core.modality import Modality
from torchbands.core.model import Model


def weigh(module: nn.Module, modality: Modality, classes: int) -> int:
    """Bytes of activations of a row. Raises MemoryError where the child's limit does not hold it."""
    try:
        return row_bytes(Model.wrap(module.eval(), modality, classes), gradients=True)
    except RuntimeError as error:
        if "memory" in str(error) or "alloc" in str(error):
            raise MemoryError from None
        raise


def weigh_ids(body: nn.Module, length: int) -> None:
    """The same for a model that reads token ids, at its longest."""
    import torch

    ids: Tensor = torch.zeros(2, length, dtype=torch.int64)
    try:
        with torch.enable_grad():
            out = body(ids, attention_mask=torch.ones_like(ids)).logits
            out.sum().backward()
    except RuntimeError as error:
        if "memory" in str(error) or "alloc" in str(error):
            raise MemoryError from None
        raise
    body.zero_grad(set_to_none=True)
