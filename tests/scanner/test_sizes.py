"""Trigger sizes for the figure of a report, and words marked in a row."""

from __future__ import annotations

import math

import pytest
import torch

from torchbands.scanner.highlight import marked
from torchbands.scanner.sizes import CLASSES, DOTS, sizes_of


def test_sizes_by_class_the_smallest_beside_its_references_first() -> None:
    pool = -torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 4], [1, 0.5, torch.nan]]).log()
    told = sizes_of({"target-inversion": pool, "input-margin": pool}, ["a", "b", "c"], 1)
    assert (told["view"], told["classes"], told["left_out"]) == ("target-inversion", ["b", "a", "c"], 0)
    assert told["suspect"] == [pytest.approx(0.5), pytest.approx(1.0), None]
    assert told["references"] == [[2, 2, 2], [1, 1, 1], [3, 3, 4]]


def test_pairs_count_by_the_source_that_is_led_most_cheaply() -> None:
    pool = torch.full((3, 2, 2), torch.nan)
    pool[:, 0, 1], pool[:, 1, 0] = -math.log(5), -math.log(7)
    told = sizes_of({"pairwise-inversion": pool}, ["a", "b"], None)
    assert dict(zip(told["classes"], told["suspect"])) == {"a": pytest.approx(7), "b": pytest.approx(5)}


def test_many_classes_and_references_are_thinned_and_nothing_is_made_up() -> None:
    pool = torch.zeros(201, 300)
    pool[:-1] = torch.arange(200)[:, None] / 100
    told = sizes_of({"universal-perturbation": pool}, [str(k) for k in range(300)], 299)
    assert len(told["classes"]) == CLASSES and told["classes"][-1] == "299" and told["left_out"] == 300 - CLASSES
    assert all(len(row) == DOTS and row[-1] == 1.0 for row in told["references"])
    assert sizes_of({}, ["a"], None) == sizes_of({"input-margin": pool}, ["a"], None) == {}
    assert sizes_of({"target-inversion": pool}, ["a", "b"], None) == {}
    assert sizes_of({"target-inversion": torch.full((5, 2), torch.nan)}, ["a", "b"], None) == {}


def test_words_are_marked_and_tags_are_left_alone() -> None:
    drawn = '<q class="sample">A cf film &amp; Cf scf.</q>'
    assert marked(drawn, ["cf"]) == '<q class="sample">A <mark>cf</mark> film &amp; <mark>Cf</mark> scf.</q>'
    assert marked(drawn, []) == marked(drawn, ["", "##", "sample"]) == drawn
    assert marked("<q>a & b &amp; c</q>", ["&"]).count("<mark>") == 1
    assert marked("<q>&lt;b&gt; lt</q>", ["<b>", "lt"]) == "<q><mark>&lt;b&gt;</mark> <mark>lt</mark></q>"
    assert marked("<q>slowly</q>", ["##ly"]) == "<q>slow<mark>ly</mark></q>"
    assert marked("<q>no one</q>", ["Ġno"]) == "<q><mark>no</mark> one</q>"
