"""Columns that are dropped, guessed or kept questionably are told, in every output; so is which weights are judged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from torchbands.modalities.image import Image
from torchbands.networks import ResNetNetwork
from torchbands.report.scan import render
from torchbands.scanner.opening import open_suspect
from torchbands.scanner.outcome import Outcome, Subject
from torchbands.scanner.reading import read_rows

OUTPUTS = ("text", "markdown", "html", "json", "sarif", "junit")


def csv(path: Path, head: str, rows: list[tuple[object, ...]]) -> str:
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def table(path: Path, head: str, columns: int) -> str:
    """Numbers, then "a" or "b"; the first column counts the rows from 100."""
    rng = random.Random(0)
    return csv(path, head, [(100 + i, *(rng.random() for _ in range(columns)), "ab"[i % 2]) for i in range(40)])


def said(notes: tuple[str, ...], *words: str) -> bool:
    return any(all(word in note for word in words) for note in notes)


@pytest.mark.parametrize("title", ["id", "nr", "timestamp"])
def test_a_column_that_counts_the_rows_is_left_out_and_told(title: str, tmp_path: Path) -> None:
    rows = read_rows(table(tmp_path / "t.csv", f"{title},u,v,label", 2))
    assert rows.modality.column_titles() == ["u", "v"]
    assert said(rows.notes, repr(title), "counts the rows", "left out")


def test_names_of_rows_are_left_out_and_other_texts_are_still_refused(tmp_path: Path) -> None:
    body = [(f"x{i * 7 % 40}", i % 5, i * i % 7, "ab"[i % 2]) for i in range(40)]
    rows = read_rows(csv(tmp_path / "t.csv", "uuid,u,v,label", body))
    assert rows.modality.column_titles() == ["u", "v"] and said(rows.notes, "'uuid'", "names the rows")
    with pytest.raises(Exception, match="is no number"):
        read_rows(csv(tmp_path / "t.csv", "town,u,v,label", body))


def test_numbers_that_are_in_no_order_or_come_twice_are_features(tmp_path: Path) -> None:
    body = [(i * 7 % 40, i // 2, "ab"[i % 2]) for i in range(40)]
    assert read_rows(csv(tmp_path / "t.csv", "u,v,label", body)).modality.column_titles() == ["u", "v"]


def test_a_second_label_and_a_column_that_tells_it_are_told(tmp_path: Path) -> None:
    body = [(i % 3, 10 + i % 2, i * i % 7, "ab"[i % 2]) for i in range(40)]
    rows = read_rows(csv(tmp_path / "t.csv", "class,code,v,label", body))
    assert rows.modality.column_titles() == ["class", "code", "v"]
    assert said(rows.notes, "'class'", "says label too", "--label-column")
    assert said(rows.notes, "'code'", "one label alone") and not said(rows.notes, "'v'")
    rows = read_rows(csv(tmp_path / "t.csv", "u,v,kind", [(i % 3, i * i % 7, "ab"[i % 2]) for i in range(40)]))
    assert said(rows.notes, "'kind', the last")


def test_columns_beside_texts_are_told(tmp_path: Path) -> None:
    body = [(f"some text {i}", 20 + i, "ab"[i % 2]) for i in range(40)]
    rows = read_rows(csv(tmp_path / "t.csv", "text,age,label", body))
    assert said(rows.notes, "1 column is not read", "'age'")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": f"t {i}", "label": "ab"[i % 2], "a": 1, "b": 2}) + "\n" for i in range(40))
    )
    assert said(read_rows(str(tmp_path / "t.jsonl")).notes, "2 columns are not read", "'a', 'b'")


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_output_tells_how_it_was_read(kind: str) -> None:
    facts = {"notes": ["column nr counts the rows"], "weights_in": "twin-of-weights", "refused": 3}
    facts["refused_first"] = ["broken.png: no image"]
    made = render(Outcome(Subject("data", "t.csv", "", "tabular", facts)), kind)
    assert "column nr counts the rows" in made and "broken.png" in made
    assert "twin" in made and "of" in made and "weights" in made


def test_which_of_two_twins_is_judged_is_in_every_output(tmp_path: Path) -> None:
    image = Image(channels=3, size=16)
    state = ResNetNetwork(depth=8, shortcut="pad").build(image, 7).state_dict()
    state = {k: v for k, v in state.items() if not k.startswith("normalize")}
    torch.save({"model": state, "ema": {k: v + 0 for k, v in state.items()}}, tmp_path / "m.pt")
    arch = '{"name": "resnet", "params": {"depth": 8, "shortcut": "pad"}}'
    suspect = open_suspect(tmp_path / "m.pt", arch=arch, modality=image)
    for kind in OUTPUTS:
        made = render(Outcome(suspect.subject()), kind)
        assert "not judged: ema" in made, kind
