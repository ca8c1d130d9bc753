"""DPA: parts by content, and the certificate against an attacker who tries everything."""

from __future__ import annotations

import itertools

import pytest
import torch

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.core.task import Task
from torchbands.defenses.training.partition_aggregation import (
    PartitionAggregation,
    PartitionModel,
    certificate,
    content_hash,
)


def test_certificate_against_every_change_of_votes() -> None:
    classes, voters = 3, 5
    for votes in itertools.product(range(classes), repeat=voters):
        counts = torch.bincount(torch.tensor(votes), minlength=classes)[None]
        radius, said = int(certificate(counts.float())), int(counts.argmax())
        smallest = voters + 1  # fewest changed votes that change the answer
        for changed in itertools.product(range(classes), repeat=voters):
            moved = sum(a != b for a, b in zip(votes, changed))
            if moved < smallest and int(torch.bincount(torch.tensor(changed), minlength=classes).argmax()) != said:
                smallest = moved
        assert radius == smallest - 1, (votes, radius, smallest)


def test_hash_is_of_the_content_alone() -> None:
    bytes_ = torch.randint(256, (300, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = Pixels(bytes_)
    whole = content_hash(pixels)
    assert torch.equal(whole, content_hash(bytes_.float() / 255))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(whole[order], content_hash(bytes_[order].float() / 255))
    assert len(whole.unique()) == 300 and int(whole.min()) >= 0
    counts = torch.bincount(whole % 10, minlength=10)
    assert int(counts.min()) > 10 and int(counts.max()) < 60
    words = content_hash(["a", "b", "a", b"c"])
    assert words[0] == words[2] and len(words.unique()) == 3


def test_poison_in_one_part_changes_one_vote(digits: Task) -> None:
    quick = digits.but(learner=digits.learner.but(epochs=2))
    data = quick.load("train")[torch.arange(400)]
    method = PartitionAggregation(partitions=5, stretch=1)
    test = quick.load("test").x
    honest = method.train(quick.recipe, data, seed=0)
    assert isinstance(honest, PartitionModel)
    votes = honest.logits(test)
    assert torch.equal(votes.sum(1), torch.full((len(votes),), 5.0))

    hit = content_hash(data.x) % 5 == 3  # every label of one part is turned, and rows come in another order
    turned = Data(data.x, torch.where(hit, (data.y + 1) % 10, data.y))[torch.arange(399, -1, -1)]
    attacked = method.train(quick.recipe, turned, seed=0).logits(test)
    assert not torch.equal(votes, attacked)
    assert float((votes - attacked).abs().sum(1).max()) <= 2.0
    safe = honest.certificate(test) >= 1
    assert bool(safe.any()) and torch.equal(votes.argmax(1)[safe], attacked.argmax(1)[safe])


def test_accuracy_and_certificates_on_digits(digits: Task) -> None:
    model = PartitionAggregation().train(digits.recipe, digits.load("train"), seed=0)
    assert isinstance(model, PartitionModel)
    test = digits.load("test")
    right = model.logits(test.x).argmax(1) == test.y
    assert float(right.float().mean()) > 0.9
    assert float((right & (model.certificate(test.x) >= 2)).float().mean()) > 0.7


def test_too_many_parts_says_what_to_lower(digits: Task) -> None:
    with pytest.raises(InputError, match="partitions"):
        PartitionAggregation(partitions=2000).train(digits.recipe, digits.load("train"))
