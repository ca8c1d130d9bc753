"""dan: the distance by hand, triggered inputs far in some layer, one pass for all layers."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.inputs.dan import DAN, SHRINKAGE, FittedDAN, _normal, layers_of
from torchbands.measures.cost import measured
from torchbands.measures.effectiveness import auroc
from torchbands.modalities.image import Image
from torchbands.networks.resnet import ResNet
from torchbands.networks.vit import ViT
from torchbands.testing import toy
from torchbands.testing.fixtures import victim


def fitted(name: str, attack: str = "badnets", **settings: object) -> FittedDAN:
    made = DAN(**settings).fit(victim(name, attack).model, toy(name).load("clean"))  # type: ignore[arg-type]
    assert isinstance(made, FittedDAN)
    return made


def test_the_distance_is_to_the_nearest_class_under_a_shared_covariance() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    h = torch.randn(60, 3, generator=rng).double() * torch.tensor([1.0, 5.0, 0.2]) + 4 * y[:, None]
    others = torch.randn(20, 3, generator=rng)
    found = _normal(h.float(), y, others)
    means = torch.stack([h[y == c].mean(0) for c in (0, 1)])
    centred = h - means[y]
    covariance = centred.T @ centred / 60
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.trace() / 3 * torch.eye(3)
    gap = others[:, None].double() - means
    expected = torch.einsum("nkd,de,nke->nk", gap, torch.linalg.inv(shrunk), gap).amin(1)
    torch.testing.assert_close(found.distance(others), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.usual, torch.stack([expected.mean(), expected.std(correction=0)]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["image", "text", "tabular", "observation", "code"])
def test_triggered_inputs_score_higher_in_every_domain(name: str) -> None:
    test, made = toy(name).load("test"), fitted(name)
    triggered, _ = victim(name, "badnets").triggered(test)
    high, low = made.score(triggered.x), made.score(test.x)
    assert auroc(high, low) > 0.95  # type: ignore[operator]
    assert float(made.flag(triggered.x).float().mean()) > 0.9
    assert float(made.flag(test.x).float().mean()) < 0.12


def test_triggered_real_images_are_found(backdoored: Victim, clean: Data) -> None:
    test = backdoored.task.load("test")
    triggered, _ = backdoored.triggered(test)
    made = DAN().fit(backdoored.model, clean)
    assert auroc(made.score(triggered.x), made.score(test.x)) > 0.9  # type: ignore[operator]


@pytest.mark.parametrize("name", ["text", "code"])
def test_quiet_where_nothing_is_planted(name: str) -> None:
    test, made = toy(name).load("test"), fitted(name, "clean")
    assert float(made.flag(test.x).float().mean()) < 0.12
    half = len(test) // 2
    assert auroc(made.score(test.x[:half]), made.score(test.x[half:])) == pytest.approx(0.5, abs=0.1)


def test_the_largest_layer_or_their_mean() -> None:
    x = toy("text").load("test").x[:50]
    mean, largest = fitted("text"), fitted("text", aggregate="max")
    assert bool((largest.score(x) >= mean.score(x) - 1e-5).all()) and not torch.equal(mean.score(x), largest.score(x))


def test_all_layers_are_read_in_one_pass() -> None:
    made = fitted("tabular")
    assert len(made.names) > 2
    made.model = made.model.clone()
    x = toy("tabular").load("test").x
    with measured(made.model) as cost:
        made.score(x)
    assert cost.forward_passes == len(x)


def test_layers_of_one_pass_are_those_of_one_pass_each() -> None:
    for name in ("text", "image"):
        model, x = victim(name, "badnets").model, toy(name).load("test")[:40].x
        names = layers_of(model)
        for h, layer in zip(model.features_of(x, names), names, strict=True):
            torch.testing.assert_close(h, model.features(x, layer), atol=1e-5, rtol=1e-5)


def test_norms_end_the_blocks_of_a_transformer_and_follow_convolutions_elsewhere() -> None:
    image = Image(channels=1, size=12)
    for module, kind in ((ViT(1, 12, 4, dim=32, depth=2, mean=0.5, std=0.5), "norm"), (ResNet(1, 12, 4), "conv")):
        model = Model(module, image, 4)
        kinds = {u.layer: u.kind for u in model.units()}
        *names, last = layers_of(model)
        assert last is None and len(names) > 3 and {kinds[n] for n in names if n is not None} == {kind}


def test_a_score_does_not_depend_on_the_batch() -> None:
    made, rows = fitted("text"), [*toy("text").load("test").x[:20], "cf", ""]
    together = made.score(rows)
    torch.testing.assert_close(together, torch.cat([made.score([r]) for r in rows]), atol=1e-4, rtol=1e-4)
    assert made.score([]).shape == (0,)


def test_saved_and_loaded_it_says_the_same() -> None:
    made, rows = fitted("text"), toy("text").load("test").x[:20]
    again = DAN().restore(made.model, *made.state())
    torch.testing.assert_close(again.score(rows), made.score(rows))
    assert again.threshold == made.threshold


def test_what_it_cannot_serve() -> None:
    model, clean = victim("text", "badnets").model, toy("text").load("clean")
    with pytest.raises(NotApplicable, match="features"):
        DAN().fit(Model.black_box(model.probabilities, model.modality, 4), clean)
    with pytest.raises(InputError, match="got 3"):
        DAN().fit(model, clean[:3])
    with pytest.raises(InputError, match="frr"):
        DAN(frr=1.0)
