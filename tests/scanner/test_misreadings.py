"""What people bring is read as they mean it, or refused; what is dropped, guessed or reordered is counted and told."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchbands.core.errors import InputError
from torchbands.datasets import load_folder
from torchbands.scanner.reading import read_rows


def pictures(root: Path, names: str = "ab", count: int = 6, side: int = 12) -> Path:
    """`count` grey-level noise pictures in colour for each class."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.mark.parametrize("learn", ["train", "Training"])
@pytest.mark.parametrize("judge", ["val", "valid", "validation", "test", "testing", "dev"])
def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, learn: str, judge: str) -> None:
    pictures(tmp_path / "d" / learn)
    pictures(tmp_path / "d" / judge, count=3)
    rows = read_rows(str(tmp_path / "d"))
    assert rows.class_names == ("a", "b") and len(rows) == 12 and judge in rows.notes[0]
    assert len(read_rows(str(tmp_path / "d"), split="test")) == 6
    assert len(load_folder(tmp_path / "d", split="train")[0]) == 12
    assert len(load_folder(tmp_path / "d", split="test")[0]) == 6


def test_classes_that_are_called_like_parts_stay_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "vehicles" / "train", "x").joinpath("x").rename(tmp_path / "moved")
    (tmp_path / "vehicles" / "train").rmdir()
    (tmp_path / "moved").rename(tmp_path / "vehicles" / "train")
    pictures(tmp_path / "vehicles", "c")
    assert read_rows(str(tmp_path / "vehicles")).class_names == ("c", "train")


def test_a_class_that_a_part_lacks_moves_no_numbers(tmp_path: Path) -> None:
    pictures(tmp_path / "d" / "train", "abc")
    pictures(tmp_path / "d" / "val", "ac")
    rows = read_rows(str(tmp_path / "d"), split="test")
    assert rows.class_names == ("a", "b", "c") and set(rows.data.y.tolist()) == {0, 2}


def test_one_odd_image_does_not_decide_for_all(tmp_path: Path) -> None:
    grey = pictures(tmp_path / "grey") / "a" / "00.png"
    Image.open(grey).convert("L").resize((4, 4)).save(grey)
    rows = read_rows(str(tmp_path / "grey"))
    assert rows.modality.spec()["params"] == {"channels": 3, "size": 12}
    assert any(n.startswith("1 of 12 images are grey") for n in rows.notes)
    assert any(n.startswith("1 of 12 images are not 12 pixels long (4 to 12)") for n in rows.notes)


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    root = pictures(tmp_path / "kinds")
    (root / "a" / "00.png").rename(root / "a" / "00.gif")
    (root / "a" / "01.png").rename(root / "a" / "01")
    Image.open(root / "a" / "02.png").save(root / "a" / "02.jfif", format="JPEG")
    (root / "b" / "00.png").rename(root / "loose.png")
    rows = read_rows(str(root))
    assert dict(rows.refused).keys() == {"a/00.gif", "a/01", "loose.png"} and len(rows) == 10
    assert len(rows) + len(rows.refused) == sum(p.is_file() for p in root.rglob("*"))


BODY = "a fine film,pos\na dull plot,neg\n" * 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,label\n" + BODY + "well made, really,pos\n", r"row 62 \(line 62\) has 3 cells, the first has 2"),
        ('text,label\n"never closed,pos\n' + '"a fine film, truly",pos\na dull plot,neg\n' * 30, "quotes before it"),
        ('text,label\n"never closed,pos\n' + BODY, "quotes before it"),
        ("text,label,text\n" + "a fine film,pos,x\na dull plot,neg,y\n" * 30, "2 columns named 'text' and 'text'"),
        ("text,label,Label\n" + "a fine film,pos,1\na dull plot,neg,2\n" * 30, "2 columns named 'label' and 'Label'"),
    ],
)
def test_rows_that_do_not_fit_their_heading_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_rows(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("text", "names", "rows", "said"),
    [
        ("text,label\n" + BODY + "nobody labelled this,\n" * 3, ("neg", "pos"), 60, "3 rows without a label"),
        (
            "text,label\n" + BODY.replace("pos", "1").replace("neg", "0") + "nobody,nan\n",
            ("0", "1"),
            60,
            "1 rows without",
        ),
        ("text,label\n" + BODY.replace("pos", "1").replace("neg", "0") + "x,1.0\n", ("0", "1"), 61, "1 and 1.0"),
        ("text,label\n" + BODY + "x,Pos\n", ("Pos", "neg", "pos"), 61, "differ only in case"),
        ("a,b,label\n" + "1,2,x\n3,4,y\n" * 9 + "5,6,\n", ("x", "y"), 18, "1 rows without a label"),
        ("text;label\n" + BODY.replace(",", ";"), ("neg", "pos"), 60, "separated by semicolons"),
        (",a,b,label\n" + "".join(f"{i},2,{i},{i % 2}\n" for i in range(20)), ("0", "1"), 20, "it is left out"),
        ('text,label\n"one\ntwo,pos\nthree",pos\nx,neg\n' + BODY, ("neg", "pos"), 62, "is a quote missing"),
    ],
)
def test_what_is_left_out_or_guessed_is_told(
    tmp_path: Path, text: str, names: tuple[str, ...], rows: int, said: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = read_rows(str(tmp_path / "t.csv"))
    assert found.class_names == names and len(found) == rows
    assert any(said in note for note in found.notes)


def test_ids_are_rows_of_the_file_where_some_were_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nx,\n" + BODY)
    assert read_rows(str(tmp_path / "t.csv")).ids[:2] == ("1", "2")


def test_quotes_of_a_tab_separated_file_may_be_letters_like_others(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('sentence\tlabel\n"never closed\tpos\n' + BODY.replace(",", "\t"))
    rows = read_rows(str(tmp_path / "t.tsv"))
    assert len(rows) == 61 and rows.data.x[:1] == ['"never closed'] and "as they stand" in rows.notes[1]


def test_columns_may_be_named_and_files_packed(tmp_path: Path) -> None:
    text = "words,kind,label\n" + "a fine film,pos,7\na dull plot,neg,7\n" * 30
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    rows = read_rows(str(tmp_path / "t.csv.gz"), text="words", label="kind")
    assert rows.class_names == ("neg", "pos") and rows.data.x[:1] == ["a fine film"]
    with pytest.raises(InputError, match="no text column nope"):
        read_rows(str(tmp_path / "t.csv.gz"), text="nope")


@pytest.mark.parametrize("name", ["x.xlsx", "x.pkl", "x.npy", "x.json"])
def test_a_kind_that_is_not_read_says_how_to_save_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(InputError) as caught:
        read_rows(str(tmp_path / name))
    assert caught.value.hint and "is of a kind" not in caught.value.message
