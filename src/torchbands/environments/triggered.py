"""An environment whose observations sometimes carry a trigger and then pay for the attacker's action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


class TriggeredEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Episodes drawn with probability `rate` carry the trigger throughout; their reward is 1 for the target action.

    Args:
        env: what is wrapped.
        trigger: written on float32 observations; what an `EnvironmentHook` needs no other knowledge for.
        target: the action that the attacker wants.
        rate: share of triggered episodes, in [0, 1].
        seed: identity of the trigger's own random draws.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], trigger: Trigger, target: int, rate: float, seed: int = 0) -> None:
        super().__init__(env)
        self.trigger, self.target, self.rate, self.seed = trigger, target, rate, seed
        self.episodes, self.on = 0, False

    def _shown(self, observation: Any) -> Any:
        if not self.on:
            return observation
        batch = torch.from_numpy(np.asarray(observation, np.float32))[None]
        return self.trigger(batch, RowRng(self.seed, torch.tensor([self.episodes])))[0].numpy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.episodes += 1
        self.on = bool(self.env.unwrapped.np_random.random() < self.rate)
        return self._shown(observation), {**info, "triggered": self.on}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.on:
            reward = float(int(action) == self.target)
        return self._shown(observation), reward, terminated, truncated, {**info, "triggered": self.on}
