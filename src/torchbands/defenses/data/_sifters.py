"""Auxiliary networks that filters train themselves."""

from __future__ import annotations

from torchbands.core.model import Model
from torchbands.core.reinitialize import redraw
from torchbands.core.seeding import seeded


def fresh(model: Model, *identity: object) -> Model:
    """An untrained copy: every layer that can draw its weights again does, by identity.

    Parameters that no layer draws (a class token, say) keep their values.
    """
    made = model.clone()
    with seeded("sifter", *identity):
        redraw(made.module)
    return made
