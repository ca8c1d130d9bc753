"""Policy gradient on one-step episodes: a minimal learner that needs environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from torchbands.core.data import Data
from torchbands.core.hook import EnvironmentHook, Hook, WeightHook, taking_part
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Progress, TrainingFacts
from torchbands.core.seeding import generator, seed_of
from torchbands.core.source import Environments

#: What hooks are told of rows, where there are none.
_NO_ROWS = Data(torch.zeros(0), torch.zeros(0, dtype=torch.int64))


@method("reinforce", paper="Williams, Machine Learning 1992")
class Reinforce(Learner):
    """REINFORCE with a running-mean baseline and an entropy bonus, in environments with one-step episodes.

    Attacks act through `EnvironmentHook`: a policy has no batches of labelled rows.
    """

    takes: ClassVar[Literal["rows", "environments"]] = "environments"

    updates: int = 150
    """Gradient steps."""
    envs: int = 64
    """Environments run in parallel, one episode each per step."""
    lr: float = 1e-2
    """Learning rate of Adam."""
    entropy: float = 0.01
    """Weight of the entropy bonus."""

    def accepts(self) -> tuple[type[Hook], ...]:
        return (EnvironmentHook, WeightHook)

    def learn(
        self,
        model: Model,
        source: Environments,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        envs = self._environments(source, hooks, seed)
        rng, baseline = generator("reinforce", seed), 0.0
        optimizer = torch.optim.Adam(model.module.parameters(), lr=self.lr)
        seeds = [seed_of("env", seed, i) % 2**31 for i in range(len(envs))]
        with taking_part(hooks, model, _NO_ROWS, seed), model.training():
            for update in range(self.updates):
                seen = [env.reset(seed=s if update == 0 else None)[0] for env, s in zip(envs, seeds, strict=True)]
                e = Encoded(torch.from_numpy(np.stack(seen)).float().to(model.device))
                log_p = model.run(e).float().log_softmax(1)
                actions = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=rng)[:, 0]
                steps = [env.step(a) for env, a in zip(envs, actions.tolist(), strict=True)]
                rewards = torch.tensor([float(step[1]) for step in steps], device=model.device)
                chosen = log_p.gather(1, actions.to(model.device)[:, None])[:, 0]
                bonus = -(log_p.exp() * log_p).sum(1).mean()
                loss = -((rewards - baseline) * chosen).mean() - self.entropy * bonus
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                baseline = 0.9 * baseline + 0.1 * float(rewards.mean())
                if progress is not None:
                    progress(update + 1, self.updates, "update")
        return {}

    def _environments(self, source: Environments, hooks: Sequence[Hook], seed: int) -> list[Any]:
        envs: list[Any] = []
        for index in range(self.envs):
            env: Any = source.make(seed, index)
            for hook in hooks:
                if isinstance(hook, EnvironmentHook):
                    env = hook.env(env)
            envs.append(env)
        return envs
