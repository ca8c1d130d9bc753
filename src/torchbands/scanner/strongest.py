"""Which class or pair stands out most in a model, and the trigger that was recovered for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.trigger import Trigger

from .calibrate import Compared
from .pairs import ByPair
from .references import VIEW_SEED
from .views import Seen


@dataclass(frozen=True)
class Strongest:
    """The trigger view that stands out most: its classes and its trigger, where it recovers one."""

    target: int | None = None
    source: int | None = None
    trigger: Trigger | None = None


def strongest(seen: Sequence[Seen], compared: Compared | None) -> Strongest:
    views = [s for s in seen if s.view.says == "trigger" and s.finding is not None]
    if not views:
        return Strongest()
    if compared is None:
        return standing_out_in(views[0], None)
    known = [s for s in views if s.view.name in compared.per_view]
    if not known:
        return standing_out_in(views[0], None)
    found = [
        standing_out_in(s, compared) for s in sorted(known, key=lambda s: -float(compared.per_view[s.view.name][-1]))
    ]
    top = found[0]
    trigger = next((f.trigger for f in found if f.target == top.target and f.trigger is not None), None)
    return Strongest(top.target, top.source, trigger)


def standing_out_in(s: Seen, compared: Compared | None) -> Strongest:
    """Which class or pair stands out, against the references where there are any."""
    finding = s.finding
    if finding is None:
        return Strongest()
    cells = None if compared is None else compared.cells.get(s.view.name)
    if finding.per_trigger is not None and finding.insertion is not None and cells is not None:
        return _small_triggers(finding.per_trigger, finding.insertion, cells)
    per = finding.per_pair if finding.per_pair is not None else finding.per_class
    if cells is None or per is None or cells.numel() != per.numel() or s.view.says != "trigger":
        return Strongest(finding.target, finding.source, finding.trigger)
    at = int(cells.nan_to_num(-torch.inf).argmax())
    if finding.per_pair is None:
        return Strongest(at, None, finding.trigger if finding.target == at else None)
    source, target = divmod(at, per.shape[1])
    # several sources that lead to one target: the trigger works from everywhere
    high = cells.view_as(per)[:, target]
    many = int((high > 0.5 * cells[at]).sum()) > max(1, int(high.isfinite().sum()) // 2)
    found = finding.target == target and (many or finding.source == source)
    return Strongest(target, None if many else source, finding.trigger if found else None)


#: Small triggers that are shown together, at most, and how near to the strongest they stand.
TOGETHER, NEAR = 3, 0.5


def _small_triggers(per: Tensor, insertion: Callable[[Sequence[int]], Trigger], cells: Tensor) -> Strongest:
    """The class, and the few triggers that stand out together, the strongest first."""
    z = cells.nan_to_num(-torch.inf).view_as(per)
    target = int(z.amax(0).argmax())
    near, at = z[:, target].topk(min(TOGETHER, len(z)))
    return Strongest(target, None, insertion(at[near > NEAR * near[0]].tolist()))


def with_trigger(at: Strongest, seen: Sequence[Seen], suspect: Model, clean: Data) -> Strongest:
    """What stands out most; the trigger of a pair is searched again where it is not the one that its view kept."""
    if at.trigger is not None or at.source is None or at.target is None:
        return at
    for s in seen:
        if s.finding is not None and isinstance(s.view.detector, ByPair):
            rows = s.view.rows(clean, VIEW_SEED)
            found = s.view.detector.trigger_of(suspect, rows, at.source, at.target, seed=VIEW_SEED)
            return replace(at, trigger=found)
    return at
