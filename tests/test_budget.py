"""Rows at once follow what a row weighs: measured in bytes, halved where memory runs out, without changing a result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.budget import MOST, Live, budget, in_parts, room_of, row_bytes
from torchbands.core.data import Data
from torchbands.core.defense import ModelDetector
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.defenses.models.dbs import DBS
from torchbands.defenses.models.debackdoor import DeBackdoor
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.defenses.models.universal_perturbation import UniversalPerturbation
from torchbands.modalities.image import Image
from torchbands.testing.toys import toy

WIDTH, DEPTH = 512, 8


class Deep(nn.Module):
    """Layers of one width, so that the bytes of a row can be told by hand."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(16, WIDTH), nn.Linear(WIDTH, 4)
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(depth)])
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.layers(self.norm(self.drop(self.stem(x.flatten(1))))))
        return made


def deep(depth: int = DEPTH) -> Model:
    torch.manual_seed(0)
    return Model(Deep(depth), Image(channels=1, size=4), 4)


def test_a_row_weighs_what_its_activations_do() -> None:
    """Forward: a layer's input and output at once. Back: what each layer keeps, so it grows with depth."""
    shallow, forward, back = deep(1), row_bytes(deep(), gradients=False), row_bytes(deep(), gradients=True)
    layer = WIDTH * 4
    assert 2 * layer <= forward <= 5 * layer
    assert DEPTH * layer <= back <= 2 * DEPTH * layer + 6 * layer
    assert abs(row_bytes(shallow, gradients=False) - forward) <= layer
    assert row_bytes(shallow, gradients=True) < back - (DEPTH - 2) * layer


def test_views_and_weights_are_not_counted() -> None:
    weight = torch.zeros(1000)
    with Live([weight]) as live:
        kept = weight.view(10, 100).T + 1
        (weight * 2).sum()
        del kept
    assert live.peak in range(8000, 8100) and live.now < 100


def test_measuring_leaves_no_trace() -> None:
    model, calls = deep(), []
    model.module.train()
    model.module.register_forward_hook(lambda *_: calls.append(1))
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    drawn = torch.get_rng_state()
    assert 1 <= model.gradient_chunk <= model.chunk
    assert not calls and model.passes.forward == 0 and all(layer.training for layer in model.module.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_the_budget_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep()
    assert model.chunk == MOST["cpu"]
    for said, size in {"1GB": 1 << 30, "1.5 MiB": 3 << 19, "2048": 2048, "64k": 1 << 16}.items():
        monkeypatch.setenv("TORCHBANDS_MEMORY", said)
        assert budget(torch.device("cpu")) == size
    assert model.chunk == (1 << 16) // row_bytes(model, gradients=False)
    assert 1 <= model.gradient_chunk < model.chunk
    monkeypatch.setenv("TORCHBANDS_MEMORY", "1")
    assert model.chunk == 1
    for said in ("plenty", "0", "-1"):
        monkeypatch.setenv("TORCHBANDS_MEMORY", said)
        with pytest.raises(InputError, match="TORCHBANDS_MEMORY"):
            _ = model.chunk


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_what_memory_refuses_is_halved_and_tried_again(error: Exception) -> None:
    model, rng, tried = deep(), torch.Generator().manual_seed(0), []

    def work(part: Tensor) -> Tensor:
        drawn = torch.rand(len(part), generator=rng)
        tried.append(len(part))
        if len(part) > 60:
            raise error
        return drawn

    drawn = torch.cat(in_parts(model, 400, work, rng=rng))
    assert tried[:4] == [256, 128, 64, 32] and set(tried[4:]) <= {32, 400 % 32}
    assert torch.equal(drawn, torch.rand(400, generator=torch.Generator().manual_seed(0)))
    assert model.chunk == 32 and model.at_precision("float32").chunk == 32 and model.gradient_chunk > 32


def test_other_errors_are_raised_and_so_is_one_row_that_does_not_fit() -> None:
    def broken(_: Tensor) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    def large(_: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    for work, found in ((broken, "multiplied"), (large, "out of memory")):
        model = deep()
        with pytest.raises(RuntimeError, match=found):
            in_parts(model, 10, work)
    assert room_of(model.module).fits[False] == 1


def test_outputs_do_not_depend_on_the_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("image", "text"):
        task = toy(name)
        model = task.fresh(0)
        rows = task.load("test")[:70]
        together = model.outputs(rows.x)
        monkeypatch.setitem(MOST, "cpu", 3)
        apart = model.at_precision("float32").outputs(rows.x)
        monkeypatch.undo()
        torch.testing.assert_close(together.logits, apart.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.features, apart.features, rtol=1e-4, atol=1e-5)


#: Searches that hold several rows for one trigger, on kinds of samples that they take.
SEARCHES: list[tuple[str, ModelDetector]] = [
    ("image", TargetInversion(rows=8, steps=6, precision="float32")),
    ("image", UniversalPerturbation(rows=8, steps=6, precision="float32")),
    ("image", build("input-margin", role="model-detector").but(steps=5)),
    ("image", build("mm-bd", role="model-detector").but(inputs=8, steps=5)),
    ("image", build("ban", role="model-detector").but(steps=3, mask_steps=3)),
    ("image", build("neural-cleanse", role="model-detector").but(rows=16, batch=8, epochs=1, steps=3)),
    ("image", DeBackdoor(passes=400, rows=8)),
    ("image", build("decree", role="model-detector").but(rows=8, steps=4)),
    ("text", build("decree", role="model-detector").but(rows=8, rounds=1, shortlist=4)),
    ("text", DBS(rows=8, steps=6, classes_at_once=1)),
    ("text", build("token-search", role="model-detector").but(rows=8, rounds=1, shortlist=4, precision="float32")),
    ("text", build("token-effects", role="model-detector").but(rows=8, precision="float32")),
]


@pytest.mark.parametrize(("kind", "method"), SEARCHES, ids=lambda value: getattr(value, "name", value))
def test_one_trigger_may_not_fit(kind: str, method: ModelDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows then go through a few at a time: the finding is that of all of them together."""
    task = toy(kind)
    model = task.fresh(0)
    clean: Data = task.load("clean")[:60]
    widest: list[int] = []
    model.module.register_forward_pre_hook(lambda _, args: widest.append(len(args[0])))
    found = []
    for rows in (8, 3):
        monkeypatch.setitem(MOST, "cpu", rows)
        widest.clear()
        found.append(method.inspect(model, clean, seed=1))
        assert 1 <= max(widest) <= rows
    whole, parts = found
    assert abs(whole.score - parts.score) <= 2e-3 * max(1.0, abs(whole.score))
    if whole.per_class is not None and parts.per_class is not None:
        torch.testing.assert_close(whole.per_class, parts.per_class, rtol=2e-3, atol=2e-3)
