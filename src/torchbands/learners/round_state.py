"""The state of federated training after a round, in a file: a run that was killed goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from torchbands.core.data import Data
from torchbands.core.digest import digest
from torchbands.core.hook import Hook
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.core.snapshot import restore, snapshot
from torchbands.learners.vectors import buffers_of, weights_of
from torchbands.zoo.files import full_disk_told

FILE = "round.pt"


class RoundState:
    """Keeps and gives back everything that changes from round to round.

    Args:
        folder: where it lies; None keeps nothing.
        identity: what tells this training from others. State of another training is not continued, but replaced.
        changing: name -> what changes in place: the global model, the random sources, the server, the hooks, the log.
    """

    def __init__(self, folder: Path | None, identity: str, changing: Mapping[str, Any]) -> None:
        self.file = None if folder is None else folder / FILE
        self.identity, self.changing = identity, changing

    def load(self) -> int:
        """How many rounds are finished; their state is put back."""
        if self.file is None or not self.file.is_file():
            return 0
        try:
            held = torch.load(self.file, weights_only=True)
            if held["identity"] != self.identity or set(held["state"]) != set(self.changing):
                return 0
        except Exception:  # torch raises whatever its reader met: a damaged file is no state
            return 0
        for name, saved in held["state"].items():
            restore(self.changing[name], saved)
        return int(held["finished"])

    def save(self, finished: int) -> None:
        """Write the state, whole or not at all."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        held = {name: snapshot(value) for name, value in self.changing.items()}
        beside = self.file.with_name(f".{FILE}.{os.getpid()}.tmp")
        with full_disk_told(beside):
            with beside.open("wb") as out:
                torch.save({"identity": self.identity, "finished": finished, "state": held}, out)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(self.file)


def identity_of(learner: Method, model: Model, data: Data, hooks: Sequence[Hook], seed: int) -> str:
    """What a training is: its settings, its first weights, its rows with whose they are, and who takes part in it."""
    told = hashlib.sha256(json.dumps([learner.spec(), seed, torch.__version__], sort_keys=True).encode())
    truth = torch.zeros(len(data), dtype=torch.bool) if data.poisoned is None else data.poisoned
    for tensor in (weights_of(model), buffers_of(model), data.meta["client"], truth):
        told.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    told.update(digest(data).encode())
    for hook in hooks:
        told.update(type(hook).__qualname__.encode())
        told.update("".join(v.key() for v in vars(hook).values() if isinstance(v, Method)).encode())
    return told.hexdigest()


def forget(*folders: Path) -> None:
    """Remove the state that lies in folders, and those of them that are then empty."""
    for folder in folders:
        for left in (folder / FILE, *folder.glob(f".{FILE}.*.tmp")):
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or somebody else's files in it
            folder.rmdir()
