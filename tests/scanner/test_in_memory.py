"""Rows of any kind: what a program holds is read as what it is, or refused with what to type."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import torchbands as tb
from torchbands import Data, Model, Rows, rows_of
from torchbands.core.data import Pixels, whole
from torchbands.core.errors import InputError
from torchbands.modalities.code import Code
from torchbands.modalities.image import Image
from torchbands.modalities.tabular import Tabular
from torchbands.modalities.text import Text
from torchbands.networks.layers import Normalize
from torchbands.scanner import in_memory_parts
from torchbands.scanner.in_memory import samples_of

N, SIZE = 24, 8
X, Y = torch.rand(N, 3, SIZE, SIZE), torch.arange(N) % 3
BYTES = (X * 255).round().byte()
TABLE = torch.arange(N * 4).reshape(N, 4) / 2
TEXTS = [f"a {'good' if i % 3 else 'bad'} film number {i}" for i in range(N)]
NAMES = ["no", "maybe", "yes"]


def picture(row: Tensor) -> Any:
    return Pillow.fromarray(row.permute(1, 2, 0).numpy())


def encoded(row: Tensor) -> bytes:
    out = io.BytesIO()
    picture(row).save(out, "PNG")
    return out.getvalue()


class Folder(Dataset[Any]):
    """As torchvision's data sets are: PIL images, a transform, names."""

    classes = ("cat", "dog", "owl")

    def __init__(self, transform: Any = None, labels: Tensor = Y) -> None:
        self.transform, self.labels = transform, labels

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Any, int]:
        made = picture(BYTES[i])
        return (self.transform(made) if self.transform else made), int(self.labels[i])


class Stream(IterableDataset[Any]):
    def __init__(self, n: int = N) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[i % N], int(Y[i % N])) for i in range(self.n)])


class HuggingFace:
    """As `datasets.Dataset` is: rows are mappings, features name the classes."""

    features = {"image": object(), "label": SimpleNamespace(names=["cat", "dog", "owl"])}  # noqa: RUF012

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= N:
            raise IndexError(i)
        return {"image": picture(BYTES[i]), "label": int(Y[i])}


