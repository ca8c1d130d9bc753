"""One kind of folder for all that is kept: files, and a card that says what they are, with a checksum over each.

Victims, references and their members, guards and repaired models are such folders. They are written whole or not at
all, replace only what the same command made, and are read after every file has been compared with its card.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import BandsError, InputError
from torchbands.core.words import shown

from .files import full_disk_told, prefix, read_text, sha256, sweep, write_json

if TYPE_CHECKING:
    from torch import Tensor

#: The entry of a card that holds the checksum of the rest.
SUM = "card_sha256"


def digest(card: Mapping[str, Any], but: str = SUM) -> str:
    """Hex digest of a card or record without its own checksum, the entry `but`."""
    said = {key: value for key, value in card.items() if key != but}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def summed(card: Mapping[str, Any], entry: str = SUM) -> dict[str, Any]:
    """A card or record as JSON gives it back, with its checksum."""
    plain = json.loads(json.dumps({k: v for k, v in card.items() if k != entry}, allow_nan=False))
    return {**plain, entry: digest(plain, entry)}


def fits(card: Mapping[str, Any], entry: str = SUM) -> bool:
    """Whether a card is as it was written, as far as it can be told: older versions wrote some without a checksum."""
    return entry not in card or card[entry] == digest(card, entry)


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, for its card."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, of whatever device and layout, as safetensors."""
    from safetensors.torch import save_file

    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path)


def _files(card: Mapping[str, Any]) -> Mapping[str, str]:
    files: Mapping[str, str] = card["files"]
    return files


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one command writes as a folder, and how its own work is known again.

    Attributes:
        name: in messages, with its article: "a victim". card: the file that says what the folder is.
        files: names of all that may lie in such a folder. is_mine: whether a card is of this kind; where the place
            alone tells, as inside a store, none is asked. replaced: whether such a folder may be written anew.
        entries: what every card says. needs: the files that every card names. sums: name of a file -> sha256, as a card
            tells it.
        format: what a card says of itself; None where it says nothing. unsummed: whether older versions wrote cards
            without a checksum. error: raised for what is damaged. again: what to do about it.
    """

    name: str
    card: str
    files: frozenset[str]
    is_mine: Callable[[Mapping[str, Any]], bool] | None = None
    replaced: bool = True
    sums: Callable[[Mapping[str, Any]], Mapping[str, str]] = _files
    entries: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    format: int | None = 1
    unsummed: bool = False
    error: type[BandsError] = BandsError
    again: str = ""

    @property
    def _noun(self) -> str:
        return self.name.partition(" ")[2]

    def check(self, folder: Path) -> None:
        """Raises InputError unless the folder is new, empty, or holds one of this kind and nothing else."""
        if not os.path.lexists(folder):
            return
        if folder.is_symlink() or not folder.is_dir():
            raise InputError(f"{folder} is {'a link' if folder.is_symlink() else 'a file'}", hint="name a new folder")
        held = sorted(p.name for p in folder.iterdir())
        if not held:
            return
        hint = "nothing was changed: name a new folder, or move that one away yourself"
        if foreign := [name for name in held if name not in self.files]:
            what = f"holds {shown(foreign[0], 80)}" + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else "")
            raise InputError(f"{folder} exists and {what}, which {self.name} has not", hint=hint)
        if not self.replaced or not self._mine(folder):
            raise InputError(f"{folder} exists and is not {self.name} that this command made", hint=hint)

    def _mine(self, folder: Path) -> bool:
        if self.is_mine is None:
            return True
        try:
            card = json.loads(read_text(folder / self.card))
            return isinstance(card, dict) and self.is_mine(card)
        except (OSError, ValueError, RecursionError):
            return False

    @contextmanager
    def new(self, path: Path) -> Iterator[Path]:
        """A temporary directory that takes the final name when the block ends well and vanishes when it does not.

        What lay under that name is replaced where it is of this kind and nothing else, and a word on stderr says so;
        it is moved aside first, so that a kill loses neither. Raises InputError otherwise.
        """
        self.check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        with full_disk_told(path):
            temporary = Path(tempfile.mkdtemp(prefix=prefix(path), suffix=".tmp", dir=path.parent))
            try:
                yield temporary
                self.check(path)  # training took a while
                old = temporary.with_suffix(".old.tmp")
                if path.exists():
                    if any(path.iterdir()) and self.is_mine is not None:
                        print(f"note: {self.name} that was in {shown(path)} is replaced", file=sys.stderr, flush=True)
                    path.replace(old)
                temporary.replace(path)
                shutil.rmtree(old, ignore_errors=True)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def write_card(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write the card, whole or not at all, with its checksum."""
        write_json(folder / self.card, summed(card))

    def read_card(self, folder: Path) -> dict[str, Any]:
        """The card, once it fits its own checksum; the files that it names are looked at by `check_files`."""
        if not (folder / self.card).is_file():
            raise self.error(f"{folder} is not a {self._noun} directory: it has no {self.card}", hint=self.again)
        try:
            card: dict[str, Any] = json.loads(read_text(folder / self.card))
            if not isinstance(card, dict) or (self.is_mine is not None and not self.is_mine(card)):
                raise ValueError(f"it is not {self.name}'s")
            if missing := sorted(self.entries - set(card)):
                raise ValueError(f"it does not say its {missing[0]}")
            if not self.unsummed and SUM not in card:
                raise ValueError("it has no checksum")
            named = set(self.sums(card))
            if not self.needs <= named <= self.files:
                raise ValueError("it names other files")
            whole = fits(card)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.damaged(folder, f"{self.card}: {error}") from None
        if not whole:
            raise self.damaged(folder, f"{self.card} was altered: its checksum does not fit")
        if self.format is not None and card.get("format") != self.format:
            said = f"has format {card.get('format')!r}, this torchbands reads format {self.format}"
            raise self.error(f"{folder} {said}", hint=self.again)
        return card

    def check_files(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Raises `error`, naming the file, where one that the card names is missing, truncated or altered."""
        for name, expected in self.sums(card).items():
            if not (folder / name).is_file():
                raise self.damaged(folder, f"{name} is missing")
            if sha256(folder / name) != expected:
                raise self.damaged(folder, f"{name} was truncated or altered: its checksum does not fit its card")

    def verified(self, folder: Path) -> dict[str, Any]:
        """The card, after every file has been checked against it."""
        card = self.read_card(folder)
        self.check_files(folder, card)
        return card

    def tensors(self, folder: Path, name: str) -> dict[str, Tensor]:
        """The tensors of a file that was checked."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise self.damaged(folder, f"{name}: {error}") from None

    def damaged(self, folder: Path, why: str) -> BandsError:
        """What to raise for a folder that is not as it was written."""
        return self.error(f"the {self._noun} {folder} is damaged ({why})", hint=self.again)
