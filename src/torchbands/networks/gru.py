"""A bidirectional gated recurrent network over token embeddings: Cho et al., EMNLP 2014."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network

from .text_cnn import small


class GRU(nn.Module):
    """Embedding, one bidirectional GRU, its largest states over the real tokens, one Linear.

    Input `(ids (N, L) int64, mask (N, L) bool)`; output logits `(N, classes)`. Padding is never read: a row gives the
    same logits alone and in any batch.
    """

    def __init__(self, tokens: int, classes: int, dim: int, width: int) -> None:
        super().__init__()
        self.embedding = small(nn.Embedding(tokens, dim, padding_idx=0))
        self.gru = nn.GRU(dim, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        values = self.embedding(ids)
        lengths = mask.sum(1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=ids.shape[1])
        real = torch.arange(ids.shape[1], device=ids.device)[None] < lengths.to(ids.device)[:, None]
        h = out.masked_fill(~real[..., None], torch.finfo(out.dtype).min).amax(1)
        logits: Tensor = self.head(h)
        return logits


@method("gru", paper="Cho et al., EMNLP 2014, arXiv:1406.1078")
class GRUNetwork(Network):
    """Embedding, bidirectional GRU, max over time: for text and for code bytes."""

    dim: int = 64
    """Embedding dimension."""
    width: int = 64
    """Hidden units in each direction."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        if not modality.discrete:
            raise NotApplicable(f"{self.name} reads tokens, not {modality.name}")
        return GRU(modality.token_count, classes, self.dim, self.width)
