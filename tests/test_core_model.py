"""What may be asked of a model, on every kind of network and on one that nobody here has seen."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.layers import Gate
from torchbands.core.modality import Encoded, Modality
from torchbands.core.model import Model, fast_dtype
from torchbands.core.recipe import Network
from torchbands.core.registry import build
from torchbands.core.seeding import seeded
from torchbands.modalities.image import Image
from torchbands.testing import toy

IMAGES = Image(channels=3, size=16)
RECIPES = (
    {"name": "small-cnn", "widths": (8, 16)},
    {"name": "resnet", "depth": 8, "widths": (4, 8, 16)},
    {"name": "preact-resnet18", "width": 4},
    {"name": "vgg-bn", "width": 4},
    {"name": "vit", "dim": 16, "depth": 2, "heads": 2},
)


class Stranger(nn.Module):
    """Somebody else's network: odd names, attention that hides its projections, GroupNorm, logits that are a view."""

    def __init__(self) -> None:
        super().__init__()
        self.a_b = nn.ModuleDict({"stem!": nn.Conv2d(3, 12, 4, 4), "gn": nn.GroupNorm(3, 12)})
        self.mixer = nn.MultiheadAttention(12, 3, batch_first=True)
        self.unused = nn.Linear(5, 5)
        self.shared = nn.Linear(12, 12)
        self.out_layer = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a_b["gn"](self.a_b["stem!"](x)).flatten(2).transpose(1, 2)
        h = h + self.mixer(h, h, h, need_weights=False)[0]
        h = self.shared(torch.relu(self.shared(h)))
        return self.out_layer(h.mean(1)).view(len(x), -1)


def made(recipe: dict[str, object] | None) -> Model:
    with seeded("model-tests"):
        if recipe is None:
            module: nn.Module = Stranger()
        else:
            network = build({"role": "network", **recipe})
            assert isinstance(network, Network)
            module = network.build(IMAGES, 5)
            for m in module.modules():  # a fresh BatchNorm is the identity; make its statistics matter
                if isinstance(m, nn.BatchNorm2d):
                    nn.init.uniform_(m.running_mean, -0.5, 0.5)
                    nn.init.uniform_(m.weight, 0.5, 1.5)
                    nn.init.uniform_(m.bias, -0.5, 0.5)
    return Model(module, IMAGES, 5)


@pytest.fixture(params=[*RECIPES, None], ids=lambda r: "stranger" if r is None else str(r["name"]))
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param)


X = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def raw_output(model: Model, layer: str) -> Tensor:
    caught: list[Tensor] = []
    handle = model.module.get_submodule(layer).register_forward_hook(
        lambda _, args, out: caught.append(out[0] if isinstance(out, tuple) else out)
    )
    model.logits(X)
    handle.remove()
    return caught[0]


def test_units_are_every_scalable_layer_but_the_head(model: Model) -> None:
    units = model.units()
    assert model.head is not None and model.head not in {u.layer for u in units}
    assert isinstance(model.module.get_submodule(model.head), nn.Linear)
    used = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)
    expected = {n for n, m in model.module.named_modules() if isinstance(m, used)} - {model.head}
    expected -= {"unused", "mixer.out_proj"}
    assert {u.layer for u in units} == expected and len(units) == len(expected)
    for unit in units:
        assert raw_output(model, unit.layer).shape[unit.dim] == unit.count, unit


def test_norms_know_the_layer_that_they_follow() -> None:
    after = {u.layer: u.follows for u in made({"name": "vgg-bn", "width": 4}).units() if u.kind == "norm"}
    assert after and all(v is not None for v in after.values())
    before = [u for u in made({"name": "preact-resnet18", "width": 4}).units() if u.kind == "norm"]
    assert any(u.follows is None for u in before), "a pre-activation norm follows a sum, not one convolution"


