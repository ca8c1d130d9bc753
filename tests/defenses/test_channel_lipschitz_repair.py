"""CLP as a repair: the unit that amplifies far more than its layer goes, and no other."""

from __future__ import annotations

import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.defenses.repair.channel_lipschitz import ChannelLipschitz


def test_takes_out_the_unit_that_was_amplified(untouched: Victim, clean: Data) -> None:
    model = untouched.model.clone()
    with torch.no_grad():
        model.module.get_submodule("norms.1").weight[7] *= 40  # type: ignore[union-attr, operator, index]
    repaired = ChannelLipschitz().repair(model, clean).module.get_submodule("norms.1")
    gone = (repaired.weight == 0) & (repaired.bias == 0)  # type: ignore[operator]
    assert gone.nonzero().flatten().tolist() == [7]


def test_needs_no_data_and_prunes_more_at_a_lower_u(untouched: Victim, clean: Data) -> None:
    assert ChannelLipschitz.clean_needed() == 0
    none = clean[torch.arange(0)]

    def gone(u: float) -> int:
        repaired = ChannelLipschitz(u=u).repair(untouched.model, none)
        return sum(int((p == 0).sum()) for name, p in repaired.module.named_parameters() if "norms" in name)

    assert gone(100.0) == 0 and gone(0.5) > gone(1.5) >= 0
