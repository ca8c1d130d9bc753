"""Labelled texts from a CSV, TSV or JSON-lines file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from torchbands.core.data import Data
from torchbands.datasets.text_file import read_text_file
from torchbands.modalities.text import LENGTH, WORDS, Text, vocabulary_of

from .rows import Rows


def read_texts(path: Path, label: str | None = None, text: str | None = None, files: Sequence[Path] = ()) -> Rows:
    """The texts of a file, whatever part of a data set each says it belongs to; words are those of this file.

    Raises InputError, naming the line, for what is not readable.
    """
    found = read_text_file(path, text=text or "", label=label or "", files=files)
    modality = Text(vocabulary=vocabulary_of(found.texts, WORDS), length=LENGTH)
    notes = (f"texts are column {found.text!r}, labels {found.label!r}", *found.notes)
    ids = tuple(map(str, found.rows))
    return Rows(Data(found.texts, torch.tensor(found.labels)), modality, found.names, path.name, ids, notes=notes)
