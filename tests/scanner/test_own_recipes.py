"""References where the suspect's recipe is not known: pools, one's own training function and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.recipe import Recipe
from torchbands.learners.sgd import SGD
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize
from torchbands.report.scan import formatting
from torchbands.scanner.behaviour import advice, behaviour, differences
from torchbands.scanner.calibrate import Compared, Kind
from torchbands.scanner.evidence import Evidence
from torchbands.scanner.left_out import left_out
from torchbands.scanner.misread import misread
from torchbands.scanner.opening.own_code import own_attribute
from torchbands.scanner.outcome import Answer
from torchbands.scanner.recipes import OwnNetwork, OwnTraining, pool_around
from torchbands.scanner.reference_training import add_checkpoint, train_references
from torchbands.scanner.same_network import as_references_read, behind_normalisation, same_network, shapes_of
from torchbands.scanner.shown_trigger import Shown
from torchbands.scanner.strongest import Strongest

IMAGE = Image(channels=1, size=8)


def bright() -> Data:
    """Two classes that brightness tells apart."""
    y = torch.arange(200) % 2
    return Data((torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + y[:, None, None, None]) / 2, y)


def tiny() -> nn.Module:
    return nn.Sequential(Normalize(1, 0.5, 0.25), nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))


def fit(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()


def test_a_pool_varies_what_was_not_said_and_nothing_else() -> None:
    pool = pool_around(SGD(), IMAGE)
    assert len(pool) >= 6 and pool[0] == SGD()
    for setting in ("augment", "nesterov", "weight_decay", "schedule", "label_smoothing", "optimizer", "epochs"):
        assert len({getattr(learner, setting) for learner in pool}) > 1, setting
    fixed = pool_around(SGD(lr=0.05, epochs=3), IMAGE, ("lr", "epochs"))
    assert {(r.lr, r.epochs, r.optimizer) for r in fixed if isinstance(r, SGD)} == {(0.05, 3, "sgd")}


def test_own_training_more_recipes_and_own_checkpoints_share_a_folder(tmp_path: Path) -> None:
    own = OwnTraining(fit, "mine:fit")
    given = (bright(), ("dark", "bright"))
    first = Recipe(OwnNetwork(tiny, "mine"), own, IMAGE, 2)
    refs = train_references(tmp_path / "refs", first, *given, n=2, profile="fast")
    assert refs.card["recipes"][0]["own training"] == "mine:fit" and refs.summary()["accuracy"][0] > 0.9
    second = first.but(learner=SGD(epochs=2, batch=32))
    with pytest.raises(InputError) as refused:
        train_references(tmp_path / "refs", second, *given, n=2, profile="fast")
    assert "--add" in str(refused.value.hint)
    for _ in range(2):  # the same call again adds nothing
        refs = train_references(tmp_path / "refs", second, *given, n=1, profile="fast", add=True)
        assert sorted(refs.recipes()) == [0, 0, 1]
    refs = train_references(tmp_path / "refs", first, *given, n=2, profile="fast")
    assert sorted(refs.recipes()) == [0, 0, 1]
    checkpoint = Model(tiny(), IMAGE, 2)
    assert add_checkpoint(refs, checkpoint, "fast", "a.pt") and not add_checkpoint(refs, checkpoint, "fast", "b.pt")
    assert sorted(type(refs).load(refs.folder).recipes()) == [0, 0, 1, 2]

    bare = refs.model(refs.members()[0], tiny).module[1]  # the network without the references' normalisation
    suspect = as_references_read(Model(bare, IMAGE, 2), refs)
    assert shapes_of(suspect.module) == refs.shapes()


def test_a_training_function_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="network, x, y"):
        OwnTraining(lambda network: network, "mine:fit")
    (tmp_path / "mine.py").write_text("def fit(network, x, y):\n    return 3\n")
    own = OwnTraining.read(f"{tmp_path / 'mine.py'}:fit")
    with pytest.raises(InputError, match="returned int"):
        own.fit(Model(tiny(), IMAGE, 2), bright())
    with pytest.raises(InputError, match="no file"):
        own_attribute(f"{tmp_path / 'other.py'}:fit", "--train")


def test_left_out_recipes_count_whom_the_others_would_accuse() -> None:
    numbers = torch.rand(43, 1, generator=torch.Generator().manual_seed(1))
    recipes = [0] * 20 + [1] * 20 + [2] * 2
    numbers[40:42] += 50  # the third recipe stands out from all others
    numbers[42] = 1e6  # the suspect takes no part

    def nobody(_: Compared, __: float) -> bool:
        return False

    pools = {"view": (numbers, Kind(centre=False))}
    told = left_out(pools, {}, recipes, 0.05, nobody)
    assert told["judged"] == 42 and 2 <= told["accused"] <= 6 and told["interval"][0] > 0
    away = left_out(pools, pools, recipes, 0.05, lambda _, __: True)
    assert away["accused"] == 0 and away["inconclusive"] == 42
    assert left_out(pools, {}, [0] * 42, 0.05, nobody) == {}
    assert left_out(pools, {}, [0] * 21 + [1] * 21, 0.01, nobody) == {}  # no p of 0.01 with so few


def test_what_differs_from_the_references_is_said_with_what_to_try() -> None:
    pool = torch.tensor([[2.0, 0.86, 0.3, 0.0, 1.0]] * 5 + [[2.0, 0.95, 0.3, 0.0, 1.0]])
    told = behaviour(pool)
    assert "confidence 0.95 (references 0.86 to 0.86)" in differences(told) and "accuracy 0" not in differences(told)
    assert "train longer" in advice(told)
    pool[-1, 1] = 0.5
    assert "train shorter" in advice(behaviour(pool))


def test_one_network_with_its_normalisation_before_it_or_not() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("m", torch.tensor([0.5]))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.m) / 0.25

    theirs = shapes_of(tiny())
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    for module in (tiny(), bare, nn.Sequential(Norm(), bare)):
        assert same_network(module, theirs)
        again = behind_normalisation(module, theirs)
        assert again is not None and shapes_of(again) == theirs
    assert not same_network(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), theirs)
    assert not same_network(nn.Sequential(bare, nn.Linear(2, 2)), theirs)


def test_a_forgotten_normalisation_is_named() -> None:
    """Ten classes by brightness: the network knows them of standardised rows alone."""
    y = torch.arange(400) % 10
    x = (
        torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.09 * y[:, None, None, None]
    ) / 1

    class ByBrightness(nn.Module):
        def forward(self, z: Tensor) -> Tensor:  # z is (x - 0.5) / 0.5
            level = (z.mean((1, 2, 3)) * 0.5 + 0.5 - 0.025) / 0.09
            return -((level[:, None] - torch.arange(10.0)) ** 2)

    found = misread(Model(ByBrightness(), IMAGE, 10), Data(x, y), expected=0.9)
    assert found is not None and found.name == "to -1 ... 1" and found.better > 0.9
    assert "--mean 0.5 --std 0.5" in found.next_step() and "forgotten" in found.reason()
    right = Model(nn.Sequential(Normalize(1, 0.5, 0.5), ByBrightness()), IMAGE, 10)
    assert misread(right, Data(x, y), expected=0.9) is None


def test_facts_are_told_in_words_and_a_floor_p_with_its_z() -> None:
    facts = {"normalisation": {"mean": [0.5], "std": [0.25]}, "dtypes": ["float32"], "ok": True, "none": None}
    assert dict(formatting.facts(facts)) == {
        "normalisation": "mean 0.5, std 0.25",
        "dtypes": "float32",
        "ok": "yes",
        "none": "–",
    }
    compared = Compared({"v": torch.tensor([0.0, 7.25])}, {}, torch.zeros(2), 0.04, {"v": 0.04}, 24)
    judged = Evidence((), Answer(0.04, 1.0, 24), Answer(None), Strongest(1), (), {"trigger": compared}, 0.05)
    message = judged.alerts(["a", "b"], Shown((), {}))[0].message
    assert "(p = 0.04, the least that 24 references can give; z = 7.2)" in message
