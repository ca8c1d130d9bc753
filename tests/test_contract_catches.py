"""The contract catches what it is there to catch: each method here breaks one rule."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from torchbands.attacks.badnets import BadNets
from torchbands.core import registry
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.defense import (
    DataFilter,
    Finding,
    FittedDetector,
    InputDetector,
    ModelDetector,
    Repair,
    Suspicion,
    Training,
)
from torchbands.core.errors import NotApplicable
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import Method, method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Chain, Trigger
from torchbands.testing import ContractError, check_method, contract_cases
from torchbands.testing.fixtures import victim
from torchbands.triggers.additive import Sinusoid
from torchbands.triggers.blend import Blend
from torchbands.triggers.text import InsertWords


@pytest.fixture(autouse=True)
def scratch() -> Iterator[None]:
    """Methods registered here are forgotten."""
    registry.discover()
    before = dict(registry._methods)
    yield
    registry._methods.clear()
    registry._methods.update(before)


def refused(cls: type[Method], said: str, tasks: tuple[str, ...] = ("tabular",)) -> None:
    with pytest.raises(ContractError, match=said):
        check_method(cls, tasks)


PAPER = {"paper": "Nobody, 2000"}


class Base(Attack):
    """The plain trigger. Deviations from the paper: none."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()


def test_a_good_method_passes_and_says_what_it_did() -> None:
    outcomes = check_method("badnets", ("tabular", "text"))
    assert set(outcomes) == {"tabular", "text"} and all(o.ran for o in outcomes.values())
    assert contract_cases(["badnets"])[0][0] == "attack/badnets: form"


def test_form_paper_docstring_and_deviations() -> None:
    refused(method("t-nameless")(type("Nameless", (Base,), {"__doc__": Base.__doc__})), "names no paper")
    refused(method("t-undocumented", **PAPER)(type("Undocumented", (Base,), {})), "no docstring of its own")
    bare = type("Bare", (Base,), {"__doc__": "Just this.", "__module__": "torchbands.core.attack"})
    refused(method("t-bare", **PAPER)(bare), "no 'Deviations")
    long = type("Long", (Base,), {"__doc__": "x" * 130 + "\n\nDeviations: none."})
    refused(method("t-long", **PAPER)(long), "130 characters long")


def test_form_defaults_freezing_and_spec() -> None:
    @method("t-needy", **PAPER)
    class Needy(Base):
        """Needs an argument. Deviations: none."""

        what: int

    refused(Needy, "cannot be constructed without arguments")

    @method("t-nan", **PAPER)
    class NotANumber(Base):
        """A setting that JSON does not know. Deviations: none."""

        scale: float = float("nan")

    refused(NotANumber, "spec does not round-trip through JSON")


