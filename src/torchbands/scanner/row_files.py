"""The files of a data scan: every row's scores, and the index of the rows that no finding names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from torchbands.core.defense import Suspicion
from torchbands.core.words import csv_cell
from torchbands.zoo.files import sweep, write_text

from .ranking import Ranking
from .rows import Rows


def write_index(folder: Path, rows: Rows, found: Mapping[str, Suspicion], ranking: Ranking) -> None:
    """Write scores.csv (id, label, one column per filter, combined, p, flagged, dropped; worst first), cleaned.csv (id,
    label) and cleaned.txt (ids, one a line; in the data's order). Dropped is what a finding names; where nothing was
    found, nothing is. Cells are escaped, and none is a formula."""
    labels = [rows.class_names[i] for i in rows.data.y.tolist()]
    columns = [s.scores.tolist() for s in found.values()]
    combined, p = ranking.combined.tolist(), ranking.p.tolist()
    flagged, dropped = ranking.flagged.tolist(), ranking.named.tolist()
    scores = [["id", "label", *found, "combined", "p", "flagged", "dropped"]]
    for i in ranking.combined.argsort(descending=True, stable=True).tolist():
        cells = [f"{column[i]:.6g}" for column in columns]
        last = (f"{combined[i]:.6g}", f"{p[i]:.6g}", str(int(flagged[i])), str(int(dropped[i])))
        scores.append([rows.ids[i], labels[i], *cells, *last])
    kept = [(rows.ids[i], labels[i]) for i in range(len(rows)) if not dropped[i]]
    _write(folder / "scores.csv", _csv(scores))
    _write(folder / "cleaned.csv", _csv([["id", "label"], *map(list, kept)]))
    _write(folder / "cleaned.txt", "".join(f"{name}\n" for name, _ in kept))


def _csv(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in line] for line in lines)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    sweep(path.parent, path.name)
    write_text(path, text)
