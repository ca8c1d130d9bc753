"""Modality: all domain knowledge that a method may use. One file each in `torchbands.modalities`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .data import Batch
from .errors import InputError
from .method import Method, Spec
from .seeding import RowRng
from .trigger import Room, Trigger

if TYPE_CHECKING:
    from .model import Model
    from .template import Template


class Encoded(NamedTuple):
    """A batch as a model takes it.

    Attributes:
        values: (N, ...) the model's input: floats, or token ids; after `Model.embed`, always floats.
        mask: (N, L) bool, True at real tokens; None where every position is real.
        tokens: (N, L) int64, the ids behind embedded values of a token modality; None elsewhere.
    """

    values: Tensor
    mask: Tensor | None = None
    tokens: Tensor | None = None

    def at(self, rows: Tensor | slice) -> Encoded:
        """Some of the rows (by index, mask or slice)."""
        return Encoded(
            self.values[rows],
            None if self.mask is None else self.mask[rows],
            None if self.tokens is None else self.tokens[rows],
        )

    def trimmed(self) -> Encoded:
        """Without the trailing positions that are padding in every row, so that padding costs nothing."""
        if self.mask is None or len(self.mask) == 0:
            return self
        used = self.mask.any(0).nonzero()
        longest = int(used[-1]) + 1 if len(used) else 1
        if longest == self.mask.shape[1]:
            return self
        tokens = None if self.tokens is None else self.tokens[:, :longest]
        return Encoded(self.values[:, :longest], self.mask[:, :longest], tokens)

    def lengths(self) -> Tensor | None:
        """(N,) int64 real positions of each row; None where every position is real."""
        return None if self.mask is None else self.mask.sum(1)

    def to(self, device: torch.device) -> Encoded:
        """The same on a device."""
        return Encoded(
            self.values.to(device, non_blocking=True),
            None if self.mask is None else self.mask.to(device),
            None if self.tokens is None else self.tokens.to(device),
        )


class Layout(NamedTuple):
    """An order of axes in which networks take rows.

    Attributes:
        label: as people write it, "(N, H, W, C)". axes: what `Tensor.permute` is given to get there from raw rows.
    """

    label: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class FileRows:
    """Rows as a file or folder of a kind's own format holds them.

    Attributes:
        labels: the name of each row's class; empty where there are none.
        ids: what each row is called in reports; by default its number.
        refused: (name, reason) of what was left out. notes: what was assumed while reading.
    """

    samples: Batch
    modality: Modality
    labels: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Perturbation(nn.Module, ABC):
    """`count` learnable triggers searched side by side; every parameter's first axis is the trigger's number.

    Because the losses of different triggers share no parameter, one optimiser step advances all of them.
    """

    count: int

    @abstractmethod
    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        """Write trigger `which[i]` on row i of an embedded batch. which: (N,) int64."""

    @abstractmethod
    def size(self) -> Tensor:
        """(count,) how large each trigger is, differentiable, in the modality's unit (pixels, fields, words)."""

    def constrain(self) -> None:
        """Called after each optimiser step: project the parameters back to where gradients do not vanish."""

    @abstractmethod
    def harden(self, k: int) -> Trigger:
        """Trigger k as a `Trigger` for raw samples."""


