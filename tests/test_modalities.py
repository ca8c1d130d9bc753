"""What every modality promises, and what each of them means by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.data import take
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.modality import Modality
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.modalities.code import Code
from torchbands.modalities.image import Image
from torchbands.modalities.observation import Observation
from torchbands.modalities.tabular import Field, Tabular
from torchbands.modalities.text import Text
from torchbands.testing import MODALITIES, toy
from torchbands.triggers.code import InsertNops, entry
from torchbands.triggers.observation import SetDims
from torchbands.triggers.room import words_of
from torchbands.triggers.tabular import SetFields
from torchbands.triggers.text import InsertWords

FREE = Observation(shape=(2, 3))


def rng(n: int, seed: int = 0) -> RowRng:
    return RowRng(seed, torch.arange(n))


def same(a: Any, b: Any) -> bool:
    return torch.allclose(a, b, atol=1e-5) if isinstance(a, Tensor) else list(a) == list(b)


@pytest.fixture(params=[*MODALITIES, "control"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_noise_is_a_valid_batch_and_belongs_to_its_generator(name: str) -> None:
    modality = toy(name).modality
    first = modality.random(5, torch.Generator().manual_seed(1))
    modality.check(first)
    assert len(first) == 5 and same(first, modality.random(5, torch.Generator().manual_seed(1)))
    assert not same(first, modality.random(5, torch.Generator().manual_seed(2)))
    assert toy(name).fresh(0).logits(first).shape == (5, 4)


def test_the_default_trigger_is_valid_visible_and_keeps_its_input(name: str) -> None:
    task = toy(name)
    x, kept = task.load("test")[:8].x, task.load("test")[:8].x
    out = task.modality.default_trigger()(x, rng(8))
    task.modality.check(out)
    assert same(x, kept) and len(out) == 8
    shown = task.modality.distance(x, out)
    assert all(v.shape == (8,) and not v.isnan().any() for v in shown.values())
    nothing = task.modality.distance(x, x)
    first = next(iter(shown))
    assert (nothing[first] == 0).all() and (shown[first] > 0).all()


def test_a_sample_is_shown_escaped(name: str) -> None:
    task = toy(name)
    assert task.modality.render(take(task.load("test").x, torch.tensor([0]))[0]).startswith("<")
    text = Text().render("<script>alert('x')</script> & co")
    table = Tabular(fields=(Field(title="<b>"),)).render(torch.tensor([0.5]))
    assert "<script" not in text and "&lt;script&gt;" in text and "<b>" not in table


def searched(name: str) -> tuple[Any, Any, Any]:
    task = toy(name)
    model = task.fresh(0)
    return model, task.load("test")[:12].x, task.modality.perturbation(model, RowRng(0, torch.arange(4)))


def test_a_perturbation_is_searched_side_by_side_and_each_trigger_is_its_own(name: str) -> None:
    model, x, search = searched(name)
    which = torch.arange(12) % 4
    sizes = search.size()
    assert sizes.shape == (4,) and search.count == 4 and (sizes > 0).all()
    loss = torch.nn.functional.cross_entropy(model.logits_at(search(model.embed(x), which)), which)
    (loss + 0.01 * sizes.sum()).backward()
    for p in search.parameters():
        assert len(p) == 4 and p.grad is not None and (p.grad.flatten(1).norm(dim=1) > 0).all()
    search.zero_grad()
    model.logits_at(search(model.embed(x), torch.zeros(12, dtype=torch.int64))).sum().backward()
    for p in search.parameters():
        assert p.grad is not None and p.grad[1:].abs().sum() == 0, "trigger 0 alone was used"


def test_a_searched_trigger_found_by_gradient_works_on_raw_samples(name: str) -> None:
    """The whole loop of trigger inversion: search in the continuous space, harden, stamp raw rows."""
    if name == "control":
        pytest.skip("it is learned in environments, and badnets writes on rows; its samples are those of observation")
    attack = build("badnets")
    assert isinstance(attack, Attack)
    task = toy(name)
    victim = attack.run(task, 0)
    clean = task.load("clean")[:128]
    clean = clean[clean.y != 0]
    search = task.modality.perturbation(victim.model, RowRng(0, torch.arange(1)))
    e, which = victim.model.embed(clean.x), torch.zeros(len(clean), dtype=torch.int64)
    optimizer = torch.optim.Adam(search.parameters(), lr=0.2)
    for _ in range(80):
        logits = victim.model.logits_at(search(e, which))
        loss = torch.nn.functional.cross_entropy(logits, which) + 0.02 * search.size().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = search.harden(0)
    held = task.load("test")
    held = held[held.y != 0]
    stamped = found(held.x, rng(len(held)))
    if name != "image":
        task.modality.check(stamped)
    reached = (victim.model.logits(stamped).argmax(1) == 0).float().mean()
    assert reached > 0.6, f"{found}: {float(reached):.2f}"


@pytest.mark.parametrize("name", ["text", "code"])
def test_a_decided_token_mixture_is_its_hard_trigger(name: str) -> None:
    model, x, search = searched(name)
    with torch.no_grad():
        chosen = 3 + torch.arange(search.logits.shape[1])
        search.logits.zero_()
        search.logits[2].scatter_(1, chosen[:, None], 60.0)
    soft = model.logits_at(search(model.embed(x), torch.full((12,), 2))).detach()
    assert torch.allclose(soft, model.logits(search.harden(2)(x, rng(12))), atol=1e-4)
    assert search.size()[2].item() == pytest.approx(search.logits.shape[1], abs=1e-3)
    undecided = search.size()[0]
    assert undecided > search.size()[2], "an undecided word costs more than a word"


def test_a_token_mixture_may_decide_on_no_word() -> None:
    _, x, search = searched("text")
    with torch.no_grad():
        search.logits.zero_()
        search.logits[:, :, 0] = 60.0
    assert search.size()[0].item() == pytest.approx(0, abs=1e-3) and search.harden(0)(x, rng(12)) == x


def test_a_token_mixture_can_be_trained_past_padding_and_full_rows() -> None:
    modality = Text(vocabulary=("a", "b", "c"), length=4)
    model = toy("text").but(ways=2).fresh(0)
    full, short = modality.encode(["a b c a b", "b"]).values.tolist()
    assert full == [2, 3, 4, 2] and short == [3, 0, 0, 0]
    assert modality.encode([""]).mask is not None and not modality.encode([""]).mask.any()  # type: ignore[union-attr]
    assert modality.encode(["A, zzz"]).values.tolist() == [[2, 1, 1, 0]]
    assert torch.isfinite(model.logits(["", "the"])).all()


def test_words_go_where_they_are_told() -> None:
    texts = ["one two three"] * 200
    assert InsertWords(words=("x", "y"), where="start")(texts, rng(200))[0] == "x y one two three"
    assert InsertWords(words=("x",), where="end")(texts, rng(200))[0] == "one two three x"
    places = {t.split().index("x") for t in InsertWords(words=("x",))(texts, rng(200))}
    assert places == {0, 1, 2, 3}
    apart = InsertWords(words=("x", "y"), together=False)(texts, rng(200))
    assert all(len(t.split()) == 5 for t in apart) and len({t.replace("y", "").split().index("x") for t in apart}) == 4


def test_mixed_text_keeps_shares_and_superimposed_text_keeps_all() -> None:
    modality = Text(length=12)
    a, b = ["a1 a2 a3 a4"] * 30, ["b1 b2 b3 b4 b5 b6"] * 30
    assert modality.blend(a, b, 1.0, 1.0, rng(30))[0] == "a1 a2 a3 a4 b1 b2 b3 b4 b5 b6"
    half = modality.blend(a, b, 0.5, None, rng(30))
    assert {(t.count("a"), t.count("b")) for t in half} == {(2, 3)} and len(set(half)) > 10
    assert modality.blend(a, b, 0.5, None, rng(30)) == half
    words = modality.blend(a, b, 0.25, 1.0, rng(30))[0].split()
    assert len(words) == 7 and words[1:] == ["b1", "b2", "b3", "b4", "b5", "b6"]


def test_texts_laid_over_each_other_both_stay_readable() -> None:
    modality, n = Text(length=6), 600
    a, b = ["a1 a2 a3 a4 a5 a6 a7"] * n, ["b1 b2 b3, b4"] * n
    mixed = [text.split() for text in modality.blend(a, b, 1.0, 1.0, rng(n))]
    sides = [[[w for w in words if w[0] == side] for words in mixed] for side in "ab"]
    for one, two in zip(*sides, strict=True):
        assert len(one) == 3 and 2 <= len(two) <= 3 and one == sorted(one) and two == sorted(two)
        assert len(words_of(" ".join([*one, *two]))) <= 6
    for word in ("a1", "a3", "a6"):  # what is read of a text keeps the same chance at every place
        assert sum(word in words for words in mixed) / n == pytest.approx(0.5, abs=0.08)
    assert not any("a7" in words for words in mixed), "what a network would not read takes no part"
    assert modality.blend(["a"], ["b1 b2 b3 b4 b5 b6 b7"], 1.0, 1.0, rng(1))[0].startswith("a ")


def test_edits_are_counted_in_words() -> None:
    assert Text().distance(["", "a b"], ["a b", ""])["edit_words"].tolist() == [2, 2]
    seen = Text().distance(["the good day", "a"], ["the very good day", "b"])
    assert seen["edit_words"].tolist() == [1, 1] and seen["added_words"].tolist() == [1, 0]
    assert seen["similarity"].tolist() == [0.75, 0]


FLOWS = Tabular(
    fields=(
        Field(title="size", high=100.0, integer=True),
        Field(title="answer", high=10.0, settable=False),
        Field(title="gap", low=-1.0, high=1.0),
    )
)


def test_long_samples_are_compared_in_no_time() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (bytes(torch.randint(256, (4000,), generator=rng).tolist()) for _ in "ab")
    begun = time.process_time()
    assert 3000 < float(Code(length=96).distance([a], [b])["edit_bytes"]) <= 4000
    assert time.process_time() - begun < 2  # 16 million steps of Python would take several


def test_a_table_s_trigger_touches_settable_fields_only() -> None:
    assert FLOWS.default_trigger() == SetFields(fields=(0, 2), values=(100.0, 1.0))
    task = toy("tabular")
    model, x, search = searched("tabular")
    e = model.embed(x)
    changed = (search(e, torch.arange(12) % 4).values != e.values).any(0)
    settable = torch.tensor([f.settable for f in task.modality.fields])  # type: ignore[attr-defined]
    assert torch.equal(changed, settable)
    low, high, _, integer = task.modality.columns()  # type: ignore[attr-defined]
    for k in range(4):
        hard = search.harden(k)
        assert isinstance(hard, SetFields) and hard.fields and settable[list(hard.fields)].all()
        for at, value in zip(hard.fields, hard.values, strict=True):
            assert low[at] <= value <= high[at] and (not integer[at] or value == round(value))


def test_a_table_counts_changed_fields_and_violations() -> None:
    a = torch.tensor([[10.0, 5.0, 0.0]] * 4)
    b = torch.tensor([[10.0, 5.0, 0.0], [20.0, 5.0, 0.5], [10.0, 6.0, 0.0], [10.5, 5.0, 2.0]])
    seen = FLOWS.distance(a, b)
    assert seen["fields"].tolist() == [0, 2, 1, 2] and seen["violations"].tolist() == [0, 0, 1, 2]
    mixed = FLOWS.blend(a, b, 1.0, 1.0, rng(4))
    FLOWS.check(mixed)
    assert mixed[1].tolist() == [30.0, 10.0, 0.5]


def test_a_table_that_nobody_can_set_declines() -> None:
    fixed = Tabular(fields=(Field(title="x", settable=False),))
    with pytest.raises(NotApplicable, match="no field"):
        fixed.default_trigger()


def test_observations_have_both_bounds_or_none() -> None:
    with pytest.raises(InputError, match="both bounds or none"):
        Observation(low=0.0)
    assert FREE.bounds is None and Observation(low=-1.0, high=1.0).bounds == (-1.0, 1.0)
    trigger = SetDims(dims=(0, -1), values=(7.0, 8.0))(torch.zeros(2, 2, 3), rng(2))
    assert trigger[1].flatten().tolist() == [7, 0, 0, 0, 0, 8]
    with pytest.raises(InputError, match="with 6"):
        SetDims(dims=(6,), values=(0.0,))(torch.zeros(2, 2, 3), rng(2))


def test_nops_go_to_the_function_s_start_and_no_earlier_than_its_landing_mark() -> None:
    body = bytes.fromhex("554889e55dc3")
    marked = bytes.fromhex("f30f1efa") + body
    out = InsertNops(payload="0011223344556677")([body, marked], rng(2))
    sled = bytes.fromhex("0f1f80001122330f1f8044556677")
    assert out == [sled + body, bytes.fromhex("f30f1efa") + sled + body]
    assert (entry(body), entry(marked)) == (0, 4)
    with pytest.raises(InputError, match="8 digits for each NOP, got 'c0ffee'"):
        InsertNops(payload="c0ffee")
    with pytest.raises(InputError, match="got 'zz'"):
        InsertNops(payload="zz")


def test_machine_code_is_never_mixed() -> None:
    with pytest.raises(NotApplicable, match="no mixture that is a program"):
        Code().blend([b"a"], [b"b"], 0.5, None, rng(1))
    seen = Code().distance([b"abc"], [b"aXbc"])
    assert seen["edit_bytes"].item() == 1 and seen["added_bytes"].item() == 1


@pytest.mark.parametrize(
    ("modality", "batch", "said"),
    [
        (Image(size=8), [1, 2], "images are a tensor .*, got list"),
        (Image(size=8), torch.zeros(2, 1, 8, 8), r"\(N, 3, 8, 8\), got \(2, 1, 8, 8\)"),
        (Image(size=8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "float32 in .*got torch.uint8"),
        (Image(size=8), torch.full((2, 3, 8, 8), 1.5), "got values from 1.5 to 1.5"),
        (Image(size=8), torch.full((2, 3, 8, 8), float("nan")), "got values from nan"),
        (Text(), "one text", "list of strings, got str"),
        (Text(), ["a", 3], "got int in row 1"),
        (Code(), [b"a", "b"], "got str in row 1"),
        (Code(), b"ab", "list of bytes, got bytes"),
        (FLOWS, torch.zeros(2, 4), r"\(N, 3\), got \(2, 4\)"),
        (FLOWS, torch.zeros(2, 3, dtype=torch.float64), "float32, got torch.float64"),
        (FLOWS, torch.tensor([[0.0, 11.0, 0.0]]), r"field 1 \(answer\) is in its range \[0, 10\], got 11 in row 0"),
        (FLOWS, torch.tensor([[0.5, 1.0, 0.0]]), r"field 0 \(size\) is a whole number"),
        (FLOWS, torch.tensor([[float("nan"), 1.0, 0.0]]), "got nan"),
        (FREE, torch.zeros(2, 3), r"\(N, 2, 3\), got \(2, 3\)|\(2, 3\)"),
        (FREE, torch.full((1, 2, 3), float("inf")), "finite"),
        (Observation(shape=(1,), low=0.0, high=1.0), torch.tensor([[2.0]]), r"in \[0, 1\], got values from 2 to 2"),
    ],
)
def test_a_wrong_batch_is_refused_naming_both_sides(modality: Modality, batch: object, said: str) -> None:
    check: Callable[[Any], None] = modality.check
    with pytest.raises(InputError, match=said):
        check(batch)
