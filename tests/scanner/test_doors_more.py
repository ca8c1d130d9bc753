"""Doors: what people bring and mistype, each with a line that helps."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest

from torchbands.cli.refs import _enough
from torchbands.core.errors import InputError
from torchbands.core.words import command_line, in_about, quoted
from torchbands.scanner.reading import read_rows


@pytest.mark.parametrize(
    "word", ["plain.pt", "a b'c.pt", "esc\x1b[31m.pt", "line\nbreak\\.pt", "bell\x07'q.pt", "\u202erev.pt", "\udcff.pt"]
)
def test_a_printed_word_is_read_back_by_the_shell(word: str) -> None:
    printed = command_line(["printf", "%s", word])
    assert printed.isprintable() and "\u202e" not in printed
    out = subprocess.run(["bash", "-c", printed], capture_output=True, check=True).stdout
    assert out == word.encode("utf-8", "surrogateescape")
    assert quoted("plain.pt") == "plain.pt"


def test_a_time_is_not_about_under() -> None:
    assert (in_about(0.2), in_about(40.0)) == ("under 1 s", "about 40 s")


def folder_of_texts(top: Path, classes: tuple[str, ...], n: int = 30) -> None:
    for name in classes:
        (top / name).mkdir(parents=True)
        for i in range(n):
            (top / name / f"{i}_7.txt").write_text(f"a {name} film number {i}")


def test_class_folders_of_texts(tmp_path: Path) -> None:
    folder_of_texts(tmp_path / "plain", ("pos", "neg"))
    (tmp_path / "plain" / "pos" / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "plain" / "pos" / "out.txt").symlink_to("/etc/hostname")
    rows = read_rows(str(tmp_path / "plain"))
    assert rows.class_names == ("neg", "pos") and len(rows) == 60 and rows.ids[0] == "neg/0_7.txt"
    assert dict(rows.refused).keys() == {"pos/bad.txt", "pos/out.txt"}


def test_parts_of_class_folders_of_texts(tmp_path: Path) -> None:
    folder_of_texts(tmp_path / "imdb" / "train", ("pos", "neg", "unsup"))
    folder_of_texts(tmp_path / "imdb" / "test", ("pos", "neg"), 20)
    train, test = (read_rows(str(tmp_path / "imdb"), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60, 40) and train.class_names == test.class_names == ("neg", "pos")
    assert any("train/; not read: test" in note for note in train.notes)
    assert any("30 texts of unsup/ have no class" in note for note in train.notes)


def test_a_list_of_labels_beside_images_is_told_how_to_be_named(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.new("L", (8, 8), i).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "labels.csv").write_text("name,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4)))
    with pytest.raises(InputError) as caught:
        read_rows(str(tmp_path))
    assert all(word in caught.value.hint for word in ("labels.csv", "metadata.csv", "file_name"))


@pytest.mark.parametrize("label", [{"a": 1}, [1, 2]])
def test_a_label_of_json_that_is_no_label(label: object, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {i}", "label": label}) + "\n" for i in range(30)))
    with pytest.raises(InputError, match="row 1 has .* for its label") as caught:
        read_rows(str(path))
    assert "--label-column" in caught.value.hint


def test_true_and_false_are_two_classes_however_they_are_spelt(tmp_path: Path) -> None:
    path, spelt = tmp_path / "t.csv", ("True", "FALSE", "true", "false")
    path.write_text("text,label\n" + "".join(f"text {i},{spelt[i % 4]}\n" for i in range(40)))
    rows = read_rows(str(path))
    assert rows.class_names == ("false", "true") and any("however they are spelt" in note for note in rows.notes)


def test_texts_without_a_heading_are_told_so(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"I liked it {i} times,{'ab'[i % 2]}\n" for i in range(40)))
    with pytest.raises(InputError) as caught:
        read_rows(str(path))
    assert "no heading" in caught.value.hint and "text,label" in caught.value.hint


def test_too_few_references_are_told_before_they_are_trained(capsys: pytest.CaptureFixture[str]) -> None:
    for count, alpha, warned in ((3, 0.05, True), (19, 0.05, False), (19, 0.01, True), (99, 0.01, False)):
        _enough(argparse.Namespace(count=count, alpha=alpha, add=False))
        assert ("inconclusive" in capsys.readouterr().err) == warned
