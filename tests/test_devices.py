"""Which device is used; recurrent networks are run so that their gradients exist; CUDA's flags."""

from __future__ import annotations

import pytest
import torch

from torchbands.core import devices
from torchbands.core.devices import default_device, deterministic, without_cudnn
from torchbands.core.errors import InputError
from torchbands.networks.gru import GRUNetwork
from torchbands.testing.toys import toy


def test_recurrent_layers_are_run_without_cudnn_where_gradients_are_taken_in_eval_mode() -> None:
    task = toy("text").but(network=GRUNetwork(dim=8, width=8))
    x = task.load("test")[:4].x
    for model, in_eval in ((toy("text").fresh(0), True), (task.fresh(0), False)):
        seen: list[bool] = []
        assert model.traced.head
        model.module.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.backends.cudnn.enabled))
        model.logits_at(model.embed(x))
        with torch.no_grad():
            model.logits_at(model.embed(x))
        with model.training():
            model.run(model.encode(x))
            with without_cudnn():
                model.run(model.encode(x))
        assert seen == [in_eval, True, True, False] and torch.backends.cudnn.enabled


def test_the_device_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert default_device().type == "cpu" and toy("tabular").fresh(0).device.type == "cpu"
    monkeypatch.setenv(devices.VARIABLE, "abacus")
    with pytest.raises(InputError, match="abacus"):
        default_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    with pytest.raises(InputError, match="no CUDA device"):
        default_device()


def test_cuda_is_told_to_be_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first model that is put there, and only then: on a CPU nothing is changed."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        default_device()
        assert torch.are_deterministic_algorithms_enabled() == before[0] and torch.backends.cudnn.benchmark
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert default_device().type == "cuda"
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled() and not torch.backends.cudnn.benchmark
        deterministic()
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.deterministic = False


def test_cublas_adds_up_in_one_order() -> None:
    import os

    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
