"""Data as pandas, Hugging Face datasets and imagefolders save them: read as meant, or refused by name."""

from __future__ import annotations

import gzip
import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from torchbands.core.data import whole
from torchbands.core.errors import InputError, MissingExtra
from torchbands.scanner.reading import read_rows
from torchbands.tasks.text import TextFile

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = [f"a {'fine' if i % 2 else 'dull'} film {i} 😀" for i in range(30)]
WORLD = ("World", "Sports", "Business")


def features(**kinds: Any) -> dict[bytes, bytes]:
    """What datasets writes into a schema to say what its columns are."""
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


def classes(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def news(n: int = 30) -> Any:
    table = pyarrow.table({"text": TEXTS[:n], "label": [i % 3 for i in range(n)], "idx": list(range(n))})
    return table.replace_schema_metadata(features(label=classes(*WORLD), text={"_type": "Value"}))


def png(shade: int, size: int = 12) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 9, 9)).save(held, "PNG")
    return held.getvalue()


def stream(path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def test_classes_keep_the_order_that_the_file_gives_them(tmp_path: Path) -> None:
    parquet.write_table(news(), tmp_path / "n.parquet")
    rows = read_rows(str(tmp_path / "n.parquet"))
    assert rows.class_names == WORLD and rows.data.y.tolist()[:4] == [0, 1, 2, 0]
    assert rows.data.x[:1] == [TEXTS[0]]
    task = TextFile(path=str(tmp_path / "n.parquet"))
    assert tuple(task.class_names) == WORLD


def test_pandas_frames_are_read_without_their_index(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    whole = [i * 7 % 30 for i in range(30)]
    frame = pandas.DataFrame({"a": [i / 7 for i in range(30)], "b": whole, "target": ["x", "y"] * 15})
    frame = frame.set_index(pandas.Index(range(100, 130)))
    written = {
        "f.parquet": lambda p: frame.to_parquet(p),
        "f.feather": lambda p: frame.reset_index(drop=True).to_feather(p),
        "f.csv": lambda p: frame.to_csv(p),
        "f.csv.gz": lambda p: frame.to_csv(p),
        "f.tsv": lambda p: frame.to_csv(p, sep="\t", index=False),
        "semi.csv": lambda p: frame.to_csv(p, sep=";"),
        "tabs.csv": lambda p: frame.to_csv(p, sep="\t"),
    }
    for name, write in written.items():
        write(tmp_path / name)
        rows = read_rows(str(tmp_path / name))
        assert rows.class_names == ("x", "y"), name
        assert torch.equal(torch.as_tensor(rows.data.x)[:, 0], torch.tensor([i / 7 for i in range(30)])), name
        assert rows.data.x.shape == (30, 2), name
    texts = pandas.DataFrame({"review": TEXTS, "sentiment": ["pos", "neg"] * 15, "stars": range(30)})
    texts.to_csv(tmp_path / "t.csv", sep=";")
    rows = read_rows(str(tmp_path / "t.csv"), label="sentiment")
    assert rows.class_names == ("neg", "pos") and rows.data.x[:1] == [TEXTS[0]]
    with pytest.raises(InputError) as refused:
        read_rows(str(tmp_path / "t.csv"))
    assert "sentiment" in refused.value.hint and "label" in refused.value.message


def test_folders_of_hugging_face_datasets(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    stream(saved / "train" / "data-00000-of-00002.arrow", news(20))
    stream(saved / "train" / "data-00001-of-00002.arrow", news(10))
    stream(saved / "test" / "data-00000-of-00001.arrow", news(6))
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for part, count in (("train", 2), ("test", 1)):
        names = [f"data-{i:05}-of-{count:05}.arrow" for i in range(count)]
        state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}
        (saved / part / "state.json").write_text(json.dumps(state))
    rows = read_rows(str(saved))
    assert len(rows) == 30 and rows.class_names == WORLD and "part 'train'; not read: test" in rows.notes[0]
    assert len(read_rows(str(saved), split="test")) == 6
    assert len(read_rows(str(saved / "test"))) == 6

    hub = tmp_path / "hub"
    (hub / "data").mkdir(parents=True)
    (hub / "README.md").write_text("# news")
    parquet.write_table(news(20), hub / "data" / "train-00000-of-00002.parquet")
    parquet.write_table(news(10), hub / "data" / "train-00001-of-00002.parquet")
    parquet.write_table(news(6), hub / "data" / "test-00000-of-00001.parquet")
    assert len(read_rows(str(hub))) == 30 and len(read_rows(str(hub), split="test")) == 6

    lines = tmp_path / "lines"
    lines.mkdir()
    for part, n in (("train", 20), ("test", 6)):
        with gzip.open(lines / f"{part}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": t, "label": i % 2}) + "\n" for i, t in enumerate(TEXTS[:n]))
    assert len(read_rows(str(lines))) == 20 and len(read_rows(str(lines), split="test")) == 6
    (lines / "other.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="several files of rows"):
        read_rows(str(lines))

    state = json.loads((saved / "test" / "state.json").read_text())
    for changed, said in (
        ({"_data_files": [{"filename": "../train/data-00000-of-00002.arrow"}]}, "has no file"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "selection of rows"),
        ({"_data_files": 3}, "damaged"),
    ):
        (saved / "test" / "state.json").write_text(json.dumps({**state, **changed}))
        with pytest.raises(InputError, match=said):
            read_rows(str(saved / "test"))


def test_images_inside_a_column(tmp_path: Path) -> None:
    shades = [{"bytes": png(8 * i), "path": f"{i}.png"} for i in range(10)]
    shades[3] = {"bytes": b"no image", "path": "3.png"}
    shades[4] = {"bytes": png(32, size=20), "path": "4.png"}
    table = pyarrow.table({"img": shades, "label": [i % 2 for i in range(10)]})
    said = features(img={"_type": "Image"}, label=classes("dog", "cat"))
    parquet.write_table(table.replace_schema_metadata(said), tmp_path / "i.parquet")
    rows = read_rows(str(tmp_path / "i.parquet"))
    assert rows.class_names == ("dog", "cat") and len(rows) == 9 and rows.refused[0][0] == "3"
    assert rows.ids[3] == "4" and any("1 of 9 images" in note for note in rows.notes)
    assert whole(rows.data.x).shape == (9, 3, 12, 12)
    parquet.write_table(table.replace_schema_metadata(None), tmp_path / "i.parquet")  # told by the column's name
    assert len(read_rows(str(tmp_path / "i.parquet"))) == 9
    parquet.write_table(
        pyarrow.table({"image": [{"bytes": None, "path": "1.png"}] * 4, "label": [0, 1] * 2}), tmp_path / "p.parquet"
    )
    with pytest.raises(InputError, match="by path and does not hold them"):
        read_rows(str(tmp_path / "p.parquet"))


def test_images_that_a_file_beside_them_labels(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for i in range(4 if part == "train" else 2):
            (tmp_path / part / f"{i}.png").write_bytes(png(40 * i))
    (tmp_path / "secret.png").write_bytes(png(1))
    listed = "file_name,label\n" + "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(4))
    (tmp_path / "train" / "metadata.csv").write_text(listed + "9.png,cat\n../secret.png,dog\n")
    (tmp_path / "test" / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i}.png", "label": ["dog", "cat"][i]}) + "\n" for i in range(2))
    )
    rows = read_rows(str(tmp_path))
    assert rows.class_names == ("cat", "dog") and rows.ids == ("0.png", "1.png", "2.png", "3.png")
    assert rows.data.y.tolist() == [1, 0, 1, 0] and [why for _, why in rows.refused] == [
        "it is listed and not there", "it leads out of the folder",
    ]  # fmt: skip
    assert read_rows(str(tmp_path), split="test").data.y.tolist() == [1, 0]
    for part in ("train", "test"):
        (tmp_path / part / f"metadata.{'csv' if part == 'train' else 'jsonl'}").unlink()
    both = [("train", i) for i in range(4)] + [("test", i) for i in range(2)]
    (tmp_path / "metadata.csv").write_text(
        "kind,file_name,n\n" + "".join(f"{'ab'[i % 2]},{part}/{i}.png,{i}\n" for part, i in both)
    )
    rows = read_rows(str(tmp_path), label="kind")
    assert rows.ids[0] == "train/0.png" and len(rows) == 4 and rows.class_names == ("a", "b")
    assert len(read_rows(str(tmp_path), label="kind", split="test")) == 2
    with pytest.raises(InputError, match="no column of labels") as refused:
        read_rows(str(tmp_path))
    assert "--label-column" in refused.value.hint


def test_damaged_and_large_files_are_refused_and_a_missing_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(news(), tmp_path / "n.parquet")
    held = (tmp_path / "n.parquet").read_bytes()
    for name, data in (("a.parquet", held[:-9]), ("b.parquet", b"PAR1"), ("c.arrow", held), ("d.feather", b"ARROW1x")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="cannot be read"):
            read_rows(str(tmp_path / name))
    monkeypatch.setattr("torchbands.datasets.frames.MOST_CELLS", 50)
    with pytest.raises(InputError, match="cells"):
        read_rows(str(tmp_path / "n.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="pyarrow") as missing:
        read_rows(str(tmp_path / "n.parquet"))
    assert "torchbands[parquet]" in missing.value.hint


def test_a_heading_in_the_middle_is_left_out_and_told(tmp_path: Path) -> None:
    """Two files joined with `cat`: the second heading became a class of its own."""
    texts = "text,label\n" + "".join(f"a good one {i},{'pos' if i % 2 else 'neg'}\n" for i in range(20))
    (tmp_path / "cat.csv").write_text(texts + texts)
    rows = read_rows(str(tmp_path / "cat.csv"))
    assert rows.class_names == ("neg", "pos") and len(rows) == 40
    assert any("1 row that repeats the heading was left out" in note for note in rows.notes)
    (tmp_path / "numbers.csv").write_text("1,2,0\n" * 3 + "3,4,1\n" * 3)
    with suppress(InputError):
        assert len(read_rows(str(tmp_path / "numbers.csv"))) >= 5, "a first row of numbers is no heading"
