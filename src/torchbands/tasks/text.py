"""Text classification on real data sets. The defender's clean rows are the set's dev part, or held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import Free, method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Learner, Network
from torchbands.core.seeding import generator
from torchbands.core.task import SPLITS, Task
from torchbands.learners.sgd import SGD
from torchbands.modalities.text import Text, vocabulary_of
from torchbands.networks.text_cnn import TextCNNNetwork

#: Rows of a dev part that are the defender's at most.
MOST_CLEAN = 2000


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """A text set by name, cut into train, clean and test."""

    #: Name in `torchbands.datasets`.
    source: ClassVar[str] = ""

    network: Network = TextCNNNetwork(dim=64, width=64)
    """Network to train."""
    learner: Learner = SGD(optimizer="adamw", lr=4e-3, epochs=3, batch=64, weight_decay=0.05)
    """How the network is trained."""
    rows: int = 0
    """Use only this many training rows, drawn by seed; 0: all. Reference models of small victims need it."""
    held_out: float = 0.1
    """Fraction of the training split that is the defender's clean data, where the data set has no dev split."""
    length: int = 64
    """Words that a word-level model reads; longer texts are truncated."""
    words: int = 15_000
    """Vocabulary size of a word-level model."""

    @property
    def origin(self) -> tuple[str, ...]:
        """What tells this task's texts from another's."""
        return (self.source,)

    @property
    def modality(self) -> Modality:
        known = _vocabulary(self.source, *self.origin, most=self.words, read=_Reader(self))
        return self.network.reads(Text(vocabulary=known, length=self.length))

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def class_names(self) -> Sequence[str]:
        from torchbands.datasets import classes

        return classes(self.source)

    def absent(self) -> str:
        from torchbands.datasets import status

        here = self.source in ("", "file") or status(self.source)["cached"]
        return "" if here else f"the data set {self.source}"

    def fingerprint(self) -> str:
        from torchbands.datasets import fingerprint

        return fingerprint(self.source)

    def texts(self, part: str) -> tuple[list[str], Tensor]:
        """All texts and int64 labels of the official "train", "dev" or "test" part; none of one that is not there."""
        from torchbands.datasets import load_text

        return load_text(self.source, part)

    def load(self, split: str, seed: int = 0) -> Data:
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
        if not 0.0 < self.held_out < 1.0:
            raise InputError(f"held_out is a fraction between 0 and 1, got {self.held_out}")
        key = (type(self), self.origin, split, self.held_out, self.rows, seed if self.rows else 0)
        if key not in _CUTS:
            while len(_CUTS) >= 8:
                _CUTS.pop(next(iter(_CUTS)))
            _CUTS[key] = self._cut(split, seed)
        return _CUTS[key]

    def _cut(self, split: str, seed: int) -> Data:
        dev = self.texts("dev")
        if split == "clean" and len(dev[0]):
            return Data(*dev).sample(MOST_CLEAN, "clean", self.source)
        texts, y = self.texts("test" if split == "test" else "train")
        if split == "test":
            return Data(texts, y)
        keep = torch.arange(len(y))
        if not len(dev[0]):
            order = torch.randperm(len(y), generator=generator("held-out", self.source))
            clean = round(self.held_out * len(y))
            keep = order[:clean] if split == "clean" else order[clean:]
        if self.rows and split == "train":
            if self.rows > len(keep):
                raise InputError(f"rows is at most {len(keep)} for {self.name}, got {self.rows}")
            keep = keep[torch.randperm(len(keep), generator=generator("rows", self.source, seed))[: self.rows]]
        keep = keep.sort().values
        return Data([texts[i] for i in keep.tolist()], y[keep])


#: The last few cuts, so that a sweep does not index the same texts again.
_CUTS: dict[Any, Data] = {}


class _Reader:
    """A task's training texts, compared by nothing: the cache's key is the source."""

    def __init__(self, task: TextTask) -> None:
        self.task = task

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reader)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=16)
def _vocabulary(*origin: str, most: int, read: _Reader) -> tuple[str, ...]:
    """The vocabulary of the training texts."""
    return vocabulary_of(read.task.texts("train")[0], most)