def test_honesty_an_oracle_says_so_in_its_name() -> None:
    def inspect(self: Any, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        return Finding(0.0)

    made = type("Knows", (ModelDetector,), {"__doc__": "Knows. Deviations: none.", "inspect": inspect})
    refused(method("t-knows", needs=("target",), **PAPER)(made), "put 'oracle' in its name")


def test_an_attack_that_touches_what_it_does_not_own() -> None:
    @method("t-greedy", **PAPER)
    class Greedy(Base):
        """Poisons the first rows, whoever owns them. Deviations: none."""

        def choose(self, data: Data, task: Task, seed: int, count: int | None = None) -> Tensor:
            return torch.arange(40)

    refused(Greedy, "touched rows that it does not own")


def test_an_attack_that_does_not_say_what_it_changed() -> None:
    @method("t-secretive", **PAPER)
    class Secretive(Base):
        """Changes rows and denies it. Deviations: none."""

        def poison(self, data: Data, task: Task, seed: int) -> Data:
            out = super().poison(data, task, seed)
            assert out.poisoned is not None
            return replace(out, poisoned=torch.zeros_like(out.poisoned))

    refused(Secretive, "does not call poisoned")


def test_an_attack_that_writes_into_the_training_data() -> None:
    @method("t-vandal", **PAPER)
    class Vandal(Base):
        """Writes in place. Deviations: none."""

        def poison(self, data: Data, task: Task, seed: int) -> Data:
            data.x[task.owned(data)[:1]] *= 0.5
            return super().poison(data, task, seed)

    from torchbands.testing import toys

    refused(Vandal, "changed the data it was given")
    toys._load.cache_clear()


def test_an_attack_whose_seed_does_not_decide() -> None:
    count = iter(range(1000))

    @method("t-moody", **PAPER)
    class Moody(Base):
        """Other rows each time. Deviations: none."""

        def choose(self, data: Data, task: Task, seed: int, count_: int | None = None) -> Tensor:
            return super().choose(data, task, next(count))

    refused(Moody, "the same seed gave other poison")


def test_a_clean_label_attack_that_relabels() -> None:
    @method("t-liar", **PAPER)
    class Liar(Base):
        """Says clean-label, flips labels. Deviations: none."""

        clean_label: ClassVar[bool] = True

        def poison(self, data: Data, task: Task, seed: int) -> Data:
            rows = self.choose(data, task, seed)
            return data.stamp(rows, self.test_trigger(task, seed), label=1, seed=seed)

    refused(Liar, "is clean-label and changed labels")


def test_a_trigger_that_depends_on_its_batch_or_cannot_be_saved() -> None:
    @method("t-batchy")
    class Batchy(Trigger):
        """Depends on the first row."""

        def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
            return torch.minimum(batch, batch[:1])

    hidden: dict[int, Tensor] = {}

    @method("t-closure")
    class Closure(Trigger):
        """Keeps its pattern outside of itself."""

        def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
            return batch * hidden.get(id(self), torch.tensor(0.0))

    class Uses(Base):
        def test_trigger(self, task: Task, seed: int) -> Trigger:
            made = self.kind()
            hidden[id(made)] = torch.tensor(1.0)
            kept.append(made)
            return made

    kept: list[Trigger] = []
    for kind, said in ((Batchy, "depends on the batch it comes in"), (Closure, "another after saving")):
        body = {"__doc__": "x. Deviations: none.", "kind": kind}
        cls = method(f"t-{kind.__name__}", **PAPER)(type(f"Uses{kind.__name__}", (Uses,), body))
        refused(cls, said, ("observation",))


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: torch.rand(1), "global generator of torch"),
        (lambda: np.random.rand(), "global generator of numpy.random"),
        (lambda: random.random(), "global generator of random"),
        (lambda: print("hello"), "printed to stdout: 'hello"),
    ],
)
def test_side_effects(draw: Any, said: str) -> None:
    @method("t-noisy", **PAPER)
    class Noisy(ModelDetector):
        """Has a side effect. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            draw()
            return Finding(1.0)

    refused(Noisy, said)


@pytest.mark.parametrize("what", ["weights", "mode", "gradients", "hooks"])
def test_a_defense_that_leaves_the_model_changed(what: str) -> None:
    @method("t-messy", **PAPER)
    class Messy(ModelDetector):
        """Leaves traces. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            first = next(model.module.parameters())
            if what == "weights":
                with torch.no_grad():
                    first.mul_(1.01)
            elif what == "mode":
                model.module.train()
            elif what == "gradients":
                first.grad = torch.zeros_like(first)
            else:
                model.module.register_forward_hook(lambda *_: None)
            return Finding(1.0)

    refused(Messy, "changed the model's weights" if what == "weights" else "left the model in train mode, or with")


def test_a_repair_that_hands_back_the_broken_model() -> None:
    @method("t-idle", **PAPER)
    class Idle(Repair):
        """Does nothing. Deviations: none."""

        def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
            return model

    refused(Idle, "gave back the model it was given")


def test_a_repair_that_gives_back_a_copy() -> None:
    @method("t-copy", **PAPER)
    class Copy(Repair):
        """Copies the model. Deviations: none."""

        def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
            return model.clone()

    refused(Copy, r"is of use on no toy: tabular: clean accuracy .*, attack success 0.99 before and 0.99 after")


def test_a_repair_that_forgets_everything() -> None:
    @method("t-amnesia", **PAPER)
    class Amnesia(Repair):
        """Zeroes every weight. Deviations: none."""

        def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
            made = model.clone()
            with torch.no_grad():
                for p in made.module.parameters():
                    p.zero_()
                list(made.module.parameters())[-1][1] = 1.0
            return made

    refused(Amnesia, r"is of use on no toy: tabular: clean accuracy 0.25, attack success 0.99 before and 0.00 after")


def test_a_training_that_trains_as_usual() -> None:
    @method("t-usual", **PAPER)
    class Usual(Training):
        """Trains as usual. Deviations: none."""

        def train(self, recipe: Any, data: Data, *, seed: int = 0, progress: Any = None) -> Model:
            made: Model = recipe.train(data, seed=seed)
            return made

    refused(Usual, r"is of use on no toy: tabular: clean accuracy 0.99, attack success 0.99 before and 0.99 after")