def test_gates_of_one_change_nothing_and_gates_of_zero_silence(model: Model) -> None:
    plain = model.logits(X)
    ones = {u.layer: torch.ones(u.count) for u in model.units()}
    with model.gated(ones) as open_:
        assert torch.allclose(open_.logits(X), plain, atol=1e-5)
    unit = model.units()[0]
    with model.gated({unit.layer: torch.zeros(unit.count)}) as closed:
        assert not torch.allclose(closed.logits(X), plain, atol=1e-4)
    last = model.units()[-1]
    with model.gated({last.layer: Gate(None, torch.full((last.count,), 0.5))}) as shifted:
        assert not torch.allclose(shifted.logits(X), plain, atol=1e-4)
    assert torch.equal(model.logits(X), plain), "gates must be gone afterwards"
    assert not any(m._forward_hooks for m in model.module.modules())


def test_gradients_flow_into_gates(model: Model) -> None:
    gates = {u.layer: torch.ones(u.count, requires_grad=True) for u in model.units()}
    with model.gated(gates):
        model.logits_at(model.embed(X)).square().sum().backward()
    assert all(g.grad is not None and torch.isfinite(g.grad).all() for g in gates.values())
    assert sum(float(g.grad.abs().sum()) > 0 for g in gates.values() if g.grad is not None) == len(gates)


def test_baked_scales_equal_gates(model: Model) -> None:
    rng = torch.Generator().manual_seed(1)
    shared = "shared"  # used twice: a gate acts on both uses, and so do its weights
    scales = {u.layer: torch.rand(u.count, generator=rng) for u in model.units() if u.layer != shared}
    before = copy.deepcopy(model.module.state_dict())
    with model.gated(scales) as gated:
        wanted = gated.logits(X)
    assert torch.allclose(model.baked(scales).logits(X), wanted, atol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_a_wrong_layer_is_refused_with_the_right_ones(model: Model) -> None:
    with pytest.raises(InputError, match="layers: "), model.gated({"nowhere": torch.ones(1)}):
        pass
    with pytest.raises(InputError, match="no layer 'nowhere'"):
        model.features(X, "nowhere")


def test_features_feed_the_head(model: Model) -> None:
    assert model.head is not None
    features = model.features(X)
    head = model.module.get_submodule(model.head)
    with torch.no_grad():
        assert torch.allclose(head(features), model.logits(X), atol=1e-5)
    body, top = model.split()
    with torch.no_grad():
        assert torch.allclose(top(body(X)), model.logits(X), atol=1e-5)
    for unit in model.units():
        assert model.features(X, unit.layer).shape == (6, unit.count)


def test_a_split_is_exact_or_refused(model: Model) -> None:
    exact = 0
    for unit in model.units():
        try:
            body, head = model.split(unit.layer)
        except NotApplicable as declined:
            assert unit.layer in declined.reason
            continue
        with torch.no_grad():
            assert torch.allclose(head(body(X)).float(), model.logits(X), atol=1e-2, rtol=1e-2), unit.layer
        exact += 1
    assert exact >= 2


def test_logits_at_the_input_are_the_logits_with_gradients(model: Model) -> None:
    e = model.embed(X)
    values = e.values.clone().requires_grad_()
    logits = model.logits_at(Encoded(values, e.mask, e.tokens))
    assert torch.allclose(logits.detach(), model.logits(X), atol=1e-5)
    logits.sum().backward()
    assert values.grad is not None and float(values.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ["text", "code"])
def test_logits_at_embeddings_are_the_logits_with_gradients(name: str) -> None:
    task = toy(name)
    model = task.fresh(0)
    x = task.load("test")[:8].x
    e = model.embed(x)
    assert e.tokens is not None and e.values.is_floating_point() and e.values.ndim == 3
    values = e.values.clone().requires_grad_()
    logits = model.logits_at(Encoded(values, e.mask, e.tokens))
    assert torch.allclose(logits.detach(), model.logits(x), atol=1e-5)
    logits.sum().backward()
    assert values.grad is not None and float(values.grad.abs().sum()) > 0
    assert not model.embedding._forward_hooks and {u.kind for u in model.units()} == {"conv"}


def test_a_shared_block_makes_one_pass_for_all_who_ask_and_keeps_nothing_after(model: Model) -> None:
    with model.shared():
        first = model.outputs(X)
        passes = model.passes.forward
        assert torch.equal(model.logits(X), first.logits) and torch.equal(model.features(X), first.features)
        other = model.at_precision("float32")
        assert torch.equal(other.logits(X), first.logits)
        with model.shared():  # a block inside a block is the same one
            model.outputs(X)
        model.outputs(X)
        assert model.passes.forward == passes, "kept outputs cost no pass"
        unit = model.units()[0]
        with model.gated({unit.layer: torch.zeros(unit.count)}):
            assert not torch.allclose(model.outputs(X).logits, first.logits)
            assert not torch.allclose(other.outputs(X).logits, first.logits)
        assert torch.equal(model.logits(X), first.logits)
    for who in (model, other):
        before = model.passes.forward
        who.logits(X)
        assert model.passes.forward == before + len(X), "the block is over"


def _data(module: nn.Module) -> None:
    for p in module.parameters():
        p.data.mul_(1.5)


def _fused(module: nn.Module) -> None:
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD(module.parameters(), lr=0.1, fused=True).step()


def _hook(module: nn.Module) -> None:
    next(iter(module.children())).register_forward_hook(lambda _, args, out: 2 * out)


def _train(module: nn.Module) -> None:
    module.train()


def _statistics(module: nn.Module) -> None:
    module.train()
    module(X)
    module.eval()


@pytest.mark.parametrize("change", [_data, _fused, _hook, _train, _statistics])
def test_no_change_of_a_model_is_missed_outside_a_shared_block(change: Callable[[nn.Module], None]) -> None:
    model = made({"name": "vgg-bn", "width": 4})
    x = X.clone()
    with model.shared():
        first = model.outputs(x)
    again = model.outputs(x)
    with torch.no_grad():
        change(model.module)
    assert not torch.allclose(model.logits(x), again.logits)
    assert not torch.allclose(model.outputs(x).features, first.features)


def test_emulated_bfloat16_is_not_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (False, True):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: n or including_emulation
        )
        assert fast_dtype(torch.device("cuda")) is (torch.bfloat16 if native else torch.float32)


