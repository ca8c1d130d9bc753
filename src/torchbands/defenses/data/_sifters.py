"""Fresh networks that filters train for themselves."""

from __future__ import annotations

from torch import nn

from torchbands.core.model import Model
from torchbands.core.seeding import seeded


def fresh(model: Model, *identity: object) -> Model:
    """An untrained copy: every layer that can draw its weights again does, by identity.

    Parameters of layers without `reset_parameters` (a class token, say) keep their values.
    """
    made = model.clone()
    with seeded("sifter", *identity):
        for layer in made.module.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset) and isinstance(layer, nn.Module):
                reset()
    return made
