"""Image classification on real data sets. The defender's clean rows are held out of the official training set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import Free, method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Learner, Network
from torchbands.core.seeding import generator
from torchbands.core.task import SPLITS, Task
from torchbands.learners.sgd import SGD
from torchbands.modalities.image import Image
from torchbands.networks import ResNetNetwork, SmallCNNNetwork


@dataclass(frozen=True, kw_only=True)
class VisionTask(Task):
    """A data set by name, cut into train, clean and test."""

    #: Name in `torchbands.datasets`.
    source: ClassVar[str] = ""

    network: Network = SmallCNNNetwork()
    """Network to train."""
    learner: Learner = SGD(epochs=2, batch=128, lr=0.3)
    """How the network is trained."""
    rows: int = 0
    """Use only this many training rows, drawn by seed; 0: all. Reference models of small victims need it."""
    held_out: float = 0.05
    """Fraction of the official training set that is the defender's clean data."""

    @property
    def origin(self) -> tuple[str | int, ...]:
        """What tells this task's images from another's."""
        return (self.source,)

    @property
    def modality(self) -> Modality:
        from torchbands.datasets import status

        channels, size, _ = status(self.source)["shape"]
        return Image(channels=channels, size=size)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def class_names(self) -> Sequence[str]:
        from torchbands.datasets import classes

        return classes(self.source)

    def absent(self) -> str:
        from torchbands.datasets import status

        here = self.source in ("", "folder") or status(self.source)["cached"]
        return "" if here else f"the data set {self.source}"

    def fingerprint(self) -> str:
        from torchbands.datasets import fingerprint

        return fingerprint(self.source)

    def arrays(self, part: str) -> tuple[Tensor, Tensor]:
        """All uint8 images and int64 labels of the official "train" or "test" part."""
        from torchbands.datasets import load

        return load(self.source, part)

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
        x, y = self.arrays("test" if split == "test" else "train")
        if split == "test":
            return Data(Pixels(x), y)
        order = torch.randperm(len(y), generator=generator("held-out", self.source))
        clean = round(self.held_out * len(y))
        keep = order[:clean] if split == "clean" else order[clean:]
        if self.rows and split == "train":
            if self.rows > len(keep):
                raise InputError(f"rows is at most {len(keep)} for {self.name}, got {self.rows}")
            keep = keep[torch.randperm(len(keep), generator=generator("rows", self.source, seed))[: self.rows]]
        keep = keep.sort().values
        return Data(Pixels(x[keep]), y[keep])


#: The last few cuts, so that a sweep does not index the same images again.
_CUTS: dict[Any, Data] = {}


@method("vision/fashion-mnist", paper="Xiao et al., 2017, arXiv:1708.07747")
class FashionMNIST(VisionTask):
    """Ten kinds of clothing, 28x28 grey, 60,000 + 10,000."""

    source: ClassVar[str] = "fashion-mnist"


@method("vision/mnist", paper="LeCun et al., Proc. IEEE 1998")
class MNIST(VisionTask):
    """Handwritten digits, 28x28 grey, 60,000 + 10,000."""

    source: ClassVar[str] = "mnist"


@method("vision/cifar10", paper="Krizhevsky, 2009")
class CIFAR10(VisionTask):
    """Ten kinds of object, 32x32 colour, 50,000 + 10,000."""

    source: ClassVar[str] = "cifar10"
    network: Network = ResNetNetwork(depth=8)
    learner: Learner = SGD(augment="crop-flip", pad=4, epochs=10)


@method("vision/gtsrb", paper="Stallkamp et al., Neural Networks 2012")
class GTSRB(VisionTask):
    """43 German traffic signs, resized to 32x32 colour."""

    source: ClassVar[str] = "gtsrb"
    learner: Learner = SGD(augment="shift", epochs=10)


@method("vision/digits", paper="Alpaydin and Kaynak, 1998 (bundled with scikit-learn)")
class Digits(VisionTask):
    """Handwritten digits, 8x8 grey, 1,797 in all; bundled with scikit-learn, so always available."""

    source: ClassVar[str] = "digits"
    network: Network = SmallCNNNetwork(widths=(32, 64))
    learner: Learner = SGD(epochs=15, batch=64, lr=0.05)


@method("vision/folder")
class ImageFolder(VisionTask):
    """Your own images, one folder per class, scaled to squares."""

    source: ClassVar[str] = "folder"
    learner: Learner = SGD(augment="shift", epochs=10)
    free: ClassVar[Free] = {"path": "file"}

    path: str = ""
    """Folder with one subfolder per class, or with train/ and test/ folders of that form."""
    size: int = 32
    """Side in pixels to which every image is scaled."""
    channels: int = 3
    """3 for colour, 1 for greyscale."""

    @property
    def origin(self) -> tuple[str | int, ...]:
        return ("folder", *self._asked())

    @property
    def modality(self) -> Modality:
        return Image(channels=self.channels, size=self.size)

    @property
    def class_names(self) -> Sequence[str]:
        return self._read("train")[2]

    def fingerprint(self) -> str:
        """Of every image and label of both parts, as they are now: what was read before is forgotten where it changed.

        Images that this process reads later stay those until it is asked again.
        """
        from torchbands.datasets.folder import stamp

        folder = self._folder()
        _STAMPS[folder] = stamp(folder)
        told = hashlib.sha256(repr(self.class_names).encode())
        for part in ("train", "test"):
            for found in self.arrays(part):
                told.update(repr(tuple(found.shape)).encode() + found.numpy().tobytes())
        return told.hexdigest()

    def arrays(self, part: str) -> tuple[Tensor, Tensor]:
        x, y, _ = self._read(part)
        return x, y

    def _folder(self) -> str:
        if not self.path:
            raise InputError("vision/folder needs a path", hint="for example: --task.path my-images/")
        return str(Path(self.path).expanduser().resolve())

    def _read(self, part: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return _folder(*self._asked(), part)

    def _asked(self) -> tuple[str, int, int, str]:
        from torchbands.datasets.folder import stamp

        folder = self._folder()
        if folder not in _STAMPS:
            _STAMPS[folder] = stamp(folder)
        return folder, self.size, self.channels, _STAMPS[folder]


#: What every folder looked like when it was last asked for its fingerprint, or first read.
_STAMPS: dict[str, str] = {}


@lru_cache(maxsize=4)
def _folder(path: str, size: int, channels: int, changed: str, part: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    from torchbands.datasets import load_folder

    return load_folder(path, size, channels, "test" if part == "test" else "train")
