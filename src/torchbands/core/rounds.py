"""What a training of rounds may be given besides its rows: someone who watches it, and where it keeps its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .model import Model

#: Asked after a round what the model does, as shares in [0, 1] by name; None where one is undefined. Whoever made it
#: holds the test rows and the trigger: the learner has neither, and only hands the answers on.
Watch = Callable[[Model], Mapping[str, float | None]]


@dataclass(frozen=True)
class Rounds:
    """Attributes:
    watch: tells what the model does after a round; None where nobody looks.
    folder: where the state of the last finished round is kept, so that a run that is killed goes on from there; None
        keeps nothing. Whoever gives the folder removes it when the training's result is kept.
    """

    watch: Watch | None = None
    folder: Path | None = None


#: Nobody watches, and nothing is kept.
PLAIN = Rounds()
