"""A contextual bandit over recorded observations: one step per episode, reward 1 for the best action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from torchbands.core.data import Data


class Bandit(gymnasium.Env[Any, Any]):
    """Draws a row of data as the observation; its label is the best action.

    Args:
        data: float32 observations (N, ...) with best actions as labels.
        actions: number of actions.
    """

    def __init__(self, data: Data, actions: int) -> None:
        first = data[:1].x
        self.data = data
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, tuple(first.shape[1:]), np.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)
        self._observations, self._best = data[:].x.numpy(), data.y.numpy()
        self._row = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._row = int(self.np_random.integers(len(self._best)))
        return self._observations[self._row].copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(int(action) == int(self._best[self._row]))
        return self._observations[self._row].copy(), reward, True, False, {}
