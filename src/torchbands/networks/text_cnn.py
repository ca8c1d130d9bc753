"""A convolution over token embeddings: Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network


def small(embedding: nn.Embedding) -> nn.Embedding:
    """Embeddings that begin small, so that words are told apart by what is learned and not by where they began."""
    with torch.no_grad():
        embedding.weight.mul_(0.1)
    return embedding


class TextCNN(nn.Module):
    """Embedding, one Conv1d, ReLU, the largest answer over the real tokens, one Linear.

    Input `(ids (N, L) int64, mask (N, L) bool)`; output logits `(N, classes)`.
    """

    def __init__(self, tokens: int, classes: int, dim: int, width: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = small(nn.Embedding(tokens, dim, padding_idx=0))
        self.conv = nn.Conv1d(dim, width, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = F.relu(self.conv(self.dropout(self.embedding(ids)).transpose(1, 2)))
        h = h.masked_fill(~mask[:, None], 0.0).amax(2)
        logits: Tensor = self.head(self.dropout(h))
        return logits


@method("text-cnn", paper="Kim, EMNLP 2014, arXiv:1408.5882")
class TextCNNNetwork(Network):
    """Embedding, convolution, max over time: for text and for code bytes."""

    dim: int = 32
    """Embedding dimension."""
    width: int = 64
    """Channels of the convolution."""
    kernel: int = 3
    """Kernel size in tokens; odd."""
    dropout: float = 0.0
    """Dropout on the embeddings and before the head (paper: 0.5)."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        if not modality.discrete:
            raise NotApplicable(f"{self.name} reads tokens, not {modality.name}")
        return TextCNN(modality.token_count, classes, self.dim, self.width, self.kernel, self.dropout)
