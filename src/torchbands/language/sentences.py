"""What sentences mean, as vectors: mean-pooled MiniLM, batched by length."""

from __future__ import annotations

from functools import lru_cache

import torch.nn.functional as F
from torch import Tensor

from torchbands.core.model import Model
from torchbands.core.seeding import seeded

#: Tokens that are read of a sentence.
TOKENS = 128


@lru_cache(maxsize=1)
def _encoder() -> Model:
    from torchbands.modalities.text import Text
    from torchbands.networks.transformer import TransformerNetwork

    network = TransformerNetwork(tune="head", pool="mean", tokens=TOKENS, dropout=0.0)
    modality = network.reads(Text())
    with seeded("sentences"):  # of the head, which nobody asks
        return Model(network.build(modality, 2), modality, 2)


def sentence_vectors(texts: list[str]) -> Tensor:
    """(N, 384) float32 of length 1; a text's vector does not depend on the batch it comes in.

    Raises DataUnavailable where the encoder cannot be had, MissingExtra where transformers is not installed.
    """
    return F.normalize(_encoder().features(texts), dim=1)