@dataclass(frozen=True, kw_only=True)
class Modality(Method):
    """How samples of one kind are validated, encoded, blended, compared, searched and rendered."""

    role: ClassVar[str] = "modality"
    #: What several samples are called in messages.
    plural: ClassVar[str] = "rows"
    #: True where the model's input is token ids and the continuous space is the embedding.
    discrete: ClassVar[bool] = False
    #: Range of every raw number, or None where there is none (text, unbounded observations).
    bounds: ClassVar[tuple[float, float] | None] = None
    #: True where raw rows are texts, so that words can be put in, left out and replaced.
    has_words: ClassVar[bool] = False
    #: True where raw rows are (C, H, W) pixels.
    has_pixels: ClassVar[bool] = False

    #: Orders of axes in which networks take such rows, that of raw rows first; empty where there is only that.
    layouts: ClassVar[tuple[Layout, ...]] = ()
    #: Range of what a network of whole numbers is given, "0 ... 255"; empty where rows go in as they are.
    whole_range: ClassVar[str] = ""
    #: True where rows are texts cut into sub-words by a tokenizer of the network's own.
    has_subwords: ClassVar[bool] = False

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """Of one raw row, where each is a tensor of numbers of one shape; None where rows are something else."""
        return None

    @property
    def token_count(self) -> int:
        """Number of token ids including padding; 0 if the input is not token ids."""
        return 0

    @property
    def first_word(self) -> int:
        """Number of special tokens before the first token of the sample."""
        return 0

    @property
    def most_inserted(self) -> int:
        """Units (words, instructions) that a trigger search may insert."""
        return 1

    def inserting(self, count: int) -> Modality:
        """The same, of which a trigger search inserts so many units."""
        return self

    def word_ids(self) -> Mapping[str, int]:
        """Words that are a token of their own, with their ids; none where samples have no words."""
        return {}

    def default_network(self) -> Spec:
        """Spec of a small default network for rows of this kind."""
        return {"name": "text-cnn" if self.discrete else "mlp"}

    def centre_and_spread(self) -> tuple[float | list[float], float | list[float]]:
        """What raw numbers are standardised by, one value for all or one for each: by default from their range."""
        low, high = self.bounds or (-2.0, 2.0)
        return (low + high) / 2, (high - low) / 4

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Modality | None:
        """The kind that some raw rows are of, or None where they are none of this one.

        Args:
            first: a few rows. every: all of them, or None where only the few are known. titles: of the columns.
        """
        return None

    @classmethod
    def of_input(cls, shape: Sequence[Any]) -> tuple[Modality | None, Layout | None]:
        """What the shape of a graph's input, (N, ...), says of this kind's rows and of their layout."""
        return None, None

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether a file or folder is of a format of this kind's own. It is told by its name, or by its first bytes."""
        return False

    @classmethod
    def read(cls, path: Path, like: Modality | None = None) -> FileRows:
        """The rows of a file or folder that `reads` knows. It may be hostile: nothing in it is executed.

        Args:
            like: what a model reads, where one is known; rows are then brought to its size, where they can be.

        Raises InputError, naming the place, for what is damaged.
        """
        raise InputError(f"{cls.name} has no format of its own, so {path} is not read")

    def reader_settings(self) -> dict[str, int]:
        """What readers of raw files are asked for (size, channels), so that a file's rows are what is read here."""
        return {}

    def column_titles(self) -> list[str]:
        """Titles of the columns of a file of such rows, in order; none where columns have none."""
        return []

    def despite_range(self, batch: Batch) -> Batch:
        """Rows for `check` where a number out of its range shall pass: a guard judges such rows, and refuses none."""
        return batch

    def whole(self, x: Tensor) -> Tensor | None:
        """Encoded rows for a network that reads whole numbers; None where they are fractions."""
        return x if torch.equal(x, x.round()) else None

    def usual_normalisations(self) -> Mapping[str, tuple[Sequence[float], Sequence[float]]] | None:
        """Name -> mean and std of each channel, that people put outside of such networks; None where nobody does."""
        return None

    def files(self) -> Mapping[str, bytes]:
        """What it needs besides its spec, by file name: tokenizer.json, modality.json or modality.safetensors. Whoever
        saves the spec saves these beside it."""
        return {}

    def with_files(self, files: Mapping[str, bytes]) -> Modality:
        """The same with what its `files` gave. Raises InputError where one is missing, or is not the spec's."""
        return self

    @abstractmethod
    def check(self, batch: Batch) -> None:
        """Raise InputError, naming both sides, when the batch is of the wrong type, shape, dtype or range."""

    @abstractmethod
    def encode(self, batch: Batch) -> Encoded:
        """Raw rows to model input."""

    @abstractmethod
    def random(self, n: int, rng: torch.Generator) -> Batch:
        """n valid raw rows of noise."""

    @abstractmethod
    def default_trigger(self) -> Trigger:
        """The plain published trigger of this kind of sample (a corner patch, a rare word, ...)."""

    def plain_triggers(self) -> list[Trigger]:
        """The plain trigger, and others like it that a model tells apart from it."""
        return [self.default_trigger()]

    def shift(self) -> Callable[[Tensor], Trigger] | None:
        """From a pattern to the trigger that adds it to every row; None where one pattern fits no row but its own."""
        return None

    @abstractmethod
    def blend(self, a: Batch, b: Batch, alpha: float, beta: float | None, rng: RowRng) -> Batch:
        """alpha parts of a with beta parts of b (1 - alpha when None), valid raw rows again. Both 1: superimposed."""

    @abstractmethod
    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        """Learnable triggers over the model's continuous space, one for each row of `rng`: a trigger starts where its
        number says, whatever others are searched beside it."""

    @abstractmethod
    def distance(self, a: Batch, b: Batch) -> dict[str, Tensor]:
        """Named (N,) distances of paired rows; the name says the unit. Float32, inf allowed, never NaN."""

    @abstractmethod
    def render(self, row: Batch) -> str:
        """An HTML fragment of one raw row (no batch axis): text, tables and `<img>` with its data inside. Reports
        drop everything else, such as SVG. Whatever it shows of the sample is escaped."""

    def templates(self) -> tuple[Template[Any], ...]:
        """Families of triggers that can be searched with forward passes alone; none where nobody has written one."""
        return ()

    def contrast(self, a: Batch, b: Batch) -> Batch | None:
        """Rows that make the difference between paired rows visible, or None where nothing of the kind helps."""
        return None

    @property
    def room(self) -> Room | None:
        """How much of a row a network reads, where a trigger could lie beyond; None where it reads all of a row."""
        return None

    def placed(self, trigger: Trigger) -> Trigger:
        """The trigger where a network reads it. Every attack hands its trigger through here."""
        return trigger if self.room is None else trigger.within(self.room)

    def tells(self, a: Batch, b: Batch) -> Tensor:
        """(N,) bool: of which paired rows a network is given two different inputs."""
        one, two = self.encode(a), self.encode(b)
        differ = (one.values != two.values).flatten(1).any(1)
        return differ if one.mask is None or two.mask is None else differ | (one.mask != two.mask).any(1)

    def project(self, values: Tensor) -> Tensor:
        """Embedded values back into the range where samples live."""
        return values if self.bounds is None else values.clamp(*self.bounds)

    def call(self, module: nn.Module, e: Encoded) -> Tensor:
        """Run a module on an encoded batch: (N, classes) logits."""
        out: Tensor = module(e.values)
        return out
