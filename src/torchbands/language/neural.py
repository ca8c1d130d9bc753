"""Causal language models through transformers: masked, batched by length, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core.errors import InputError

from .base import WordSurprisal

#: Tokens, padding included, that go through at once.
TOKENS = 2048


@dataclass
class NeuralLM(WordSurprisal):
    """A causal language model with its fast tokenizer.

    The first token is predicted from the beginning-of-text token. A text longer than the model's positions is read in
    windows that begin anew. A token belongs to the word in which its first letter is.

    Attributes:
        module: (ids, attention mask) -> logits, as transformers has it. tokenizer: a `tokenizers.Tokenizer`.
        start: id of the beginning-of-text token. positions: tokens it can read, that one included.
    """

    module: nn.Module
    tokenizer: Any
    start: int
    positions: int

    @classmethod
    def load(cls, folder: str | Path) -> NeuralLM:
        """A folder with config.json, tokenizer.json and weights. Nothing is fetched and no remote code is run."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = Path(folder).expanduser()
        if not (path / "config.json").is_file():
            raise InputError(f"{path.name} is no folder of a language model: it has no config.json")
        module = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True)
        fast = AutoTokenizer.from_pretrained(path, local_files_only=True, use_fast=True)
        start = fast.bos_token_id if fast.bos_token_id is not None else fast.eos_token_id
        positions = int(getattr(module.config, "max_position_embeddings", 1024))
        module.train(False)
        return cls(module, fast.backend_tokenizer, int(start or 0), min(positions, 1024))

    @property
    def about(self) -> str:
        """Its architecture and size; the folder is the user's own affair."""
        return f"{type(self.module).__name__}, {sum(p.numel() for p in self.module.parameters()) / 1e6:.0f} M weights"

    @torch.no_grad()
    def flat(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(W,) float32 nats of every word of all texts, and (N,) int64 words of each."""
        split = [text.split() for text in texts]
        counts = torch.tensor([len(words) for words in split], dtype=torch.int64)
        offsets = (counts.cumsum(0) - counts).tolist()
        out = torch.zeros(int(counts.sum()), dtype=torch.float64)
        windows: list[tuple[list[int], list[int]]] = []
        for words, offset in zip(split, offsets, strict=True):
            ids, owners = self._tokens(words, offset)
            room = self.positions - 1
            windows += [(ids[i : i + room], owners[i : i + room]) for i in range(0, len(ids), room)]
        for batch in _batches(sorted(windows, key=lambda w: len(w[0]))):
            nats = self._nats([ids for ids, _ in batch])
            out.index_add_(0, torch.tensor([o for _, owners in batch for o in owners]), nats)
        return out.float(), counts

    def _tokens(self, words: list[str], offset: int) -> tuple[list[int], list[int]]:
        encoding = self.tokenizer.encode(" ".join(words), add_special_tokens=False)
        word_at = [
            i for i, word in enumerate(words) for _ in range(len(word) + 1)
        ]  # a space belongs to the word before
        text = " ".join(words)
        owners = []
        for first, last in encoding.offsets:
            while first < last and text[first] == " ":  # byte-level tokens begin with their space
                first += 1
            owners.append(offset + word_at[min(first, len(word_at) - 1)])
        return list(encoding.ids), owners

    def _nats(self, rows: list[list[int]]) -> Tensor:
        """(T,) float64 surprisal of the real tokens of some rows, in their order."""
        longest = max(map(len, rows))
        ids = torch.tensor([[self.start, *row] + [0] * (longest - len(row)) for row in rows])
        mask = torch.arange(longest + 1)[None] <= torch.tensor([len(row) for row in rows])[:, None]
        device = next(self.module.parameters()).device
        logits = self.module(input_ids=ids.to(device), attention_mask=mask.long().to(device)).logits[:, :-1].float()
        told = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None].to(device)).squeeze(-1)
        nats: Tensor = told.cpu().double()[mask[:, 1:]]
        return nats


def _batches(windows: list[tuple[list[int], list[int]]]) -> list[list[tuple[list[int], list[int]]]]:
    """Windows of like length together, at most TOKENS tokens with padding."""
    out: list[list[tuple[list[int], list[int]]]] = []
    for window in windows:
        if out and len(window[0]) * (len(out[-1]) + 1) <= TOKENS:
            out[-1].append(window)
        else:
            out.append([window])
    return out
