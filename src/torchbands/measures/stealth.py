"""How well an attack is hidden, on three axes: in the input, in the features, in the parameters.

PSNR means nothing for text and word counts mean nothing for images, so each axis also gets one number that can be
compared between domains: stealth = 2 (1 - max(.5, AUC)) of a fixed, cheap detector. 1 is hidden from it, 0 is obvious.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.metric import Undefined, Value
from torchbands.core.model import Model

from .effectiveness import auroc
from .lipschitz import channel_lipschitz, z_scores
from .text_stealth import text_axis

#: Rows of each kind that the detectors are fitted and judged on.
ROWS = 500
FOLDS = 5


def measure(victim: Victim, control: Victim | None) -> dict[str, dict[str, Value]]:
    """The three axes of a victim; `control` is the never-poisoned victim of the same task and seed."""
    test, goal = victim.judged[0], victim.goal
    eligible = (goal.counts(test) & victim.attack.writable(test, victim.task, victim.seed)).nonzero().flatten()
    if len(eligible) < 2 * FOLDS:
        none = Undefined(f"only {len(eligible)} rows can be triggered")
        return {axis: {"stealth": none} for axis in ("input", "feature", "parameter")}
    order = eligible[torch.randperm(len(eligible), generator=torch.Generator().manual_seed(victim.seed))]
    half = min(ROWS, len(order) // 2)
    before, after = test[order[:half]], victim.stamped(test[order[:half]])
    others = test[order[half : 2 * half]]
    target = test[(test.y == (-1 if goal.single is None else goal.single)).nonzero().flatten()[:ROWS]]
    return {
        "input": input_axis(victim.model, before, after, others) | text_axis(victim, before, after),
        "feature": {"stealth": Undefined("there is no single target class")}
        if goal.single is None
        else feature_axis(victim.model, target, after),
        "parameter": parameter_axis(victim.model, None if control is None else control.model),
    }


def input_axis(model: Model, before: Data, after: Data, others: Data) -> dict[str, Value]:
    """Mean distances of paired rows, and stealth against a linear probe on raw inputs that sees no row twice.

    Args:
        before, after: the same rows without and with the trigger.
        others: untouched rows that the probe tells the triggered ones from.
    """
    out: dict[str, Value] = {}
    for name, distance in model.modality.distance(before.x, after.x).items():
        finite = distance[torch.isfinite(distance)]
        out[name] = float(finite.mean()) if len(finite) else Undefined("no row was changed")
    return out | _stealth(_flat(model, others), _flat(model, after))


def feature_axis(model: Model, target: Data, after: Data) -> dict[str, Value]:
    """Clean rows of the target class against triggered rows, in penultimate features: probe AUROC and silhouette."""
    try:
        clean, bad = model.features(target.x), model.features(after.x)
    except NotApplicable as declined:
        return {"stealth": Undefined(declined.reason)}
    if len(clean) < FOLDS:
        return {"stealth": Undefined(f"only {len(clean)} rows of the target class")}
    labels = np.repeat([0, 1], [len(clean), len(bad)])
    both = torch.cat([clean, bad]).numpy()
    apart: Value = Undefined("all features are alike")
    if np.ptp(both, axis=0).any():
        apart = float(silhouette_score(both, labels))
    return {"silhouette": apart} | _stealth(clean, bad)


def parameter_axis(model: Model, control: Model | None) -> dict[str, Value]:
    """Distance to the never-poisoned sibling of the same initialisation, and the largest channel-Lipschitz z.

    Stealth here is undefined for one model: telling it needs a population, which the model detectors are judged on.
    """
    alone = Undefined("one model alone has no AUC; see the model detectors on a population")
    out: dict[str, Value] = {"stealth": alone}
    bounds = [z for z in map(z_scores, channel_lipschitz(model).values()) if len(z)]
    out["lipschitz_z"] = (
        max(float(z.max()) for z in bounds) if bounds else Undefined("no units with weights were found")
    )
    if control is None:
        return out | {"weight_distance": Undefined("no never-poisoned control was given")}
    mine, theirs = _weights(model.module.state_dict()), _weights(control.module.state_dict())
    if mine.shape != theirs.shape:
        return out | {"weight_distance": Undefined("the control has another architecture")}
    return out | {"weight_distance": float((mine - theirs).norm() / theirs.norm().clamp_min(1e-12))}


def probe_auroc(normal: Tensor, other: Tensor) -> Value:
    """5-fold cross-validated AUROC of a logistic regression on standardised columns (at least 5 rows of each kind)."""
    x = torch.cat([normal, other]).numpy()
    y = np.repeat([0, 1], [len(normal), len(other)])
    scores = np.zeros(len(y))
    for fit, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        scores[judge] = probe.fit(x[fit], y[fit]).decision_function(x[judge])
    return auroc(torch.from_numpy(scores[y == 1]), torch.from_numpy(scores[y == 0]))


def _stealth(normal: Tensor, other: Tensor) -> dict[str, Value]:
    value = probe_auroc(normal, other)
    hidden: Value = value if isinstance(value, Undefined) else 2 * (1 - max(0.5, value))
    return {"probe_auroc": value, "stealth": hidden}


def _flat(model: Model, data: Data) -> Tensor:
    """(N, D) raw inputs; token counts for token modalities."""
    e = model.modality.encode(data.x)
    if not model.modality.discrete:
        return e.values.flatten(1).float()
    size = int(e.values.max()) + 1 if not model.traced.embedding else model.embedding.num_embeddings
    counts = torch.zeros(len(e.values), size)
    real = torch.ones_like(e.values, dtype=torch.float32) if e.mask is None else e.mask.float()
    return counts.scatter_add_(1, e.values, real)


def _weights(state: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([t.detach().float().flatten().cpu() for k, t in sorted(state.items()) if t.is_floating_point()])
