"""rap: triggered texts resist the tuned token; nothing does in a model without a backdoor."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.errors import NotApplicable
from torchbands.core.modality import Encoded
from torchbands.core.registry import build
from torchbands.defenses.inputs.rap import RAP, FittedRAP, led
from torchbands.measures.effectiveness import auroc


@pytest.fixture(scope="module")
def planted() -> Victim:
    return build("badnets").run(build("toy/text"), 0)


def judged(victim: Victim) -> tuple[float, FittedRAP]:
    test = victim.task.load("test")
    fitted = RAP().fit(victim.model, victim.task.load("clean"))
    assert isinstance(fitted, FittedRAP)
    value = auroc(fitted.score(victim.triggered(test)[0].x), fitted.score(test.x))
    assert isinstance(value, float)
    return value, fitted


def test_triggered_texts_lose_less_confidence(planted: Victim) -> None:
    value, fitted = judged(planted)
    assert value > 0.7
    test = planted.task.load("test")
    assert float(fitted.flag(test.x).float().mean()) < 0.05
    rows = test.x[:20]
    torch.testing.assert_close(
        fitted.score(rows), torch.cat([fitted.score([row]) for row in rows]), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(RAP().restore(planted.model, *fitted.state()).score(rows), fitted.score(rows))


def test_quiet_where_nothing_is_planted() -> None:
    value, fitted = judged(build("clean").run(build("toy/text"), 0))
    assert value < 0.65
    test = fitted.model
    assert test.classes == len(fitted.tokens)


def test_a_tuned_token_moves_and_keeps_its_norm(planted: Victim) -> None:
    clean = planted.task.load("clean")[:128]
    short, long = (RAP(epochs=1, steps=n, lr=0.3).fit(planted.model, clean) for n in (1, 40))
    assert isinstance(short, FittedRAP) and isinstance(long, FittedRAP)
    assert not torch.allclose(short.tokens, long.tokens, atol=0.05)
    torch.testing.assert_close(short.tokens.norm(dim=1), long.tokens.norm(dim=1), rtol=1e-4, atol=1e-5)


def test_the_token_goes_behind_the_special_ones_and_pushes_the_last_out() -> None:
    e = Encoded(torch.arange(4.0)[None, :, None], torch.tensor([[True, True, True, False]]), torch.arange(4)[None] + 2)
    out = led(e, torch.tensor([9.0]), 1)
    assert out.values.flatten().tolist() == [0.0, 9.0, 1.0, 2.0]
    assert out.mask is not None and out.mask.all()
    assert out.tokens is not None and out.tokens.tolist() == [[2, 1, 3, 4]]


def test_inputs_that_are_no_tokens_are_declined() -> None:
    task = build("toy/tabular")
    with pytest.raises(NotApplicable, match="tokens"):
        RAP().fit(build("clean").run(task, 0).model, task.load("clean"))
