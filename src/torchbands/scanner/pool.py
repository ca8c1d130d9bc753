"""The pool behind a p-value: the numbers of references and suspect, measured in the same way in the same cells."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.core.seeding import seeded

from .attempt import Attempt, Failures
from .pairs import ByPair, ask, forward_of, nothing_asked, pooled
from .references import VIEW_SEED, ReferenceSet
from .same_network import behind_normalisation, shapes_of
from .view_cache import How
from .views import Seen

Fresh = Callable[[], nn.Module]


def pools_of(
    reference_set: ReferenceSet, suspect: Model, seen: Sequence[Seen], progress: Progress | None = None
) -> tuple[tuple[Seen, ...], Mapping[str, Tensor], Failures]:
    """What was seen of the suspect, with answers about the references' pairs; view -> (n + 1, ...) numbers, the
    suspect's last; what failed on references. A view that no reference was looked at with is not there.

    References that a view has not looked at yet on the suspect's kind of device are looked at now, where their
    architecture is known.
    """
    how, fresh = How.of(suspect), cache(lambda: rebuilt(reference_set, suspect))
    mine, failures = [s.view for s in seen if s.finding is not None], Failures()
    if not reference_set.has(mine, how) and (build := fresh()) is not None:
        failures.add(reference_set.complete(build, mine, progress, how))
    out, pools = [], dict[str, Tensor]()
    for s in seen:
        own, tables = s.numbers(), reference_set.pairs(s.view, how)
        if own is not None and tables is not None and tables[0].shape[1:] == own.shape:
            s, pool = _of_pairs(reference_set, suspect, s, tables[0], fresh, progress, failures)
            if pool is not None:
                pools[s.view.name] = pool
        elif (theirs := reference_set.numbers(s.view, how)) is not None and (
            own is None or theirs.shape[1:] == own.shape
        ):
            last = torch.full_like(theirs[0], torch.nan) if own is None else own
            pools[s.view.name] = torch.cat([theirs, last[None]])
        out.append(s)
    return tuple(out), pools, failures


def _of_pairs(
    reference_set: ReferenceSet,
    suspect: Model,
    s: Seen,
    theirs: Tensor,
    fresh: Callable[[], Fresh | None],
    progress: Progress | None,
    failures: Failures,
) -> tuple[Seen, Tensor | None]:
    """Every model is asked about what any other puts forward. No pool where the suspect could not be asked."""
    own, how, detector = s.numbers(), How.of(suspect), s.view.detector
    assert own is not None and isinstance(detector, ByPair)
    wanted = forward_of(torch.cat([theirs, own[None]]))
    started, passes = time.perf_counter(), suspect.passes.forward
    rows = s.view.rows(reference_set.clean, VIEW_SEED)
    asked = None
    with Attempt() as tried:
        asked = ask(detector, suspect, rows, own, nothing_asked(own), wanted, seed=VIEW_SEED)
    s = replace(
        s,
        asked=asked,
        seconds=s.seconds + time.perf_counter() - started,
        passes=s.passes + suspect.passes.forward - passes,
    )
    if asked is None:
        return replace(s, finding=None, reason=tried.reason, failed=tried.failed), None
    if reference_set.unasked(s.view, wanted, how) and (build := fresh()) is not None:
        failures.add(reference_set.ask(build, s.view, wanted, progress, how))
    tables = reference_set.pairs(s.view, how)
    assert tables is not None
    both = (torch.cat([table, mine[None]]) for table, mine in zip(tables, (own, asked), strict=True))
    return s, pooled(*both)


def rebuilt(reference_set: ReferenceSet, suspect: Model) -> Fresh | None:
    """What builds the references' architecture: the network that their card names or, where it names none, the
    suspect's own module, which might do more than its weights say."""
    fresh, shapes = reference_set.fresh(), reference_set.shapes()
    with seeded("reference"):
        if fresh is not None and shapes_of(fresh()) == shapes:
            return fresh
    given = behind_normalisation(suspect.module, shapes) if shapes and "weights" in suspect.capabilities else None
    return None if given is None else lambda: copy.deepcopy(given)
