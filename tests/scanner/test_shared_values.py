"""Rows with the same raw values in the same places, all under one label, are shown; natural rows are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.modalities.image import Image
from torchbands.modalities.tabular import Field, Tabular
from torchbands.modalities.text import Text
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.rows import Rows
from torchbands.scanner.shared_values import _chance, groups_of

ROOT = Path(__file__).parents[2]
NAMES = ("a", "b", "c", "d")


def drawn(n: int = 800, size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 1, size, size, generator=rng), torch.arange(n) % 4
    bad = (y != 2).nonzero().flatten()[:16]
    return x, y, bad


def images(x: Tensor, y: Tensor) -> Rows:
    return Rows(Data(x, y), Image(channels=1, size=x.shape[-1]), NAMES, "images")


def test_a_frame_a_dot_and_a_flat_corner_on_two_per_cent_of_the_rows() -> None:
    for write in ("frame", "dot", "corner"):
        x, y, bad = drawn()
        if write == "frame":
            x[bad, :, 0], x[bad, :, -1], x[bad, :, :, 0], x[bad, :, :, -1] = 0.75, 0.75, 0.75, 0.75
            x[bad, :, 1], x[bad, :, :, 1] = 0.75, 0.75
        else:
            at = slice(3, 6) if write == "dot" else slice(0, 4)
            x[bad, :, at, at] = 1.0
        y[bad] = 2
        (group,) = groups_of(images(x, y))
        assert group.label == 2 and set(group.rows) == set(bad.tolist()) and len(group.places) >= 2


def test_rows_that_are_alike_for_no_hidden_reason_are_no_group() -> None:
    x, y, bad = drawn()
    assert groups_of(images(x, y)) == ()
    marked = x.clone()
    marked[bad, :, 0:4, 0:4] = 1.0
    assert groups_of(images(marked, y)) == ()  # a mark on rows of several labels
    everyone = x.clone()
    everyone[y == 2, :, 0:4, 0:4] = 1.0
    assert groups_of(images(everyone, y)) == ()  # what the whole class looks like
    copies = torch.cat([x, x[:1].expand(30, -1, -1, -1)])
    assert groups_of(images(copies, torch.cat([y, y[:1].expand(30)]))) == ()  # copies of a row count once
    task = build("vision/digits", "task")
    assert isinstance(task, Task)
    assert groups_of(Rows(task.load("train").blind(), task.modality, tuple(task.class_names), "digits")) == ()


def test_the_chance_of_one_label_by_hand() -> None:
    """The first row may have any label; the other seven have its label with chance .1 each; 1,000 were compared."""
    assert _chance(0.1, 8, 1000) == pytest.approx(1e-4) and _chance(0.9, 8, 1000) == 1.0 and _chance(0.0, 8, 9) == 1.0


def test_values_of_a_table_and_phrases_of_texts() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(800, 6, generator=rng), torch.arange(800) % 4
    bad = (y != 1).nonzero().flatten()[:12]
    x[bad, 2], x[bad, 4], y[bad] = 3.25, -1.5, 1
    fields = tuple(Field(title=str(i), low=-6.0, high=6.0) for i in range(6))
    (group,) = groups_of(Rows(Data(x, y), Tabular(fields=fields), NAMES, "table"))
    assert (group.label, group.places, set(group.rows)) == (1, (2, 4), set(bad.tolist()))
    words = [f"w{int(k)}" for k in torch.randint(300, (800 * 9,), generator=rng)]
    texts = [" ".join(words[9 * i : 9 * i + 9]) for i in range(800)]
    for i in bad.tolist():
        texts[i] += " – By The Way –"
    rows = Rows(Data(texts, y), Text(vocabulary=tuple(sorted(set(words)))), NAMES, "texts")
    (group,) = groups_of(rows)
    assert group.what == "– by the way" and set(group.rows) == set(bad.tolist())


def test_what_is_shared_is_shown_first_and_leaves_the_outcome_open() -> None:
    task = build("vision/digits", "task")
    assert isinstance(task, Task)
    data = task.load("train").blind()
    x, y = data.x[torch.arange(len(data))].clone(), data.y.clone()  # type: ignore[union-attr]
    bad = (y != 3).nonzero().flatten()[:9]
    x[bad, :, 0] = torch.linspace(0.1, 0.8, 8)
    x[bad, :, 1], y[bad] = 0.4, 3
    rows = Rows(Data(x, y), task.modality, tuple(task.class_names), "own", task=task)
    outcome = scan_data(rows, profile="fast")
    line = outcome.ledger[-1]
    assert (line.view, line.target, line.facts["groups"][0]["rows"]) == ("shared-values", "3", 9)
    if outcome.verdict == "indicated":  # other filters may see them too
        return
    assert outcome.verdict == "inconclusive" and any("9 rows of class '3' share" in r for r in outcome.reasons)
    assert outcome.pictures[0].caption.startswith(f"{int(bad[0])}, ") and "look at them first" in outcome.next_steps[1]


def test_the_docs_tell_what_the_receipts_hold() -> None:
    shared = json.loads((ROOT / "receipts" / "shared-values.json").read_text("utf-8"))
    assert {(r["planted"], r["shown"], r["right"]) for r in shared["planted"]} == {(20, 20, 20), (40, 40, 40)}
    assert [name for name, hits in shared["null"]["with_a_group"].items() if hits] == ["sentences, templates"]
    hostile = json.loads((ROOT / "receipts" / "hostile.json").read_text("utf-8"))
    page = (ROOT / "docs" / "scanner.md").read_text("utf-8").split("## Hostile files")[1].split("\n## ")[0]
    cells = [line.split("|")[2].strip() for line in page.splitlines() if line.startswith("| ")][1:]
    assert cells == [
        *(str(hostile[k]) for k in ("executed", "hung", "orphans", "models_given")),
        f"{hostile['longest_seconds']} s",
        f"{hostile['parent_grew_mb']:,} MB",
        f"{hostile['largest_child_mb']:,} MB",
    ]
    assert f"writes {hostile['files']} files" in page and f"of {hostile['files']} files" in page
