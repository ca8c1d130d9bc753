"""A model detector without data: which class does noise look like?"""

from __future__ import annotations

from torchbands import Data, Finding, Model, ModelDetector, generator, method


@method(
    "noise-prior", paper="Made up for this example, in the spirit of Wang et al., S&P 2024 (MM-BD)", needs=("logits",)
)
class NoisePrior(ModelDetector):
    """How much more often than the others one class is the answer to pure noise.

    Deviations from the paper: there is none to deviate from.
    """

    rows: int = 512
    """Noise samples."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        noise = model.modality.random(self.rows, generator("noise-prior", seed))
        share = model.probabilities(noise).mean(0)
        return Finding(score=float(share.max()), target=int(share.argmax()), per_class=share)
