"""Networks as people have them: any output is read as what it is, and what was changed for that is told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize
from torchbands.scanner.heads import Answers
from torchbands.scanner.opening.architecture import finished
from torchbands.scanner.opening.weights import State
from torchbands.scanner.predictor import predictor
from torchbands.scanner.scan_model import scan

X, Y = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
ROWS = Data(X, Y)


def net(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)]
    return nn.Sequential(*body).eval()


class Gives(nn.Module):
    def __init__(self, what: Callable[[nn.Module, Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.inner, self.what = net(classes), what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.inner, x)


@dataclass
class Output:
    loss: Any
    logits: Tensor


WANTED = net()(X)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda n, x: (n(x), x), "0 is taken for the classes"),
        (lambda n, x: (n[:4](x), n(x)), "1 is taken for the classes"),
        (lambda n, x: {"features": n[:4](x), "logits": n(x)}, "logits is taken"),
        (lambda n, x: OrderedDict(hidden=x, prediction_logits=n(x), embedding=n[:4](x)), "prediction_logits is taken"),
        (lambda n, x: Output(None, n(x)), "logits is taken"),
        (lambda n, x: n(x)[:, :, None, None], ""),
        (lambda n, x: n(x).softmax(1), "probabilities"),
        (lambda n, x: n(x).log_softmax(1), ""),
        (lambda n, x: n(x).sigmoid(), "sigmoids"),
        (lambda n, x: n(x.permute(0, 3, 1, 2)), "(N, H, W, C)"),
        (lambda n, x: n(torch.from_numpy(x.detach().numpy())), ""),
    ],
)
def test_outputs_are_read_as_what_they_are(what: Callable[[nn.Module, Tensor], Any], said: str) -> None:
    model = predictor(Gives(what), ROWS)
    assert model.classes == 4 and said in str(model.facts.get("notes", "")) and bool(said) == ("notes" in model.facts)
    found = model.logits(X).softmax(1)
    assert torch.allclose(found, WANTED.softmax(1), atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("squeezed", [False, True])
def test_one_number_is_two_classes(half: bool, squeezed: bool) -> None:
    def what(n: nn.Module, x: Tensor) -> Tensor:
        z = n(x)[:, :1] * 9 - 2
        z = z.sigmoid() if half else z
        return z.squeeze(1) if squeezed else z

    model = predictor(Gives(what), Data(X, Y % 2))
    assert model.classes == 2 and "of two classes" in str(model.facts["notes"])
    assert torch.allclose(model.probabilities(X)[:, 1], (WANTED[:, 0] * 9 - 2).sigmoid(), atol=1e-4)


def test_precisions_wrappers_and_normalisations_are_seen_through() -> None:
    for module in (net().double(), net().half(), net().bfloat16()):
        kind = next(module.parameters()).dtype
        model = predictor(module, ROWS)
        assert torch.allclose(model.logits(X), WANTED, atol=1e-2) and "float32" in str(model.facts["notes"])
        assert next(module.parameters()).dtype == kind  # the user's own stays as it is
    for module in (torch.compile(net(), backend="eager"), nn.DataParallel(net())):
        assert torch.allclose(predictor(module, ROWS).logits(X), WANTED, atol=1e-5)
    with torch.inference_mode():
        made = net()
    assert torch.allclose(predictor(made, ROWS).logits(X), WANTED, atol=1e-5)
    behind = nn.Sequential(Normalize(3, [0.1, 0.2, 0.3], 0.5), Gives(lambda n, x: (n(x.permute(0, 3, 1, 2)),)))
    scaled = (X - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5
    model = predictor(behind, ROWS)
    assert torch.allclose(model.logits(X), net()(scaled), atol=1e-4)
    assert isinstance(model.module, nn.Sequential) and isinstance(model.module[1], Answers)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda n, x: (n(x), n(x) * 2), "which one holds the classes"),
        (lambda n, x: {"a": x}, "without scores of the rows"),
        (lambda n, x: x, "expected logits"),
        (lambda n, x: torch.no_grad()(n)(x)[:, :1].sigmoid(), "a probability or a logit cannot be told"),
        (lambda n, x: n(x[:, :2]), "the model does not take"),
    ],
)
def test_what_cannot_be_told_is_refused(what: Callable[[nn.Module, Tensor], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        predictor(Gives(what), ROWS)


def test_weights_that_are_nowhere_and_labels_that_are_no_classes() -> None:
    with torch.device("meta"):
        nowhere = net()
    with pytest.raises(InputError, match="meta"):
        predictor(nowhere, ROWS)
    with pytest.raises(InputError, match="labels up to 3, the model has classes 0 to 2"):
        scan(net(3), (X, Y), profile="fast")
    with pytest.raises(InputError, match="labels up to 3"):
        scan(Gives(lambda n, x: x.mean((2, 3))), (X, Y), profile="fast")  # no parameters that it uses


def test_a_trigger_can_be_searched_behind_a_pair_and_a_checkpoint_has_the_same_ways_in() -> None:
    state = State()
    model = finished(Gives(lambda n, x: (n(x), n(x) * 2)), Image(channels=3, size=8), None, state, output="1")
    assert "1 is taken" in str(state.facts["notes"]) and model.classes == 4
    x = X[:2].clone().requires_grad_()
    model.module(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    with pytest.raises(InputError, match="has no output '7'"):
        finished(Gives(lambda n, x: (n(x), n(x) * 2)), Image(channels=3, size=8), None, State(), output="7")
