"""ONNX models as black boxes in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torchbands.core.errors import BandsError, NotApplicable
from torchbands.modalities.image import Image
from torchbands.scanner.opening import onnx_graph, onnx_wire, open_suspect
from torchbands.scanner.opening.trouble import Trouble

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


def tag_of_five(raw: bytes, number: int) -> bytes:
    """A varint of five bytes that a parser of 32-bit tags reads as field `number`, text."""
    value = (1 << 32) | (number << 3 | 2)
    return bytes(value >> s & 0x7F | (0x80 if s < 28 else 0) for s in range(0, 35, 7)) + bytes([len(raw)]) + raw


def external(how: str) -> bytes:
    """Weights outside of the file, as a plain parser does not see them."""
    from onnx import AttributeProto, TensorProto, helper

    place = b"\x0a\x08location\x12\x0b/etc/passwd"
    weight = TensorProto(dims=[48, 3], data_type=TensorProto.FLOAT, name="w")
    proto = onnx.ModelProto.FromString(model(False)[0])
    if how == "tag":
        hidden = weight.SerializeToString() + tag_of_five(place, 13) + b"\x70\x01"
        del proto.graph.initializer[:]
        graph = proto.graph.SerializeToString() + b"\x2a" + bytes([len(hidden)]) + hidden
        proto.ClearField("graph")
        return bytes(proto.SerializeToString() + b"\x3a" + onnx_wire.number_of(len(graph)) + graph)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    if how == "place alone":
        weight.ClearField("data_location")
    if how == "default of a function":
        node = helper.make_node("Constant", [], ["y"])
        node.attribute.append(AttributeProto(name="value", ref_attr_name="v", type=AttributeProto.TENSOR))
        made = helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 17)])
        made.attribute_proto.append(helper.make_attribute("v", weight))
        proto.functions.append(made)
    elif how == "constant":
        proto.graph.node.append(helper.make_node("Constant", [], ["u"], value=weight))
    else:
        del proto.graph.initializer[:]
        proto.graph.initializer.append(weight)
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("how", ["tag", "default of a function", "constant", "weight", "place alone"])
def test_external_data_is_seen_however_it_is_spelt_and_never_handed_on(how: str) -> None:
    with pytest.raises(Trouble) as caught:
        onnx_graph.inspect(external(how)).check()
    assert caught.value.alert.level in ("medium", "high")


def test_the_session_is_given_bytes_written_anew() -> None:
    raw, _ = model(False)
    proto = onnx.ModelProto.FromString(raw)
    proto.metadata_props.add(key="ort_config", value="{}")
    proto.training_info.add()
    again = b"".join(onnx_graph.inspect(proto.SerializeToString()).rebuilt)
    assert onnx.ModelProto.FromString(again) == onnx.ModelProto.FromString(raw)
    for odd in (b"\x92\x06\x03abc", b"\x9a\xf1\x04\x02hi"):  # fields that nothing knows
        assert b"".join(onnx_graph.inspect(raw + odd).rebuilt) == again
