"""The global model, as a server that trains or asks it holds it: running statistics follow the server's own steps."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.model import Model
from torchbands.learners.vectors import buffers_of, load_buffers, load_weights


class GlobalModel:
    """A worker model. A server is told the global parameters in each round, and running statistics only at first."""

    def __init__(self, model: Model) -> None:
        self.model, self.buffers = model, buffers_of(model)

    def at(self, weights: Tensor) -> Model:
        """The worker, with these parameters and the global running statistics."""
        load_weights(self.model, weights)
        load_buffers(self.model, self.buffers)
        return self.model

    def moved(self, running: Tensor) -> None:
        """The global running statistics changed by so much."""
        self.buffers = self.buffers + running