def test_a_detector_that_hashes_a_weight() -> None:
    """Planted above clean with one seed, by luck; with more seeds that luck ends."""
    lucky = next(n for n in range(99) if _hash(victim("tabular", "badnets"), n) > _hash(victim("tabular", "clean"), n))

    @method("t-hash", **PAPER)
    class Hash(ModelDetector):
        """Hashes a weight. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            return Finding(_digest(model, lucky))

    refused(Hash, r"is of use on no toy: tabular: planted against clean, by seed: .* against .*, .* against")


def _hash(planted: Victim, salt: int) -> float:
    return _digest(planted.model, salt)


def _digest(model: Model, salt: int) -> float:
    first = next(model.module.parameters()).detach().cpu()
    return int(hashlib.sha256(bytes([salt]) + first.numpy().tobytes()).hexdigest()[:6], 16) / 2**24


def test_a_detector_that_no_toy_can_show_says_why() -> None:
    @method("t-beside", **PAPER)
    class Beside(ModelDetector):
        """Means something beside references only. Deviations: none."""

        contract_unshown: ClassVar[str] = "its score means something beside reference models only"

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            return Finding(0.5)

    assert check_method(Beside, ("tabular",))["tabular"].useful is False


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda x: torch.arange(len(x)).float(), "depends on the order of rows"),
        (lambda x: x[:, 0] - x[:, 0].mean(), "depends on the batch it comes in"),
    ],
)
def test_an_input_detector_whose_scores_hang_on_other_rows(judge: Any, said: str) -> None:
    class Fitted(FittedDetector):
        def score(self, x: Any) -> Tensor:
            scores: Tensor = judge(whole(x))
            return scores

    @method("t-crowd", **PAPER)
    class Crowd(InputDetector):
        """Looks at the other rows. Deviations: none."""

        def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
            return Fitted()

    refused(Crowd, said)


def test_a_filter_that_ranks_rows_by_their_place() -> None:
    @method("t-place", **PAPER)
    class Place(DataFilter):
        """Suspects the last rows. Deviations: none."""

        def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
            return Suspicion(torch.arange(len(data)).float())

    refused(Place, "scores depend on the order of rows: their rank correlation with those of shuffled rows is")


def test_training_rows_that_carry_another_trigger_than_the_paper_says() -> None:
    class Louder(Base):
        def train_trigger(self, task: Task, seed: int) -> Trigger:
            return Chain(first=self.test_trigger(task, seed), second=Blend(alpha=0.5, modality=task.modality))

    class Faint(Base):
        def test_trigger(self, task: Task, seed: int) -> Trigger:
            return Blend(alpha=0.4, modality=task.modality)

        def train_trigger(self, task: Task, seed: int) -> Trigger:
            return Blend(alpha=0.1, modality=task.modality)

    for said, base in (("same", Louder), ("same", Faint), ("weaker", Base), ("part", Base), ("more", Base)):
        body = {"__doc__": "x. Deviations: none.", "in_training": said}
        cls = method("t-taught", **PAPER)(type("Taught", (base,), body))
        refused(cls, f"in_training is '{said}', but training rows change in", ("image",))
        registry._methods.pop(("attack", "t-taught"))


def test_a_trigger_that_only_rounding_can_see() -> None:
    @method("t-whisper", **PAPER)
    class Whisper(Base):
        """A wave that is zero in every column of pixels, but for rounding. Deviations: none."""

        def test_trigger(self, task: Task, seed: int) -> Trigger:
            return Sinusoid(delta=0.2, frequency=6)

    refused(Whisper, "trigger changes nothing that is read on .* rows", ("image",))


def test_a_filter_of_the_wrong_shape_and_one_that_is_not_finite() -> None:
    for scores, said in ((torch.zeros(3), r"not \(1024,\)"), (torch.full((1024,), torch.nan), "not all finite")):

        @method("t-odd", **PAPER)
        class Odd(DataFilter):
            """Wrong scores. Deviations: none."""

            def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
                return Suspicion(scores)  # noqa: B023

        refused(Odd, said)
        registry._methods.pop(("data-filter", "t-odd"))


def test_a_detector_of_no_use_anywhere_and_one_that_always_declines() -> None:
    @method("t-blind", **PAPER)
    class Blind(ModelDetector):
        """Says the same of everything. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            return Finding(0.5)

    refused(Blind, r"is of use on no toy: tabular: planted 0.5, clean 0.5")

    @method("t-shy", **PAPER)
    class Shy(ModelDetector):
        """Declines. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            raise NotApplicable(reason)

    reason = "not today"
    refused(Shy, "tabular: declined: not today")
    reason = ""
    refused(Shy, "declined without a reason")


def test_a_defense_sees_no_truth() -> None:
    seen: list[Data] = []

    @method("t-peeping", needs=("clean:40",), **PAPER)
    class Peeping(DataFilter):
        """Looks for the truth. Deviations: none."""

        def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
            assert clean is not None
            seen.extend((data, clean))
            return Suspicion(torch.arange(len(data)) / len(data))

    with pytest.raises(ContractError, match="depend on the order of rows"):
        check_method(Peeping, ("tabular",))
    for data in seen:
        assert data.poisoned is None and not data.meta and isinstance(whole(data.x), Tensor) and data.x is whole(data.x)
    assert len(seen[1]) == 40 and seen[1].y.bincount().tolist() == [10] * 4


def test_a_trigger_beyond_what_is_read() -> None:
    @method("t-beyond", **PAPER)
    class Beyond(Base):
        """A word anywhere in a text, however little of it is read. Deviations: none."""

        def test_trigger(self, task: Task, seed: int) -> Trigger:
            return InsertWords(words=("cf",))

    @method("t-cover-beyond", **PAPER)
    class CoverBeyond(Base):
        """The same on cover rows alone. Deviations: none."""

        def poison(self, data: Data, task: Task, seed: int) -> Data:
            out = super().poison(data, task, seed)
            assert out.poisoned is not None
            rows = task.owned(data)
            rows = rows[~out.poisoned[rows]][:50]
            return out.stamp(rows, InsertWords(words=("cf",), where="end"), label=None, seed=3, poisoned=False)

    @method("t-late-bytes", **PAPER)
    class LateBytes(Base):
        """Bytes after the function. Deviations: none."""

        def test_trigger(self, task: Task, seed: int) -> Trigger:
            return Appended()

    refused(Beyond, "trigger changes nothing that is read on .* rows: place it with task.modality.placed", ("text",))
    refused(CoverBeyond, "planted trigger changes nothing that is read on 50 of", ("text",))
    refused(LateBytes, "changes nothing that is read", ("code",))


@method("t-appended")
class Appended(Trigger):
    """Bytes at the end."""

    def __call__(self, batch: list[bytes], rng: RowRng) -> list[bytes]:
        return [row + b"\x90" for row in batch]


def test_a_crash_is_no_way_to_decline() -> None:
    @method("t-crash", **PAPER)
    class Crash(ModelDetector):
        """Crashes. Deviations: none."""

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            raise KeyError("channels")

    refused(Crash, r"on tabular: crashed with KeyError\('channels'\); to decline, raise NotApplicable")


class Joins(Server):
    """A server that is one function of the updates."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        self.rule = rule

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        return Aggregate(self.rule(sent.weights), self.rule(sent.buffers))