IMAGES: dict[str, Any] = {
    "tensors": (X, Y),
    "numpy": (X.numpy(), Y.numpy()),
    "double": (X.double(), Y.int()),
    "half": (X.half(), Y),
    "bytes (N, H, W, C)": (BYTES.permute(0, 2, 3, 1).numpy(), Y.numpy().astype(np.uint16)),
    "big-endian": (X.numpy().astype(">f4"), Y),
    "lists": (X.tolist(), Y.tolist()),
    "list of arrays": (list(X.numpy()), list(Y)),
    "list of tensors": (list(X), list(Y)),
    "pairs": list(zip(X, Y.tolist())),
    "PIL": ([picture(row) for row in BYTES], Y),
    "encoded": ([encoded(row) for row in BYTES], Y),
    "Hugging Face, not decoded": ([{"bytes": encoded(row), "path": None} for row in BYTES], Y),
    "mapping": {"image": X, "label": Y},
    "records": [{"img": x, "label": int(y)} for x, y in zip(X, Y)],
    "loader": DataLoader(TensorDataset(X, Y), batch_size=7),
    "loader of mappings": DataLoader([{"pixel_values": x, "labels": y} for x, y in zip(X, Y)], batch_size=7),
    "loader of a stream": DataLoader(Stream(), batch_size=5),
    "data set": TensorDataset(X, Y),
    "subset": Subset(TensorDataset(X, Y), range(N)),
    "stream": Stream(),
    "generator": ((x, y) for x, y in zip(X, Y)),
    "folder": Folder(),
    "datasets": HuggingFace(),
    "Data": Data(X, Y),
    "Pixels": (Pixels(BYTES), Y),
    "gradients": (X.clone().requires_grad_(), Y),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_however_held_are_the_same_rows(kind: str) -> None:
    rows = rows_of(IMAGES[kind])
    assert isinstance(rows, Rows) and rows.modality == Image(channels=3, size=SIZE) and rows.classes == 3
    x = whole(rows.data.x)
    assert x.dtype == torch.float32 and not x.requires_grad and (x - X).abs().max() < 0.003
    assert rows.data.y.tolist() == Y.tolist() and len(rows.ids) == N
    names = ("cat", "dog", "owl") if kind in ("folder", "datasets") else ("0", "1", "2")
    assert rows.class_names == names


@pytest.mark.parametrize(
    ("given", "modality"),
    [
        ((TEXTS, [NAMES[y] for y in Y]), Text),
        ((np.array(TEXTS), Y), Text),
        ((pd.Series(TEXTS), pd.Series(Y.numpy())), Text),
        ({"text": TEXTS, "label": Y.tolist()}, Text),
        (pd.DataFrame({"review": TEXTS, "label": Y.numpy(), "stars": range(N)}), Text),
        (DataLoader(list(zip(TEXTS, Y)), batch_size=5), Text),
        (([t.encode() for t in TEXTS], Y), Code),
        ((TABLE, Y), Tabular),
        ((TABLE.int().numpy(), Y), Tabular),
        ((TABLE.tolist(), Y.tolist()), Tabular),
        (pd.DataFrame(TABLE.numpy(), columns=list("abcd")).assign(target=Y.numpy()), Tabular),
        ((pd.DataFrame(TABLE.numpy(), columns=list("abcd")), pd.Series(Y.numpy())), Tabular),
        ([{"a": float(i), "b": 1, "class": NAMES[y]} for i, y in enumerate(Y)], Tabular),
    ],
)
def test_texts_code_and_tables(given: Any, modality: type) -> None:
    rows = rows_of(given)
    assert isinstance(rows.modality, modality) and len(rows) == N and rows.classes == 3
    rows.modality.check(whole(rows.data.x))


def test_labels_may_be_given_beside_anything() -> None:
    frame = pd.DataFrame({"a": TABLE[:, 0], "b": TABLE[:, 1]}, index=range(5, N + 5))
    rows = rows_of(frame, Y)
    assert rows.ids[0] == "5" and [f.title for f in rows.modality.fields] == ["a", "b"]  # type: ignore[attr-defined]
    for given in (X, X.numpy(), [picture(row) for row in BYTES], {"image": X}, TensorDataset(X)):
        if isinstance(given, (dict, TensorDataset)):
            continue
        assert rows_of(given, Y).data.y.tolist() == Y.tolist()


def test_what_was_assumed_is_told() -> None:
    frame = pd.DataFrame(
        {"Unnamed: 0": range(N), "a": TABLE[:, 0], "label": [NAMES[y] for y in Y]}, index=range(5, N + 5)
    )
    rows = rows_of(frame)
    said = "; ".join(rows.notes)
    assert "counts the rows: it is left out" in said and "labels are numbered in sorted order: maybe 0, no 1" in said
    assert rows.ids[0] == "5" and isinstance(rows.modality, Tabular) and len(rows.modality.fields) == 1
    said = "; ".join(rows_of(pd.DataFrame({"text": TEXTS, "label": Y.numpy(), "stars": range(N)})).notes)
    assert "samples are column 'text'; not read: stars" in said
    said = "; ".join(rows_of(DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True, drop_last=True)).notes)
    assert "the loader shuffles" in said and "gave 21 rows of its data set's 24" in said
    assert "no rows are labelled 0" in "; ".join(rows_of((X, Y + 1)).notes)
    grey = [picture(BYTES[0]).convert("RGBA"), *(picture(row) for row in BYTES[1:])]
    assert "1 of 24 images are read as RGB (they are RGB, RGBA)" in rows_of((grey, Y)).notes[0]
    flip = type("RandomFlip", (), {"__call__": lambda self, x: x})()
    assert "changes its samples at random (RandomFlip)" in rows_of(Folder(flip)).notes[0]
    ordered = rows_of((X, [NAMES[y] for y in Y]), class_names=NAMES)
    assert ordered.class_names == tuple(NAMES) and ordered.data.y.tolist() == Y.tolist()


def foreign(module: str, name: str) -> Any:
    return type(name, (), {"__module__": module})()


