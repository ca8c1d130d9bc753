"""Language models: how surprising the words of a text are. A trigram of our own, or a neural one at hand."""

from __future__ import annotations

from pathlib import Path

from torchbands.core.errors import InputError

from .base import LanguageModel
from .english import english
from .neural import NeuralLM
from .ngram import NGram

__all__ = ["LanguageModel", "NGram", "NeuralLM", "english", "named"]


def named(name: str) -> LanguageModel:
    """ "english", or the folder of a causal language model. Raises InputError for anything else."""
    if name == "english":
        return english()
    if Path(name).expanduser().is_dir():
        return NeuralLM.load(name)
    raise InputError(
        f"no language model {name!r}", hint='give "english" or the folder of a causal language model (config.json)'
    )
