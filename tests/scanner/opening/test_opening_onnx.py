"""ONNX models as black boxes in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torchbands.core.errors import BandsError, InputError, NotApplicable, Unsupported
from torchbands.modalities.image import Image
from torchbands.scanner.opening import onnx_graph, onnx_wire, open_suspect
from torchbands.scanner.opening.refusal import Refusal

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
    suspect.model._predict.session.child.stop()  # type: ignore[union-attr]
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
        hidden = weight.SerializeToString() + tag_of_five(place, 13) + b"\xf0\x80\x80\x80\x10\x01"
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
    with pytest.raises(Refusal) as caught:
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


class Maker:
    """A small graph over images, with more outputs than one."""

    def __init__(self, shape: list[int | str], kind: str = "FLOAT") -> None:
        from onnx import TensorProto, helper

        self.nodes: list[onnx.NodeProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.weights = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
        self.input = helper.make_tensor_value_info("x", getattr(TensorProto, kind), shape)
        self.float = TensorProto.FLOAT

    def node(self, operator: str, *inputs: str, to: str, **more: object) -> Maker:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [to], **more))
        return self

    def out(self, name: str, *shape: int | str) -> Maker:
        from onnx import helper

        self.outputs.append(helper.make_tensor_value_info(name, self.float, shape))
        return self

    def save(self, path: Path) -> Path:
        from onnx import helper, numpy_helper

        given = [numpy_helper.from_array(self.weights, "w"), numpy_helper.from_array(self.weights[:, :1], "w1")]
        given.append(numpy_helper.from_array(np.ones(3, np.float32), "ones"))
        graph = helper.make_graph(self.nodes, "g", [self.input], self.outputs, given)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path.write_bytes(made.SerializeToString())
        return path


def heads() -> Maker:
    """f (N, 48) features, z (N, 4) logits, p their probabilities, s their sigmoids, one logit, its sigmoid."""
    made = Maker(["n", 3, 4, 4]).node("Flatten", "x", to="f").node("MatMul", "f", "w", to="z")
    made.node("Softmax", "z", to="p").node("Sigmoid", "z", to="s").node("MatMul", "f", "w1", to="one")
    return made.node("Sigmoid", "one", to="half")


def read(path: Path, **more: object) -> tuple[torch.Tensor, dict[str, object]]:
    """The probabilities of X, and the facts."""
    suspect = open_suspect(path, **more)  # type: ignore[arg-type]
    assert suspect.model is not None
    return suspect.model.probabilities(X), dict(suspect.facts)


def test_the_output_with_the_classes_is_found_or_asked_for(tmp_path: Path) -> None:
    made = heads()
    logits = X.flatten(1) @ torch.from_numpy(made.weights)
    path = made.out("f", "n", 48).out("z", "n", 4).save(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"which output holds the classes.*f \(N, 48\).*z \(N, 4\)") as error:
        open_suspect(path)
    assert "--output NAME" in error.value.hint and "--classes K" in error.value.hint
    for more in ({"classes": 4}, {"likely": 4}, {"output": "z"}):
        p, facts = read(path, **more)
        assert torch.allclose(p, logits.softmax(1), atol=1e-4) and facts["output"] == "z"
        assert "output" in more or "is taken for the classes; not 'f (N, 48)" in str(facts["notes"])
    for wrong in ({"classes": 7}, {"output": "no"}):
        with pytest.raises(InputError, match=r"no output"):
            open_suspect(path, **wrong)  # type: ignore[arg-type]
    path = made.out("p", "n", 4).save(tmp_path / "b.onnx")
    assert read(path, classes=4)[1]["output"] == "z"  # the same in other words
    made.outputs.pop()
    path = made.out("s", "n", 4).save(tmp_path / "c.onnx")
    assert torch.allclose(read(path, likely=4)[0], logits.softmax(1), atol=1e-3)
    path = made.node("Neg", "z", to="aux").out("aux", "n", 4).save(tmp_path / "d.onnx")
    with pytest.raises(InputError, match="which output"):
        open_suspect(path, likely=4)


def test_features_beside_classes_by_the_names_that_exporters_give(tmp_path: Path) -> None:
    made = Maker(["n", 3, 4, 4]).node("Flatten", "x", to="last_hidden_state")
    made.node("MatMul", "last_hidden_state", "w", to="logits")
    _, facts = read(made.out("last_hidden_state", "n", 48).out("logits", "n", 4).save(tmp_path / "a.onnx"))
    assert facts["output"] == "logits" and facts["classes"] == 4 and facts["notes"]


@pytest.mark.parametrize(
    ("name", "columns", "kind"),
    [("s", 4, "sigmoids"), ("one", 1, "one logit of two classes"), ("half", 1, "one probability of two classes")],
)
def test_heads_are_read_as_what_they_are(tmp_path: Path, name: str, columns: int, kind: str) -> None:
    made = heads()
    p, facts = read(made.out(name, "n", columns).save(tmp_path / "m.onnx"))
    logits = X.flatten(1) @ torch.from_numpy(made.weights)
    two = torch.stack([torch.zeros(len(X)), logits[:, 0]], 1)
    assert facts["outputs_are"] == kind and facts["classes"] == max(2, columns) and kind in str(facts["notes"])
    assert torch.allclose(p, (logits if columns == 4 else two).softmax(1), atol=1e-3)


def test_one_number_that_may_be_either_is_refused(tmp_path: Path) -> None:
    made = Maker(["n", 3, 4, 4]).node("Flatten", "x", to="f").node("ReduceMin", "f", to="m", axes=[1])
    with pytest.raises(InputError, match="a probability or a logit cannot be told"):
        open_suspect(made.out("m", "n", 1).save(tmp_path / "m.onnx"))


def test_large_outputs_beside_the_classes_do_no_harm(tmp_path: Path) -> None:
    made = heads()
    made.node("Flatten", "x", to="flat").node("Transpose", "flat", to="t", perm=[1, 0])  # (48, N): no rows
    made.node("Einsum", "f", "f", to="map", equation="ni,nj->nij")
    made.node("Einsum", "map", "f", to="huge", equation="nij,nk->nijk")  # 48 ** 3 numbers for a row
    made.out("t", 48, "n").out("map", "n", 48, 48).out("huge", "n", 48, 48, 48).out("z", "n", 4)
    assert read(made.save(tmp_path / "m.onnx"))[1]["output"] == "z"


@pytest.mark.parametrize("shape", [["n", 4, 4, 3], ["n", "h", "w", 3], ["n", "h", "w", "c"], [5, 4, 4, 3]], ids=str)
def test_channels_last_is_recognised(tmp_path: Path, shape: list[int | str]) -> None:
    made = Maker(shape).node("Mul", "x", "ones", to="y").node("Transpose", "y", to="t", perm=[0, 3, 1, 2])
    made.node("Flatten", "t", to="f")
    path = made.node("MatMul", "f", "w", to="z").out("z", "n", 4).save(tmp_path / "m.onnx")
    logits = X.flatten(1) @ torch.from_numpy(made.weights)
    p, facts = read(path, modality=Image(channels=3, size=4))
    assert facts["layout"] == "(N, H, W, C)" and "(N, H, W, C)" in str(facts["notes"])
    assert torch.allclose(p, logits.softmax(1), atol=1e-4)
    p, _ = read(path, modality=Image(channels=3, size=4), mean=(0.1, 0.2, 0.3), std=0.5)
    scaled = (X - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5
    assert torch.allclose(p, (scaled.flatten(1) @ torch.from_numpy(made.weights)).softmax(1), atol=1e-4)


@pytest.mark.parametrize("kind", ["UINT8", "INT32", "INT64"])
def test_whole_numbers_are_pixels_to_255(tmp_path: Path, kind: str) -> None:
    made = Maker(["n", 3, 4, 4], kind).node("Cast", "x", to="c", to_=1)
    made.nodes[0].attribute[0].name = "to"
    made.node("Flatten", "c", to="f").node("MatMul", "f", "w", to="z")
    path = made.out("z", "n", 4).save(tmp_path / "m.onnx")
    p, facts = read(path)
    assert facts["pixels"] == "0 ... 255" and "0 ... 255" in str(facts["notes"])
    logits = (X * 255).round().flatten(1) @ torch.from_numpy(made.weights)
    assert torch.allclose(p, logits.softmax(1), atol=1e-3)
    with pytest.raises(InputError, match="0 ... 255"):
        open_suspect(path, mean=0.5)


def test_small_integers_of_a_scale_that_nobody_says_are_refused(tmp_path: Path) -> None:
    made = Maker(["n", 3, 4, 4], "INT8").node("Cast", "x", to="c", to_=1)
    made.nodes[0].attribute[0].name = "to"
    made.node("Flatten", "c", to="f").node("MatMul", "f", "w", to="z")
    with pytest.raises(Unsupported, match="int8"):
        open_suspect(made.out("z", "n", 4).save(tmp_path / "m.onnx"))


def test_a_layout_that_nothing_tells_is_told(tmp_path: Path) -> None:
    made = Maker(["n", "a", "b", "c"]).node("Flatten", "x", to="f").node("MatMul", "f", "w", to="z")
    path = made.out("z", "n", 4).save(tmp_path / "m.onnx")
    assert "the former is taken" in str(read(path, modality=Image(channels=3, size=4))[1]["notes"])
    with pytest.raises(InputError, match="does not take"):
        open_suspect(path, modality=Image(channels=1, size=4))
