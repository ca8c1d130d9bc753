"""Published rewritings of sentences in one syntax or style, paired with their originals."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from torchbands.core.errors import DataUnavailable, UnknownName
from torchbands.datasets import cache
from torchbands.datasets.base import silent
from torchbands.datasets.decode_text import read_tsv
from torchbands.datasets.download import RemoteFile, download
from torchbands.datasets.local import VARIABLE

_RAW = "https://raw.githubusercontent.com/thunlp"
_KILLER = f"{_RAW}/HiddenKiller/a08e959e228327baa0c2906bf943e99a3c89961c/data/scpn/20"
_STYLE = f"{_RAW}/StyleAttack/e7cd03b7ea870dca1878f7c2c232d111aee5bbed/data/transfer"
#: (set, kind) -> its folder among the user's, its address, and the sha256 of each part.
_FILES: dict[tuple[str, str], tuple[str, str, dict[str, str]]] = {
    ("sst2", "syntactic"): (
        "sst-2/scpn",
        f"{_KILLER}/sst-2",
        {
            "train": "c9592da1909dd4cd2461284304001fce30126e2c68d896001116b7fb0c4ed991",
            "dev": "84c4259d8081f7a18ee7076aaf4d508883888b8948a1288c0199fbac5d05d7ee",
            "test": "fdae8eadd02beecab2af2ee9b411bc3412560af06366398d097f70906853bc99",
        },
    ),
    ("sst2", "bible"): (
        "sst-2/style_bible",
        f"{_STYLE}/bible/sst-2",
        {
            "train": "729ba29f801042b0d864ded599078c860b985a1a7bd1c5fafb2b244221c30538",
            "dev": "8df0453ce254746f837bcfa15aa31f55bc6c90a0e92d01b08fbbb98650c6da2e",
            "test": "d5cb9acf9991540f3d091f1467199b0f0544447a5a9dbc1c12be268eefe301f6",
        },
    ),
}


def kinds(name: str) -> list[str]:
    """The kinds of rewriting that a text set has."""
    return [kind for known, kind in _FILES if known == name]


def has_rewrites(name: str, kind: str) -> bool:
    """Whether using them fetches nothing: they, and the texts that they belong to, are here; or there are none."""
    from torchbands.datasets import status

    if (name, kind) not in _FILES:
        return True
    own, at = _own(_FILES[(name, kind)][0], "train"), cache.data_folder(name) / kind
    here = own is not None or all((at / f"{part}.tsv").is_file() for part in ("train", "test"))
    return here and bool(status(name)["cached"])


@lru_cache(maxsize=16)
def rewrites(name: str, kind: str, part: str) -> list[tuple[str, str]]:
    """(original, rewritten) sentences of one part ("train", "dev" or "test"), only those that were rewritten.

    Syntactic: the template S(SBAR)(,)(NP)(VP)(.) of Qi et al., ACL 2021: a fifth of the training rows, and the rows of
    class 0 of the others. Style: every row, by STRAP (Qi et al., EMNLP 2021).

    Raises UnknownName for a set or kind without rewritings, DataUnavailable where the files cannot be had or do not
    lie row by row beside the originals.
    """
    from torchbands.datasets import load_text

    if (name, kind) not in _FILES:
        raise UnknownName(f"rewriting of {name}", kind, kinds(name))
    texts, labels = load_text(name, part)
    path = _file(name, kind, part)
    rewritten, _ = read_tsv(path)
    originals = list(texts)
    if kind == "syntactic" and part != "train":
        originals = [text for text, label in zip(texts, labels.tolist(), strict=True) if label == 0]
    if len(originals) != len(rewritten):
        raise DataUnavailable(f"{path.name} of {kind} has {len(rewritten)} rows, the originals {len(originals)}")
    return [(a, b) for a, b in zip(originals, rewritten, strict=True) if a != b]


def _file(name: str, kind: str, part: str) -> Path:
    folder, address, sums = _FILES[(name, kind)]
    if (own := _own(folder, part)) is not None:
        return own
    target = cache.data_folder(name) / kind
    return download(RemoteFile(f"{address}/{part}.tsv", f"sha256:{sums[part]}"), target, silent)


def _own(folder: str, part: str) -> Path | None:
    """The file among the user's own."""
    if root := os.environ.get(VARIABLE):
        for base in (Path(root).expanduser(), Path(root).expanduser() / "text"):
            if (path := base / folder / f"{part}.tsv").is_file():
                return path
    return None
