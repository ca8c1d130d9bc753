"""References: trained once, kept whole, resumed, refused when they do not fit, the same rows for every model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from torchbands.core.data import Data
from torchbands.core.digest import digest
from torchbands.core.errors import BandsError, InputError
from torchbands.core.registry import build
from torchbands.learners.sgd import SGD
from torchbands.scanner.reference_files import CARD, MODELS, WEIGHTS
from torchbands.scanner.reference_training import references_of, train_references
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan
from torchbands.scanner.view_cache import SEEN
from torchbands.scanner.views import PROFILES, views_of
from torchbands.testing.toys import toy
from torchbands.zoo import artifact
from torchbands.zoo.files import sha256


@pytest.fixture(scope="module")
def task():
    return toy("image", rows=256)


@pytest.fixture(scope="module")
def made(task, tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    return references_of(task, tmp_path_factory.mktemp("refs") / "refs", n=3, profile="fast")


def test_every_reference_is_whole_and_its_own(made: ReferenceSet) -> None:
    members = made.members()
    assert len(members) == len(made) == 3
    weights = {(m / WEIGHTS).read_bytes() for m in members}
    assert len(weights) == 3
    for view in views_of("fast", made.model(members[0], lambda: toy("image").network.build(made.modality, 4))):
        numbers = made.numbers(view)
        assert numbers is not None and len(numbers) == 3


def test_the_same_call_goes_on_where_it_stopped(made: ReferenceSet, task) -> None:
    member = made.members()[1]
    before = (made.members()[0] / WEIGHTS).stat().st_mtime_ns
    wanted = (member / WEIGHTS).read_bytes()
    for file in member.iterdir():
        file.unlink()
    member.rmdir()
    again = references_of(task, made.folder, n=3, profile="fast")
    assert len(again) == 3 and (again.members()[1] / WEIGHTS).read_bytes() == wanted
    assert (again.members()[0] / WEIGHTS).stat().st_mtime_ns == before


def test_a_killed_training_leaves_no_half_reference(made: ReferenceSet) -> None:
    half = made.folder / MODELS / ".0009.xyz.tmp"
    half.mkdir(exist_ok=True)
    (half / WEIGHTS).write_bytes(b"half")
    assert len(ReferenceSet.load(made.folder)) == 3
    shutil.copy(made.members()[0] / CARD, half / CARD)  # killed after its card and before it took its name
    assert len(ReferenceSet.load(made.folder)) == 3 and not made.members()[0].name.startswith(".")


def test_a_training_that_ends_between_weights_and_card_is_done_again(
    task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "sha256", _killed)
        with pytest.raises(KeyboardInterrupt):
            references_of(task, tmp_path / "refs", n=1, profile="fast")
    assert not list((tmp_path / "refs" / MODELS).iterdir())
    assert len(references_of(task, tmp_path / "refs", n=1, profile="fast")) == 1


def _killed(path: Path) -> str:
    if path.name == WEIGHTS:
        raise KeyboardInterrupt
    return sha256(path)


def test_other_data_under_the_same_name_are_refused(task, tmp_path: Path) -> None:
    """Or references would train on rows that the views look with."""
    data = task.load("train")
    other = Data(data.x.flip(0), data.y)
    folder, names, told = tmp_path / "refs", task.class_names, {"n": 1, "profile": "fast", "label": "mine"}
    train_references(folder, task.recipe, data, names, **told)
    train_references(folder, task.recipe, data, names, **told)
    with pytest.raises(InputError, match="training_sha256"):
        train_references(folder, task.recipe, other, names, **told)
    with pytest.raises(InputError, match="views_sha256"):
        train_references(folder, task.recipe, data, names, clean=task.load("clean"), **told)


def test_recipes_that_are_no_pool_are_refused(task, tmp_path: Path) -> None:
    other = task.recipe.but(network=task.network.but(widths=(4, 8)))
    data, folder = task.load("train"), tmp_path / "refs"
    with pytest.raises(InputError, match="differ in their learners alone"):
        train_references(folder, [task.recipe, other], data, task.class_names, n=2, profile="fast")
    with pytest.raises(InputError, match="for 4 classes, the rows have 3"):
        train_references(folder, task.recipe, data, task.class_names[:3], n=2, profile="fast")
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["image", "text", "code"])
def test_a_digest_tells_samples_labels_and_order_apart(kind: str) -> None:
    data = toy(kind, rows=32).load("train")
    first, rows = digest(data), torch.arange(32)
    assert digest(data[rows]) == first and digest(data, size=5) == digest(data[rows], size=5)
    changed = data.y.clone()
    changed[3] = (changed[3] + 1) % 4
    others = [data[rows.flip(0)], data[:31], Data(data.x, changed), Data(data[rows.roll(4)].x, data.y)]
    assert len({first, *map(digest, others)}) == 5


def test_another_recipe_in_the_same_folder_is_refused(made: ReferenceSet, task) -> None:
    with pytest.raises(InputError, match="recipes"):
        references_of(task, made.folder, n=3, learners=(SGD(epochs=1),), profile="fast")


def test_views_that_came_later_are_caught_up(made: ReferenceSet, task) -> None:
    full = [v for v in PROFILES["full"] if not v.black_box]
    assert not made.has(full)
    made.complete(lambda: task.network.build(task.modality, task.classes), full)
    assert made.has(full)


def test_recipes_are_taken_in_turn(tmp_path: Path, task) -> None:
    pool = references_of(task, tmp_path / "pool", n=2, learners=(SGD(epochs=1), SGD(epochs=2)), profile="fast")
    assert [c["epochs"] for c in (r["params"] for r in pool.summary()["recipes"])] == [1, 2]
    import json

    assert [json.loads((m / CARD).read_text())["recipe"] for m in pool.members()] == [0, 1]


@pytest.mark.parametrize("kind", ["text", "tabular", "code"])
def test_rows_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    task = toy(kind, classes=2, rows=128)
    made = references_of(task, tmp_path / kind, n=1, profile="fast")
    rows = task.load("clean").sample(1000, "views' rows", task.name, balanced=True)
    again = ReferenceSet.load(tmp_path / kind).clean
    same = torch.equal(again.x, rows.x) if isinstance(rows.x, torch.Tensor) else list(again.x) == list(rows.x)
    assert same and torch.equal(again.y, rows.y) and len(made) == 1


def test_damage_is_named(made: ReferenceSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no reference models"):
        ReferenceSet.load(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(BandsError, match="damaged"):
        ReferenceSet.load(tmp_path)
    (tmp_path / CARD).write_text((made.folder / CARD).read_text())
    with pytest.raises(BandsError, match=r"rows\.safetensors is missing"):
        ReferenceSet.load(tmp_path)
    (made.members()[0] / SEEN).read_bytes()


@pytest.mark.slow
def test_references_and_fresh_models_cannot_be_told_apart(tmp_path: Path) -> None:
    """They are made by two ways through the code, and p-values hold only if these train and look alike."""
    task, n = toy("tabular", classes=2), 60
    refs = references_of(task, tmp_path / "refs", n=n, profile="fast")
    fresh = [scan(build("clean", "attack").run(task, 9000 + i).model, refs=refs, profile="fast") for i in range(n)]
    for answer in ("trigger", "recipe"):
        p = torch.tensor([getattr(outcome, answer).p for outcome in fresh])
        theirs = torch.rand(4000, n, generator=torch.Generator().manual_seed(0)).sort(1).values
        drawn = torch.rand(4000, n, generator=torch.Generator().manual_seed(1))
        usual = ((1 + n - torch.searchsorted(theirs, drawn)) / (n + 1)).mean(1)
        share = float(((usual - 0.5).abs() >= (p.mean() - 0.5).abs()).float().mean())
        assert share > 0.002, (answer, p.mean())
        assert float((p <= 0.05).float().mean()) <= 0.2