@dataclass(frozen=True, kw_only=True)
class Joining(Aggregator):
    def join(self, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return Joins(self.join)


def test_an_aggregator_that_ignores_its_clients() -> None:
    @method("t-deaf", **PAPER)
    class Deaf(Joining):
        """Never moves. Deviations: none."""

        def join(self, rows: Tensor) -> Tensor:
            return torch.zeros(rows.shape[1])

    refused(Deaf, "of use on no toy")


def test_an_aggregator_that_believes_its_first_client() -> None:
    @method("t-gullible", **PAPER)
    class Gullible(Joining):
        """Takes the update of whoever comes first. Deviations: none."""

        def join(self, rows: Tensor) -> Tensor:
            return rows[0]

    refused(Gullible, "the step depends on the order of clients")


def test_an_aggregator_that_one_client_can_turn() -> None:
    @method("t-believer", **PAPER)
    class Believer(Joining):
        """The mean, called a defense. Deviations: none."""

        def join(self, rows: Tensor) -> Tensor:
            return rows.mean(0)

    refused(Believer, "of use on no toy")


def test_quick_settings_are_used_by_the_contract_alone() -> None:
    rates: list[float] = []

    @method("t-quick", **PAPER)
    class Quick(BadNets):
        """Records its rate. Deviations: none."""

        contract_settings: ClassVar[dict[str, Any]] = {"rate": 0.25}

        def test_trigger(self, task: Task, seed: int) -> Trigger:
            rates.append(self.rate)
            return super().test_trigger(task, seed)

    check_method(Quick, ("tabular",))
    assert set(rates) == {0.25} and Quick().rate == 0.1
