"""ONNX models as black boxes in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torchbands.core.errors import BandsError, NotApplicable
from torchbands.modalities.image import Image
from torchbands.scanner.opening import open_suspect

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.timeout(400)

X = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def model(softmax: bool, rows: int | str = "n") -> tuple[bytes, torch.Tensor]:
    """A linear classifier of 3 classes over 3x4x4 images, and its weights."""
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["z"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["p"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3, 4, 4])
    y = helper.make_tensor_value_info("p" if softmax else "z", TensorProto.FLOAT, [rows, 3])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString(), torch.from_numpy(w)


@pytest.mark.parametrize(("softmax", "rows"), [(False, "n"), (True, 2)], ids=["logits", "probabilities-by-two"])
def test_black_box(tmp_path: Path, softmax: bool, rows: int | str) -> None:
    raw, w = model(softmax, rows)
    (tmp_path / "model.dat").write_bytes(raw)
    suspect = open_suspect(tmp_path / "model.dat")
    assert suspect.format == "onnx" and suspect.model is not None
    assert suspect.model.modality == Image(channels=3, size=4) and suspect.model.classes == 3
    assert suspect.facts["outputs_are"] == ("probabilities" if softmax else "logits")
    assert suspect.model.capabilities == {"logits", "model"}
    expected = (X.flatten(1) @ w).softmax(1)
    assert torch.allclose(suspect.model.probabilities(X), expected, atol=1e-4)
    with pytest.raises(NotApplicable):
        _ = suspect.model.module


def test_normalisation_and_a_dead_process(tmp_path: Path) -> None:
    raw, w = model(False)
    (tmp_path / "m.onnx").write_bytes(raw)
    suspect = open_suspect(tmp_path / "m.onnx", mean=0.5, std=(0.1, 0.2, 0.3))
    assert suspect.model is not None
    scaled = (X - 0.5) / torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    assert torch.allclose(suspect.model.probabilities(X), (scaled.flatten(1) @ w).softmax(1), atol=1e-4)
    suspect.model._predict.child.stop()  # type: ignore[union-attr]
    with pytest.raises(BandsError, match="died"):
        suspect.model.probabilities(X)