def test_a_step_a_hook_or_the_training_mode_is_seen_even_in_a_shared_block() -> None:
    for change in (_hook, _train, _statistics, lambda module: next(module.parameters()).mul_(1.5)):
        model, x = made({"name": "vgg-bn", "width": 4}), X.clone()
        with model.shared(), torch.no_grad():
            first = model.outputs(x)
            change(model.module)
            assert not torch.allclose(model.logits(x), first.logits)
    model, x = made({"name": "vgg-bn", "width": 4}), X.clone()
    with model.shared():
        first = model.outputs(x)
        x.mul_(0.5)
        assert not torch.allclose(model.logits(x), first.logits), "rows changed in place"


def test_a_clone_is_independent_and_counts_together(model: Model) -> None:
    other = model.clone()
    assert torch.equal(other.logits(X), model.logits(X))
    with torch.no_grad():
        for p in other.module.parameters():
            p.zero_()
    assert not torch.equal(other.logits(X), model.logits(X))
    before = model.passes.forward
    other.logits(X)
    assert model.passes.forward == before + len(X)


def test_chunks_do_not_change_the_answer() -> None:
    model = made({"name": "small-cnn", "widths": (8, 16)})
    many = torch.rand(600, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(
        model.logits(many), torch.cat([model.logits(many[:300]), model.logits(many[300:])]), atol=1e-5
    )
    assert model.outputs(many).features.shape[0] == 600
    assert model.logits(many[:0]).shape == (0, 5)


def test_a_black_box_answers_and_declines_the_rest() -> None:
    inside = made({"name": "small-cnn", "widths": (8, 16)})
    box = Model.black_box(inside.probabilities, IMAGES, 5)
    assert torch.allclose(box.probabilities(X), inside.probabilities(X), atol=1e-5)
    assert box.capabilities == {"logits", "model"} and "gradients" in inside.capabilities
    for ask in (
        lambda: box.features(X),
        lambda: box.outputs(X),
        lambda: box.units(),
        lambda: box.split(),
        lambda: box.clone(),
        lambda: box.logits_at(Encoded(X)),
        lambda: box.module,
    ):
        with pytest.raises(NotApplicable, match="black box has no weights"):
            ask()


def test_a_network_without_a_linear_head_says_so() -> None:
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).flatten(1)

    model = Model(Headless(), IMAGES, 5)
    assert model.head is None and model.logits(X).shape == (6, 5)
    for ask in (model.features, model.outputs):
        with pytest.raises(NotApplicable, match="no linear head"):
            ask(X)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"classes": 1}, "at least 2 classes, got 1"), ({"precision": "half"}, "'fast' or 'float32', got 'half'")],
)
def test_a_model_that_cannot_be_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Model(nn.Linear(2, 2), IMAGES, **{"classes": 5, **settings})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="either a module or a predict function"):
        Model(None, IMAGES, 5)


