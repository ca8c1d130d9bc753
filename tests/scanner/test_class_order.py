"""The classes of rows are the model's by name, by number or as the user says; what is guessed or left out is told."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from torchbands.cli.suspect_flags import open_with
from torchbands.core.data import take
from torchbands.core.errors import InputError
from torchbands.modalities.image import Image
from torchbands.networks import SmallCNNNetwork
from torchbands.scanner.class_order import contradiction, matched

PETS = ("dog", "bird", "ant", "cat")


@pytest.mark.parametrize(
    ("rows", "model", "classes", "order", "said"),
    [
        (("ant", "bird", "cat", "dog"), PETS, 4, (2, 1, 3, 0), "3 of 4 classes of the rows have another number"),
        (("ant", "cat", "dog"), PETS, 4, (2, 3, 0), "1 of the model's 4 classes have no rows: 'bird'"),
        (("ant", "bird", "cat", "dig", "dog"), PETS, 4, (2, 1, 3, None, 0), "left out: 'dig'; dig (is it 'dog'?)"),
        (("ANT", "Bird", "cat", "dog"), PETS, 4, (2, 1, 3, 0), "by name"),
        (("Sea_gull", "crane"), ("crane, bird", "sea gull, Larus", "crane machine"), 3, (1, 0), "by name"),
        (("0", "1", "3"), None, 4, (0, 1, 3), "have no rows: '2'"),
        (("0", "1", "3"), PETS, 4, (0, 1, 3), "have no rows: 'ant'"),
        (("1", "2", "4"), None, 4, (0, 1, 3), "have no rows: '2'"),
        (("3", "7"), None, 2, (0, 1), "taken in their order (0 is '3', 1 is '7')"),
        (("3", "7"), ("7", "3"), 2, (1, 0), "by name"),
        (("3", "7"), ("7", "three, 3"), 2, (1, 0), "by name"),
        (tuple(map(str, range(12))), ("LABEL_0", "LABEL_1"), 12, tuple(range(12)), ""),
        (("0", "1", "10", "2"), None, 11, (0, 1, 2, 3), "have no rows"),  # folders, numbered by their names as text
        (("0", "1", "2", "10"), None, 11, (0, 1, 2, 10), "have no rows"),  # labels, numbered as numbers
        (("a", "b"), None, 2, (0, 1), "--class-names"),
        (("a", "b"), ("LABEL_0", "LABEL_1"), 2, (0, 1), "--class-names"),
    ],
)
def test_classes_are_matched(
    rows: tuple[str, ...], model: tuple[str, ...] | None, classes: int, order: tuple[int, ...], said: str
) -> None:
    found = matched(rows, model, classes)
    assert found.order == order and said in "; ".join(found.notes)


@pytest.mark.parametrize(
    ("rows", "model", "classes", "said"),
    [
        (("w", "x", "y", "z"), PETS, 4, "none has the same name"),
        (("ant", "x", "y", "z"), PETS, 4, "3 of the rows' 4 classes are none of the model's"),
        (("ant", "Ant", "dog"), PETS, 4, "are both the model's class 'ant'"),
        (("a", "b", "c"), None, 4, "which are missing cannot be told"),
        (("a", "b", "c"), None, 2, "which are too many cannot be told"),
        (("1", "2", "3"), None, 4, "from 0, or from 1"),
        (("0", "7"), None, 4, "do not fit"),
        (("x", "crane"), ("crane", "x", "crane"), 3, "none of the model's: 'crane'"),
    ],
)
def test_two_readings_are_refused_and_what_to_type_is_said(
    rows: tuple[str, ...], model: tuple[str, ...] | None, classes: int, said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        matched(rows, model, classes)
    assert "--labels" in error.value.hint


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"w": "cat", "x": 0}))
    for said in ("w=cat,x=0", '{"w": "cat", "x": 0}', str(tmp_path / "l.json")):
        assert matched(("w", "x", "y"), PETS, 4, said).order == (3, 0, None)
    assert matched(("w", "x", "y", "z"), PETS, 4, "sorted").order == (0, 1, 2, 3)
    assert matched(("w", "x", "y"), PETS, 4, "w=0,x=0,y=1").order == (0, 0, 1)  # two of the rows' may be one
    for wrong in ("w=9,x=0", "v=0,x=1", "w", "{", "none.json", "w=cow,x=0", "w=1", "sorted"):
        with pytest.raises(InputError):
            matched(("w", "x", "y"), PETS, 4, wrong)


def test_references_that_number_a_class_otherwise() -> None:
    assert contradiction(("ant", "cat"), ("ant", "cat")) == "" == contradiction(("a", "b"), None)
    assert contradiction(("0", "1"), ("ant", "cat")) == ""
    assert "'ant' has number 0 in the references and 1" in contradiction(("ant", "cat"), ("cat", "ant"))


def given(**said: object) -> argparse.Namespace:
    flags = ("arch", "classes", "class_names", "labels", "output", "mean", "std", "size", "channels", "settings")
    known = dict.fromkeys((*flags, "text_column", "label_column", "time_limit", "memory_limit"))
    return argparse.Namespace(**known | {"allow_pickle": False} | said)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of three of four classes, and a network that does not name its own."""
    for k, name in enumerate(("ant", "cat", "dog")):
        (tmp_path / "rows" / name).mkdir(parents=True)
        for i in range(4):
            Pillow.fromarray(np.full((8, 8), 10 * k + i, np.uint8)).save(tmp_path / "rows" / name / f"{i}.png")
    save_file(SmallCNNNetwork(widths=(4,)).build(Image(channels=1, size=8), 4).state_dict(), tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_get_the_models_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = json.dumps(SmallCNNNetwork(widths=(4,)).spec())
    with pytest.raises(InputError, match="cannot be told") as error:
        open_with(given(arch=arch), "m.safetensors", "rows")
    assert "--class-names" in error.value.hint
    opened = open_with(given(arch=arch, class_names="dog, bird, ant, cat"), "m.safetensors", "rows")
    assert opened.rows is not None and opened.class_names == opened.rows.class_names == PETS
    assert opened.rows.data.y.tolist() == [2] * 4 + [3] * 4 + [0] * 4
    assert opened.suspect.facts["labels"] == [
        "3 of 3 classes of the rows have another number in the model: matched by name",
        "1 of the model's 4 classes have no rows: 'bird'",
    ]
    assert "matched by name" in capsys.readouterr().err
    more = {"arch": arch, "labels": "cat=1,dog=2"}
    some = open_with(given(**more), "m.safetensors", "rows").rows
    assert some is not None and some.data.y.tolist() == [1] * 4 + [2] * 4 and some.ids[0] == "cat/0.png"
    assert (take(some.data.x, torch.tensor([0, 4])) * 255).round().amax((1, 2, 3)).tolist() == [10, 20]
    with pytest.raises(InputError, match="no class for 'ant'"):
        open_with(given(**more), "m.safetensors", "rows", whole=True)


def test_references_of_another_order_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = SimpleNamespace(
        modality=Image(channels=1, size=8), classes=4, class_names=tuple(sorted(PETS)), unsummed=lambda: 0,
        card={"architecture": SmallCNNNetwork(widths=(4,)).spec()}, folder=folder,
    )  # fmt: skip
    monkeypatch.setattr("torchbands.scanner.references.ReferenceSet.load", lambda at: refs)
    assert open_with(given(), "m.safetensors", None, ["refs"]).class_names == tuple(sorted(PETS))
    with pytest.raises(InputError, match="has number 0 in the references and 2 in the model") as error:
        open_with(given(class_names="dog,bird,ant,cat"), "m.safetensors", None, ["refs"])
    assert "--like" in error.value.hint