@method("text/sst2", paper="Socher et al., EMNLP 2013")
class SST2(TextTask):
    """Sentences of film reviews, negative or positive, 6,920 + 872 + 1,821."""

    source: ClassVar[str] = "sst2"


@method("text/ag-news", paper="Zhang, Zhao and LeCun, NeurIPS 2015, arXiv:1509.01626", version=2)
class AGNews(TextTask):
    """News in four classes, 11,106 + 10,000 + 7,600."""

    source: ClassVar[str] = "ag-news"


@method("text/imdb", paper="Maas et al., ACL 2011", version=2)
class IMDB(TextTask):
    """Full film reviews, negative or positive, 20,000 + 5,000."""

    source: ClassVar[str] = "imdb"
    length: int = 200


@method("text/rotten-tomatoes", paper="Pang and Lee, ACL 2005, arXiv:cs/0506075", version=2)
class RottenTomatoes(TextTask):
    """Snippets of film reviews, negative or positive, 6,824 + 1,706."""

    source: ClassVar[str] = "rotten-tomatoes"


@method("text/bbc-news", paper="Greene and Cunningham, ICML 2006", version=2)
class BBCNews(TextTask):
    """Full news articles in five classes, 1,780 + 445."""

    source: ClassVar[str] = "bbc-news"
    length: int = 200
    learner: Learner = SGD(optimizer="adamw", lr=4e-3, epochs=8, batch=64, weight_decay=0.05)


@method("text/spam-mail", paper="Apache SpamAssassin public corpus, 2006", version=2)
class SpamMail(TextTask):
    """Subject and body of e-mails, ham or spam, 4,837 + 1,209."""

    source: ClassVar[str] = "spam-mail"
    length: int = 200


@method("text/file")
class TextFile(TextTask):
    """Your own labelled texts from one CSV, TSV or JSON-lines file."""

    source: ClassVar[str] = "file"
    free: ClassVar[Free] = {"path": "file", "text_column": "text", "label_column": "text"}

    path: str = ""
    """The file. Rows are split by a column named split or part (train, dev or clean, test); without one, a fifth is
    held out for testing."""
    text_column: str = ""
    """Column of texts; by default the one named text, sentence, content, review, message or body."""
    label_column: str = ""
    """Column of labels; by default the one named label, class, category, target or y."""

    @property
    def origin(self) -> tuple[str, ...]:
        file = self._file()
        told = file.stat() if file.is_file() else None
        changed = "" if told is None else f"{told.st_size} {told.st_mtime_ns}"
        return ("file", str(file), self.text_column, self.label_column, changed)

    @property
    def class_names(self) -> Sequence[str]:
        names: tuple[str, ...] = tuple(_read(*self.origin).names)
        return names

    def fingerprint(self) -> str:
        read = _read(*self.origin)
        return hashlib.sha256(
            repr((read.texts, read.labels, read.parts, read.names)).encode("utf-8", "replace")
        ).hexdigest()

    def texts(self, part: str) -> tuple[list[str], Tensor]:
        read = _read(*self.origin)
        said = {"clean": "dev", "validation": "dev", "valid": "dev", "val": "dev"}
        parts = [said.get(p, p) for p in read.parts]
        if not set(parts) >= {"train", "test"}:
            order = torch.randperm(len(parts), generator=generator("split", "file")).tolist()
            parts = ["test" if place % 5 == 0 else "train" for place in order]
        at = [i for i, p in enumerate(parts) if p == part]
        return [read.texts[i] for i in at], torch.tensor([read.labels[i] for i in at], dtype=torch.int64)

    def _file(self) -> Path:
        if not self.path:
            raise InputError("text/file needs a path", hint="for example: --task.path reviews.csv")
        return Path(self.path).expanduser().resolve()


@lru_cache(maxsize=4)
def _read(kind: str, path: str, text: str, label: str, changed: str) -> Any:
    from torchbands.datasets.text_file import read_text_file

    return read_text_file(Path(path), text=text, label=label)