def test_training_mode_ends_with_its_block() -> None:
    model = made({"name": "vgg-bn", "width": 4})
    with pytest.raises(RuntimeError), model.training() as module:
        assert module.training
        raise RuntimeError
    assert not model.module.training


def test_modalities_are_seen_through_one_interface() -> None:
    for name in ("image", "text", "tabular", "observation", "code"):
        task = toy(name)
        assert isinstance(task.modality, Modality)
        model = task.fresh(0)
        x = task.load("test")[:4].x
        assert model.logits(x).shape == (4, 4) and model.features(x).shape[0] == 4


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X * 255, r"in \[0, 1\], got values from .* to 25"),
        (X - 1, r"in \[0, 1\], got values from -"),
        (X / 0, r"in \[0, 1\]"),
        ((X * 255).to(torch.uint8), "divide uint8 images by 255"),
        (X[:, :1], r"\(N, 3, 16, 16\), got \(\d, 1, 16, 16\)"),
        (["a picture"], "tensor"),
    ],
)
def test_a_wrong_image_is_refused_by_everything_that_takes_one(x: object, said: str) -> None:
    model = made({"name": "small-cnn", "widths": (8, 16)})
    y = torch.arange(len(x)) % 5  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        model.logits(x)
    with pytest.raises(InputError, match=said):
        model.features(x)
    with pytest.raises(InputError, match=said):
        build("strip").fit(model, Data(X, torch.arange(6) % 5)).score(x)  # type: ignore[attr-defined]
    for defense, use in (("neural-cleanse", "inspect"), ("i-bau", "repair"), ("badexpert", "fit")):
        with pytest.raises(InputError, match=said):
            getattr(build(defense), use)(model, Data(x, y))
    with pytest.raises(InputError, match=said):
        build("sgd").fit(model, Data(x, y))  # type: ignore[attr-defined]


def test_a_mixture_may_leave_the_range_by_rounding() -> None:
    made({"name": "small-cnn", "widths": (8, 16)}).logits(X + (1 + 1e-7 - X.max()))


NARROW = """
import torch
from torch import nn
from torchbands.core.model import Model
from torchbands.modalities.image import Image
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
model, x = Model.wrap(net, Image(channels=3, size=18), 8), torch.rand(32, 3, 18, 18)
for _ in range(20):
    model.module.zero_grad()
    model.run(model.encode(x)).square().sum().backward()
    kept = [torch.rand(n) for n in range(200)]
found = [p.grad.double() for p in net.parameters()]
net.double().zero_grad()
net(x.double()).square().sum().backward()
print(max(float((a - p.grad).abs().max() / p.grad.abs().max()) for a, p in zip(found, net.parameters())))
"""


def test_gradients_of_narrow_strided_convolutions_on_a_processor_without_avx512() -> None:
    """Where rows are channels_last, oneDNN's AVX2 kernel corrupts memory there; it is asked for in a child process."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert float(ran.stdout) < 1e-4


def test_wide_convolutions_are_channels_last_and_narrow_strided_ones_are_not() -> None:
    def layout(width: int) -> bool:
        net = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 8, 1, stride=2), nn.Flatten(), nn.LazyLinear(5))
        net(torch.rand(1, 3, 16, 16))
        return Model.wrap(net, IMAGES, 5).module[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore

    assert layout(8) and not layout(4)
