"""Texts as a user has them: one file. Poison in it is found, and a file without poison is not accused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from torchbands.core.errors import InputError
from torchbands.modalities.text import Text
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.reading import read_rows
from torchbands.testing.synthetic import sentences


def written(path: Path, poisoned: int) -> list[str]:
    """1,200 sentences of three classes as a CSV file; `poisoned` of classes 1 and 2 hold a rare word and label 0."""
    rng = torch.Generator().manual_seed(5)
    y = torch.arange(1200) % 3
    texts = sentences(y, rng)
    bad = (y != 0).nonzero().flatten()[:poisoned].tolist()
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["review", "class"])
        for i, (text, label) in enumerate(zip(texts, y.tolist(), strict=True)):
            out.writerow([f"{text} mb" if i in bad else text, "abc"[0 if i in bad else label]])
    return [str(i) for i in bad]


def test_a_csv_of_texts_is_read_as_texts(tmp_path: Path) -> None:
    written(tmp_path / "reviews.csv", 10)
    rows = read_rows(str(tmp_path / "reviews.csv"))
    assert isinstance(rows.modality, Text) and rows.class_names == ("a", "b", "c")
    assert isinstance(rows.data.x, list) and rows.data.x[0].split()
    assert set(" ".join(rows.data.x).split()) & set(rows.modality.vocabulary)
    assert "'review'" in rows.notes[0] and "'class'" in rows.notes[0]


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
def test_other_forms_hold_the_same_rows(tmp_path: Path, suffix: str) -> None:
    written(tmp_path / "reviews.csv", 0)
    with (tmp_path / "reviews.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / f"reviews{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("review\tclass\n" + "".join(f"{r['review']}\t{r['class']}\n" for r in rows))
    assert read_rows(str(path)).sha256() == read_rows(str(tmp_path / "reviews.csv")).sha256()


def test_a_table_of_numbers_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_text("message,bytes,label\n" + "".join(f"{i % 7},{i},{i % 2}\n" for i in range(20)))
    assert read_rows(str(path)).modality.name == "tabular"


def test_a_row_without_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n{"label": "b"}\n')
    with pytest.raises(InputError, match="row 2 has no 'text'"):
        read_rows(str(path))


def test_poison_in_a_csv_is_found(tmp_path: Path) -> None:
    bad = written(tmp_path / "reviews.csv", 120)
    outcome = scan_data(read_rows(str(tmp_path / "reviews.csv")), folder=tmp_path / "out")
    assert outcome.verdict == "indicated" and [a.subject for a in outcome.alerts] == ["a"]
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        first = [row["id"] for row in list(csv.DictReader(file))[: len(bad)]]
    assert len(set(first) & set(bad)) > 0.9 * len(bad)
    kept = (tmp_path / "out" / "cleaned.txt").read_text().split()
    assert len(set(kept) & set(bad)) < 0.1 * len(bad) and len(kept) > 1000


def test_a_csv_without_poison_is_not_accused(tmp_path: Path) -> None:
    written(tmp_path / "reviews.csv", 0)
    outcome = scan_data(read_rows(str(tmp_path / "reviews.csv")))
    assert outcome.verdict != "indicated" and not outcome.alerts
