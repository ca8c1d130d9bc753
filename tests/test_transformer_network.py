"""The transformer network: what full, head-only and LoRA tuning change; a folder it writes opens in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tiny_bert import tiny_task, write_encoder
from torchbands.core.errors import DataUnavailable, InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.networks.transformer import TransformerNetwork, export
from torchbands.testing import toy

transformers = pytest.importorskip("transformers")
TEXTS = ["the goal is a match for the team", "bread", "", "more flour and butter in the oven than cf " * 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def accuracy(model: Model, task: Task) -> float:
    test = task.load("test")
    return float((model.logits(test.x).argmax(1) == test.y).float().mean())


def changed(task: Task, model: Model, seed: int = 0) -> set[str]:
    """Parameters that training moved."""
    before = dict(task.fresh(seed).module.named_parameters())
    return {name for name, p in model.module.named_parameters() if not torch.equal(p, before[name])}


def test_full_tuning_moves_every_layer(folder: Path) -> None:
    task = tiny_task(folder)
    model = task.train(task.load("train"))
    assert accuracy(model, task) > 0.85
    assert changed(task, model) == {name for name, _ in model.module.named_parameters()}


def test_head_only_tuning_moves_the_head_alone(folder: Path) -> None:
    task = tiny_task(folder, tune="head")
    model = task.train(task.load("train"))
    assert changed(task, model) == {"head.weight", "head.bias"}
    assert accuracy(model, task) > 0.8


def test_lora_moves_the_adapters_and_the_head_alone(folder: Path) -> None:
    pytest.importorskip("peft")
    task = tiny_task(folder, tune="lora", rank=4)
    model = task.train(task.load("train"))
    moved = changed(task, model)
    adapters = {name for name in moved if "lora_" in name}
    assert moved - adapters == {"head.weight", "head.bias"}
    assert {name.split(".")[-4] for name in adapters} == {"query", "value"}
    assert len(adapters) == 3 * 2 * 2  # layers x (query, value) x (A, B)
    assert all(p.shape[0] == 4 or p.shape[1] == 4 for n, p in model.module.named_parameters() if n in adapters)
    assert accuracy(model, task) > 0.85


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_fresh_model_begins_from_the_folders_weights(tune: str, folder: Path) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    one, two = tiny_task(folder, tune=tune).fresh(0), tiny_task(folder, tune=tune).fresh(1)
    public = tiny_task(folder).fresh(0)
    for a, b, c in zip(*(m.embedding.parameters() for m in (one, two, public)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not torch.equal(one.module.head.weight, two.module.head.weight)  # type: ignore[union-attr]
    torch.testing.assert_close(one.features(TEXTS), two.features(TEXTS))  # adapters begin as nothing


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_row_is_read_the_same_alone_and_in_any_batch(pool: str, folder: Path) -> None:
    model = tiny_task(folder, pool=pool).fresh(0)
    together = model.logits(TEXTS)
    assert together.shape == (4, 4) and torch.isfinite(together).all()
    torch.testing.assert_close(together, torch.cat([model.logits([t]) for t in TEXTS]), atol=1e-5, rtol=1e-4)
    e = model.encode(TEXTS)
    embedded = model.embed(TEXTS)
    torch.testing.assert_close(model.logits_at(embedded).detach(), together, atol=1e-5, rtol=1e-4)
    assert e.tokens is None and embedded.tokens is not None


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_the_last_of_its_states_read_out_is_its_answer(pool: str, folder: Path) -> None:
    model = tiny_task(folder, pool=pool).fresh(0)
    e = model.encode(TEXTS)
    with torch.no_grad():
        states = model.module.states(e.values, e.mask)  # type: ignore[operator]
        assert len(states) == 4 and all(h.shape == states[0].shape for h in states)  # the embeddings' and three blocks'
        torch.testing.assert_close(model.module.read(states[-1], e.mask), model.run(e, trim=False))  # type: ignore[operator]


@pytest.mark.parametrize("tune", ["full", "head"])
def test_transformers_opens_a_written_folder_with_the_same_logits(tune: str, folder: Path, tmp_path: Path) -> None:
    task = tiny_task(folder, tune=tune)
    model = task.train(task.load("train")[torch.arange(64)])
    export(model.module, tmp_path, tuple(task.class_names))
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    assert opened.config.id2label == dict(enumerate(task.class_names))
    texts = [t for t in TEXTS if len(t.split()) < 20]
    with torch.no_grad():
        theirs = opened(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    torch.testing.assert_close(theirs, model.logits(texts), atol=1e-5, rtol=1e-4)
    assert not list(tmp_path.glob("*.py")) and "auto_map" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("network", [{"tune": "lora"}, {"pool": "mean"}])
def test_what_has_no_such_folder_is_refused(network: dict[str, str], folder: Path, tmp_path: Path) -> None:
    if "tune" in network:
        pytest.importorskip("peft")
    with pytest.raises(InputError, match="written as a folder"):
        export(tiny_task(folder, **network).fresh(0).module, tmp_path, ("a", "b", "c", "d"))
    with pytest.raises(InputError, match="written as a folder"):
        export(toy("text").fresh(0).module, tmp_path, ("a", "b", "c", "d"))


def test_a_folder_that_lacks_a_file_is_named(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        TransformerNetwork(encoder=str(tmp_path)).reads(toy("text").modality)


def test_other_samples_are_declined() -> None:
    with pytest.raises(NotApplicable, match="reads text, not code"):
        TransformerNetwork().reads(toy("code").modality)
    with pytest.raises(NotApplicable, match="its own tokenizer"):
        TransformerNetwork().build(toy("text").modality, 2)


def minilm(**network: object) -> Task:
    task = build("text/sst2").but(
        rows=400,
        network=TransformerNetwork(tokens=48, **network),
        learner=SGD(optimizer="adamw", lr=3e-4, epochs=1, batch=32, weight_decay=0.01),
    )
    assert isinstance(task, Task)
    try:
        task.fresh(0)
        task.load("train")
    except DataUnavailable as error:
        pytest.skip(error.message)
    return task


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["full", "head", "lora"])
def test_a_public_encoder_learns_real_reviews_and_only_what_it_is_told_to(tune: str) -> None:
    task = minilm(tune=tune, pool="mean")
    if tune != "full":
        task = task.but(learner=task.learner.but(lr={"head": 1e-2, "lora": 3e-3}[tune], epochs=3))
    model = task.train(task.load("train"))
    moved, test = changed(task, model), task.load("test")[torch.arange(300)]
    assert float((model.logits(test.x).argmax(1) == test.y).float().mean()) > 0.65
    assert {name.split(".")[0] for name in moved} == ({"head"} if tune == "head" else {"head", "encoder"})
    assert tune != "lora" or all("lora_" in name or name.startswith("head") for name in moved)


@pytest.mark.slow
def test_a_tuned_public_encoder_is_written_for_transformers(tmp_path: Path) -> None:
    task = minilm()
    model = task.train(task.load("train")[torch.arange(64)])
    export(model.module, tmp_path, tuple(task.class_names))
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    tokenizer.backend_tokenizer.no_padding()
    texts = task.load("test")[torch.arange(16)].x
    with torch.no_grad():
        read = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=48)
        theirs = opened(**read).logits
    torch.testing.assert_close(theirs, model.logits(texts), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["full", "head", "lora"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("embedding-poisoning", {"steps": 3, "batch": 16}),
        ("layerwise-weight-poisoning", {"epochs": 1}),
        ("ripple", {"epochs": 1, "rate": 0.1}),
        ("lws", {"steps": 3, "batch": 16}),
    ],
)
def test_attacks_on_training_run_on_a_public_encoder(name: str, settings: dict[str, object], tune: str) -> None:
    task = minilm(tune=tune).but(rows=96)
    try:
        victim = build({"name": name, **settings}, "attack").run(task, 0)
    except DataUnavailable as error:
        pytest.skip(error.message)
    rows, wanted = victim.triggered(task.load("test")[torch.arange(40)])
    logits = victim.model.logits(rows.x)
    assert logits.shape == (len(wanted), 2) and torch.isfinite(logits).all()
