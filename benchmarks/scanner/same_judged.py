"""What the same-trigger comparison adds to the ledger, on a whole population."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchbands.scanner.views import white_box

from .same_trigger import SEARCH, pools
from .tables import ALPHAS, Scores, Zoo, auroc_of, gain, rate, scores

NEW = "same-trigger"


def same_trigger(zoo: Zoo, store: Path, name: str, out: Path) -> dict[str, Any] | None:
    """Alone, and added to the views of `full`; before, and after. None where no trigger was shown."""
    found = pools(store, name, out, zoo.references, [s.id for s in zoo.suspects])
    if not found:
        return None
    views = white_box("full", tokens=zoo.references.modality.discrete)
    trigger = [v for v in views if v.says == "trigger"]
    every = [v for v in views if v.says != "evidence"]

    def only(*names: str) -> dict[str, dict[str, Any]]:
        return {i: {n: mine[n] for n in names} for i, mine in found.items()}

    rows: dict[str, Scores] = {
        NEW: scores(zoo, [], more=only(NEW)),
        "size of the same triggers": scores(zoo, [], more=only("size of the same triggers")),
        "p_trigger": scores(zoo, trigger, more=only()),
        f"p_trigger with {NEW}": scores(zoo, trigger, more=only(NEW)),
        "everything": scores(zoo, every, more=only()),
        f"everything with {NEW}": scores(zoo, every, more=only(NEW)),
    }
    bad = [s for s in zoo.group(lambda g: g in zoo.families) if s.id in found]
    good = [s for s in zoo.fresh if s.id in found]
    foreign = sorted({s.group for s in zoo.suspects if s.group.startswith("foreign:")})
    return {
        "methods": {f"{SEARCH.role}/{SEARCH.name}": SEARCH.version},
        "search": SEARCH.spec(),
        "rows": {
            row: {
                "all": auroc_of(told, bad, good),
                "families": {f: auroc_of(told, [s for s in bad if s.group == f], good) for f in zoo.families},
                "power": {str(a): rate(told, bad, a) for a in ALPHAS},
                "false_alarms": {str(a): rate(told, good, a) for a in ALPHAS},
                "foreign": {g: rate(told, zoo.group(lambda x, g=g: x == g), 0.05) for g in foreign},
            }
            for row, told in rows.items()
        },
        "gain": {row: gain(rows[f"{row} with {NEW}"], rows[row], bad, good) for row in ("p_trigger", "everything")}
        | {f"{NEW} over size": gain(rows[NEW], rows["size of the same triggers"], bad, good)},
    }
