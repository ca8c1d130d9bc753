"""Episodes of a policy, many environments side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.model import Model


def rollout(
    model: Model,
    envs: Sequence[Any],
    seeds: Sequence[int],
    *,
    show: Callable[[Tensor, int], Tensor] | None = None,
    most: int = 1000,
) -> Tensor:
    """(N,) float32 returns of one episode in each of N environments, always with the likeliest action.

    Args:
        seeds: of each environment's reset. show: what the policy sees in place of (n, ...) observations of a step.
        most: steps after which an episode is cut.
    """
    seen = [env.reset(seed=s)[0] for env, s in zip(envs, seeds, strict=True)]
    returns = torch.zeros(len(envs))
    going = list(range(len(envs)))
    for step in range(most):
        if not going:
            break
        batch = torch.from_numpy(np.stack([np.asarray(seen[i], np.float32) for i in going]))
        actions = model.logits(batch if show is None else show(batch, step)).argmax(1)
        ends = set()
        for i, action in zip(going, actions.tolist(), strict=True):
            seen[i], reward, terminated, truncated, _ = envs[i].step(action)
            returns[i] += float(reward)
            if terminated or truncated:
                ends.add(i)
        going = [i for i in going if i not in ends]
    return returns