@pytest.mark.parametrize(
    ("given", "said", "todo"),
    [
        (foreign("polars.dataframe.frame", "DataFrame"), "polars.DataFrame are not read", "frame.to_pandas()"),
        ((foreign("jaxlib._jax", "ArrayImpl"), Y), "jaxlib.ArrayImpl is not read", "numpy.asarray(x)"),
        ((foreign("scipy.sparse", "csr_matrix"), Y), "scipy.csr_matrix is not read", "toarray()"),
        (foreign("tensorflow.data", "Dataset"), "tensorflow.Dataset are not read", "as_numpy"),
        (None, "rows are not NoneType", "give a DataLoader"),
        (7, "rows are not int", "give a DataLoader"),
        (X, "samples without labels", "give (samples, labels)"),
        (DataLoader(TensorDataset(X), batch_size=5), "samples without labels", "give (samples, labels)"),
        ((X, Y[:-1]), "24 samples but 23 labels", ""),
        ((X, Y.float() + 0.5), "labels are whole numbers or names, got 0.5", ""),
        ((X, torch.eye(3)[Y]), "labels are (N,), got shape (24, 3)", "argmax(1)"),
        ((X, Y - 1), "labels are 0..65535, got -1..1", "number the classes from 0"),
        ((X, [None, *NAMES * 7, "no", "no"]), "row 0 has no label", "drop such rows"),
        ((X, ["one"] * N), "one class only", ""),
        ((X * 255, Y), "images are in [0, 1]", "divide pixels by 255"),
        (((X * 255).long(), Y), "images are uint8, or floats in [0, 1], got torch.int64", "astype('uint8')"),
        ((X[..., :6], Y), "images are squares, got 8 x 6", "pad or scale"),
        ((torch.rand(N, 2, 3, 4, 5), Y), "images of 3 or 4 dimensions", ""),
        ((TABLE.where(TABLE != 4, torch.nan), Y), "not finite, first in row 2", ""),
        (([X[0], *X[1:, :, :4, :4]], Y), "got (3, 8, 8) in row 0 and (3, 4, 4) in row 1", "Resize"),
        (([TEXTS[0], 5], [0, 1]), "samples of several kinds: str in row 0, int in row 1", "mend the odd ones"),
        (([object(), object()], [0, 1]), "samples are object", ""),
        ([(X[0], 0, 5), (X[1], 1, 6)], "a row has 3 parts, expected a sample and a label", "for x, y, *_ in"),
        (DataLoader(TensorDataset(X, Y, Y)), "3 parts, expected samples and labels", "for x, y, *_ in"),
        ({"input_ids": [[1]], "attention_mask": [[1]], "label": [0]}, "token ids", "give the texts"),
        (pd.DataFrame({"a": [1, 2]}), "no column of labels", "say which: label=..., of a"),
        (pd.DataFrame({"a": ["u", "v"], "b": [1, 2], "y": [0, 1]}), "'a' is no column of numbers", "text='COLUMN'"),
        (pd.DataFrame({"a": [1, None], "b": [1, 2], "y": [0, 1]}), "'a' has no finite number in row 1", "drop or fill"),
        (pd.DataFrame([[1, 2, 0]], columns=["a", "a", "y"]), "two columns 'a'", "rename"),
        ([{"a": 1, "y": 0}, {"y": 1}], "'a' is not in both row 0 and row 1", ""),
        (([encoded(BYTES[0])[:60], encoded(BYTES[1])], [0, 1]), "row 0 is an image that cannot be read", ""),
        (([], []), "holds no rows", ""),
        ({"train": HuggingFace(), "test": HuggingFace()}, "several parts, train, test", "rows['train']"),
        ({"train": Folder()}, "several parts, train", "rows['train']"),
    ],
)  # fmt: skip
def test_what_is_not_read_says_what_to_type(given: Any, said: str, todo: str) -> None:
    with pytest.raises(InputError) as raised:
        rows_of(given)
    assert said in raised.value.message and todo in str(raised.value)


def test_a_loader_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory_parts, "MOST_ROWS", 100)
    for given in (Stream(1000), DataLoader(Stream(1000), batch_size=9)):
        with pytest.raises(InputError, match="more than 100 rows"):
            rows_of(given)


class Steps:
    """As `torchvision.transforms.Compose([ToTensor(), Normalize(mean, std)])` is."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        normalise = type("Normalize", (), {"mean": mean, "std": std})()
        self.transforms = [normalise]
        self.layer = Normalize(3, mean, std)

    def __call__(self, made: Any) -> Tensor:
        return self.layer(torch.from_numpy(np.asarray(made).copy()).permute(2, 0, 1)[None] / 255)[0]


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))
    return nn.Sequential(*layers).eval()


def test_normalised_images_are_brought_back_and_the_network_gets_them_as_it_did() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    loader = DataLoader(Folder(Steps(mean, std)), batch_size=6)
    with pytest.raises(InputError) as raised:
        rows_of(loader)
    assert f"mean={mean}, std={std}" in raised.value.hint
    assert (whole(rows_of(loader, mean=mean, std=std).data.x) - BYTES / 255).abs().max() < 1e-5
    with pytest.raises(InputError, match="with this mean and std undone"):
        rows_of(loader, mean=(5, 5, 5), std=std)
    raw = nn.Sequential(Normalize(3, mean, std), network())
    known = raw(BYTES / 255).argmax(1)  # a network that knows no row is not judged
    loader = DataLoader(Folder(Steps(mean, std), known), batch_size=6)
    one = tb.scan(network(), loader, mean=mean, std=std, profile="fast")
    two = tb.scan(raw, (BYTES, known), profile="fast")
    scores = [[line.score for line in outcome.ledger] for outcome in (one, two)]
    assert len(scores[0]) > 3 and np.allclose(*[[s or 0.0 for s in each] for each in scores], atol=1e-3)
    assert one.calibration == two.calibration


def test_scan_takes_what_people_hold_and_their_names() -> None:
    known = network()(BYTES / 255).argmax(1)
    expected = tb.scan(network(), (BYTES, known), profile="fast")
    assert len(expected.ledger) > 3 and "bytes" in str(expected.subject.facts["notes"])
    named = Folder(labels=known)
    for given in (DataLoader(named, batch_size=5, collate_fn=list_of), named, (BYTES.numpy(), known.numpy())):
        outcome = tb.scan(network(), given, profile="fast")
        assert [line.score for line in outcome.ledger] == [line.score for line in expected.ledger]
    wrapped = tb.scan(Model(network(), Image(channels=3, size=SIZE), 3), named, profile="fast")
    assert wrapped.verdict == "inconclusive" and wrapped.ledger[0].target in (*Folder.classes, None)
    linear = nn.Linear(4, 3)
    frame = pd.DataFrame(TABLE.numpy() / 48).assign(label=linear(TABLE / 48).argmax(1).numpy())
    table = tb.scan(linear, frame, profile="fast")
    assert table.verdict == "inconclusive" and any(line.score is not None for line in table.ledger)
    with pytest.raises(InputError, match="how a network takes text cannot be told"):
        tb.scan(network(), (TEXTS, Y))


def list_of(batch: list[Any]) -> list[Any]:
    return [[row[0] for row in batch], [row[1] for row in batch]]


def test_a_guard_takes_what_people_hold() -> None:
    torch.manual_seed(1)
    x, y = torch.rand(60, 3, SIZE, SIZE), torch.arange(60) % 3
    guards = [
        tb.Guard(network(), detector="scale-up", alpha=0.1).fit(rows)
        for rows in ((x, y), DataLoader(TensorDataset(x, y), batch_size=16), Data(x, y), (x.numpy(), y.tolist()))
    ]
    expected = guards[0](BYTES / 255).p
    for guard in guards[1:]:
        assert torch.equal(guard(BYTES / 255).p, expected)
    guard = guards[0]
    pictures = [picture(row) for row in BYTES]
    for given in (
        BYTES,
        BYTES.numpy(),
        BYTES.permute(0, 2, 3, 1).numpy(),
        pictures,
        Folder(),
        TensorDataset(BYTES / 255),
    ):
        assert torch.allclose(guard(given).p, expected), type(given)
    assert torch.equal(guard(DataLoader(Folder(), batch_size=4, collate_fn=list_of)).p, expected)
    assert len(guard([])) == 0 and len(guard(torch.zeros(0, 3, SIZE, SIZE))) == 0
    for wrong, said in (("a text", "one sample was given"), (TEXTS, "a tensor"), (X[:, :1], "images are")):
        with pytest.raises(InputError, match=said):
            guard(wrong)


def test_samples_of_a_kind_that_is_known_are_taken_as_they_are() -> None:
    text = Text(vocabulary=("a", "b"), length=4)
    assert samples_of(TEXTS, text) is TEXTS and samples_of(np.array(TEXTS), text) == TEXTS
    assert samples_of(pd.Series(TEXTS), text) == TEXTS and samples_of([b"\x90"], Code()) == [b"\x90"]
    assert samples_of(X, Image(channels=3, size=SIZE)) is X


def test_scan_data_and_references_take_what_people_hold(tmp_path: Path) -> None:
    few = tb.scan_data(pd.DataFrame(TABLE.numpy()).assign(label=Y.numpy()))
    assert few.verdict == "inconclusive" and few.subject.path == "frame"
    from torchbands.core.recipe import Recipe
    from torchbands.scanner.repair_model import repair_model

    made = tb.build("small-cnn(widths=(4,))")
    learner = tb.build("sgd(epochs=1)")
    recipe = Recipe(made, learner, Image(channels=3, size=SIZE), 3)  # type: ignore[arg-type]
    loader = DataLoader(TensorDataset(torch.rand(60, 3, SIZE, SIZE), torch.arange(60) % 3), batch_size=20)
    refs = tb.train_references(tmp_path / "refs", recipe, loader, n=1, profile="fast")
    assert refs.class_names == ("0", "1", "2") and len(refs.clean) == 12
    with pytest.raises(InputError, match="rows are not NoneType"):
        repair_model(Model(network(), Image(channels=3, size=SIZE), 3), None, lambda m: few, trigger=None, target=0)
