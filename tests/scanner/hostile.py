"""Makes the hostile-file corpus: `python tests/scanner/hostile.py DIR`.

Every payload, were it ever run, would create the file DIR/EXECUTED and nothing else. No network, no other file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "EXECUTED"


@dataclass(frozen=True)
class Case:
    """One hostile file or folder. expect: an alert's rule, or "error" for one clear error."""

    name: str
    make: Callable[[Path, Path], None]
    expect: str


CASES: list[Case] = []


def case(name: str, expect: str) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Register a maker: called with where to write and with the marker that its payload would create."""

    def wrap(make: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        CASES.append(Case(name, make, expect))
        return make

    return wrap


def build(folder: Path) -> dict[str, Case]:
    """Write the corpus; the cases by the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for one in CASES:
        path = folder / one.name
        if not (path.exists() or path.is_symlink()):
            one.make(path, folder / MARKER)
        found[str(path)] = one
    return found


# --- pickles ----------------------------------------------------------------------------------------------------


def command(marker: Path) -> str:
    return f"echo x > '{marker}'"


def reduce_of(function: Any, *arguments: Any) -> bytes:
    class Payload:
        def __reduce__(self) -> Any:
            return function, arguments

    return pickle.dumps(Payload(), protocol=2)


def code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').write('x')"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def global_call(module: str, name: str, argument: str) -> bytes:
    """Protocol 2: module.name(argument)."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + text(argument) + b"\x85R."


def torch_zip(pickled: bytes, extra: dict[str, bytes] | None = None, storages: dict[str, bytes] | None = None) -> bytes:
    """A torch zip with this data.pkl."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, data in (storages or {}).items():
            file.writestr(f"archive/data/{name}", data)
        for name, data in (extra or {}).items():
            file.writestr(name, data)
    return out.getvalue()


def state_pickle(size: tuple[int, ...], stride: tuple[int, ...], numel: int, key: str = "w") -> bytes:
    """data.pkl of {key: one float tensor} as torch.save writes it."""

    def whole(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def tuple_of(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    storage = tuple_of(text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), whole(numel)) + b"Q"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = tuple_of(storage, b"K\x00", tuple_of(*map(whole, size)), tuple_of(*map(whole, stride)), b"\x89", hooks)
    return b"\x80\x02}" + text(key) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


@case("os_system.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(reduce_of(os.system, command(marker)))


@case("eval.pt", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(reduce_of(eval, code(marker)))


@case("exec_protocol0.bin", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"c__builtin__\nexec\n(S" + repr(code(marker)).encode() + b"\ntR.")


@case("inst_opcode.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"(S" + repr(command(marker)).encode() + b"\nios\nsystem\n.")


@case("nested_reduce.pt", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    inner = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"tR"
    path.write_bytes(b"\x80\x02" + inner + text(command(marker)) + b"\x85R.")


@case("second_pickle_after_stop.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}, 2) + global_call("posix", "system", command(marker)))


@case("stack_global_from_memo.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    names = b"\x8c\x02os\x94\x8c\x06system\x940" + b"0h\x00h\x01\x93"
    path.write_bytes(b"\x80\x04" + names + text(command(marker)) + b"\x85R.")


@case("stack_global_computed.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    joined = b"c_codecs\nencode\n" + text("os") + b"\x85R"  # a name that only exists while unpickling
    path.write_bytes(b"\x80\x04" + joined + text("system") + b"\x93" + text(command(marker)) + b"\x85R.")


@case("build_setstate.pkl", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x02ctypes\nSimpleNamespace\n)R}" + text("__setstate__") + b"cos\nsystem\nsb" + b".")


@case("code_in_torch_zip.pth", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(global_call("posix", "system", command(marker))))


@case("torch_zip_named.safetensors", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(global_call("builtins", "exec", code(marker))))


@case("hidden_second_pickle_in_zip.pt", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    good = state_pickle((2, 2), (2, 1), 4)
    path.write_bytes(torch_zip(good + global_call("os", "system", command(marker)), storages={"0": bytes(16)}))


@case("torch_load_inside.pt", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    inner = global_call("os", "system", command(marker))
    body = b"\x80\x02ctorch.storage\n_load_from_bytes\n" + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R."
    path.write_bytes(torch_zip(body))


@case("legacy_with_code.th", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    rest = pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(magic + rest + global_call("os", "system", command(marker)) + pickle.dumps([], 2))


@case("numpy_objects.npy", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + reduce_of(os.system, command(marker)))


@case("numpy_objects.npz", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    one = path.with_name("inner.npy.tmp")
    next(c for c in CASES if c.name == "numpy_objects.npy").make(one, marker)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("arr_0.npy", one.read_bytes())
    one.unlink()


@case("joblib.joblib", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    import joblib
    import numpy as np

    joblib.dump({"w": np.zeros(3)}, path)


@case("endless_memo.pkl", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04" + b"]\x94" * 100_000 + b".")


@case("too_many_instructions.pkl", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04" + b"N0" * 300_000 + b"N.")


@case("huge_string_claim.pkl", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.")


@case("truncated_pickle.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(list(range(1000)), 4)[:50])


# --- zip archives -----------------------------------------------------------------------------------------------


@case("stretched_tensor.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(state_pickle((1 << 20, 1 << 20), (0, 0), 1), storages={"0": bytes(4)}))


@case("storage_shorter_than_claimed.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(state_pickle((1000, 1000), (1000, 1), 1_000_000), storages={"0": bytes(16)}))


@case("zip_bomb.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state_pickle((1,), (1,), 1))
        file.writestr("archive/data/0", bytes(200 << 20))


@case("overlapping_zip_bomb.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", state_pickle((1,), (1,), 1))
        file.writestr("archive/data/0", bytes(100_000))
        last = file.filelist[-1]
        for i in range(1, 500):  # every entry is the same bytes
            twin = zipfile.ZipInfo(f"archive/data/{i}")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "compress_type", "external_attr"):
                setattr(twin, name, getattr(last, name))
            file.filelist.append(twin)
            file.NameToInfo[twin.filename] = twin
    path.write_bytes(out.getvalue())


@case("zip_path_traversal.pt", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(b"\x80\x02}.", extra={"../../../../evil.py": code(marker).encode()}))


@case("zip_absolute_path.pt", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(b"\x80\x02}.", extra={"/etc/cron.d/evil": b"x"}))


@case("zip_with_link.pt", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        link = zipfile.ZipInfo("archive/data/0")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")


@case("nested_zips.pt", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    inner = torch_zip(global_call("os", "system", command(marker)))
    for _ in range(4):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("model.zip", inner)
        inner = out.getvalue()
    path.write_bytes(inner)


@case("zip_inside_torch_zip.pt", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    inner = torch_zip(global_call("os", "system", command(marker)))
    good = state_pickle((2, 2), (2, 1), 4)
    path.write_bytes(torch_zip(good, extra={"archive/more.zip": inner}, storages={"0": bytes(16)}))


@case("two_data_pkl.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(b"\x80\x02}.", extra={"other/data.pkl": global_call("os", "system", command(marker))}))


@case("truncated_zip.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(b"\x80\x02}.")[:-30])


@case("zip_wrong_checksum.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(torch_zip(state_pickle((1,), (1,), 1)).replace(b"FloatStorage", b"XloatStorage"))


@case("plain_zip.pt", "error")
def _(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


@case("gzip_bomb.pt", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(gzip.compress(bytes(64 << 20)))


@case("torchscript_with_code.pt", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    script = b"def forward(self, x: Tensor) -> Tensor:\n  while True:\n    pass\n"
    extra = {"archive/code/__torch__/net.py": script, "archive/constants.pkl": b"\x80\x02)."}
    path.write_bytes(torch_zip(b"\x80\x02c__torch__.net\nNet\n)\x81}(X\x01\x00\x00\x00w", extra=extra))


@case("torchscript_with_import.pt", "BD-FILE-01")
def _(path: Path, marker: Path) -> None:
    extra = {"archive/code/__torch__/net.py": b"", "archive/constants.pkl": b"\x80\x02)."}
    path.write_bytes(torch_zip(global_call("os", "system", command(marker)), extra=extra))


# --- safetensors ------------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


_SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "truncated_header": lambda: safetensors({"w": entry("F32", [4], 0, 16)}, bytes(16))[:20],
    "truncated_data": lambda: safetensors({"w": entry("F32", [4], 0, 16)}, bytes(8)),
    "header_of_2_to_62": lambda: safetensors({}, length=1 << 62),
    "header_of_1_gb": lambda: safetensors({"w": entry("F32", [4], 0, 16)}, bytes(16), length=1 << 30),
    "header_no_json": lambda: safetensors(b"{" + b"\xff" * 50),
    "overlapping_offsets": lambda: safetensors(
        {"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 8, 24)}, bytes(24)
    ),
    "gap_between": lambda: safetensors({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 16, 24)}, bytes(24)),
    "negative_shape": lambda: safetensors({"a": entry("F32", [-2, -2], 0, 16)}, bytes(16)),
    "huge_shape": lambda: safetensors({"a": entry("F32", [1 << 40, 1 << 40], 0, 16)}, bytes(16)),
    "overflowing_shape": lambda: safetensors({"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}),
    "negative_offsets": lambda: safetensors({"a": entry("F32", [4], -16, 0)}, bytes(16)),
    "float_offsets": lambda: safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0.0,1.6e1]}}', bytes(16)),
    "duplicate_keys": lambda: safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        bytes(16),
    ),
    "deep_nesting": lambda: safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "unknown_dtype": lambda: safetensors({"a": entry("PICKLE", [4], 0, 16)}, bytes(16)),
    "huge_tensor_count": lambda: safetensors({f"t{i}": entry("F32", [0], 0, 0) for i in range(60_000)}),
    "trailing_bytes": lambda: safetensors({"a": entry("F32", [1], 0, 4)}, bytes(4) + b"PK\x03\x04" + bytes(100)),
    "ten_million_classes": lambda: safetensors(
        {"linear.weight": entry("F32", [10_000_000, 64], 0, 2_560_000_000)}, bytes(64)
    ),
    "metadata_no_text": lambda: safetensors({"__metadata__": {"a": [1]}, "w": entry("F32", [1], 0, 4)}, bytes(4)),
    "no_tensors": lambda: safetensors({"__metadata__": {"a": "b"}}),
    "name_of_a_million": lambda: safetensors({"x" * 1_000_000: entry("F32", [1], 0, 4)}, bytes(4)),
    "number_of_digits": lambda: safetensors(b'{"a":' + b"9" * 100_000 + b"}"),
}
for _name, _make in _SAFETENSORS.items():
    CASES.append(
        Case(f"{_name}.safetensors", lambda path, _, make=_make: path.write_bytes(make()) and None, "BD-FILE-02")
    )


@case("ten_million_real_classes.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    sizes = (("linear.weight", [10_000_000, 1]), ("linear.bias", [10_000_000]))
    header, at = {}, 0
    for name, shape in sizes:
        header[name] = entry("F16", shape, at, at + 20_000_000)
        at += 20_000_000
    path.write_bytes(safetensors(header, bytes(at)))


@case("nan_weights.safetensors", "BD-FILE-04")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(safetensors({"w": entry("F32", [2], 0, 8)}, struct.pack("<2f", 1.0, float("nan"))))


@case("infinite_weights.safetensors", "BD-FILE-04")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(safetensors({"w": entry("F64", [2], 0, 16)}, struct.pack("<2d", 1.0, float("inf"))))


@case("wrong_shapes.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(safetensors({"linear.weight": entry("F32", [3, 7], 0, 84)}, bytes(84)))


@case("markup_in_tensor_names.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    name = "<script>alert(1)</script>\n[bold red]\x1b[31m\u202egnp.exe"
    path.write_bytes(safetensors({name: entry("F32", [1], 0, 4)}, bytes(4)))


@case("<img src=x onerror=alert(1)>\n\u202e[red]\u2603.safetensors", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"nothing of the kind")


# --- files that are none ----------------------------------------------------------------------------------------


@case("empty.safetensors", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"")


@case("link_to_passwd.safetensors", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.symlink_to("/etc/passwd")


@case("link_to_itself.pt", "error")
def _(path: Path, marker: Path) -> None:
    path.symlink_to(path.name)


@case("pipe.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    os.mkfifo(path)


@case("link_to_zeros.bin", "error")
def _(path: Path, marker: Path) -> None:
    path.symlink_to("/dev/zero")


@case("sparse_terabyte.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@case("text_in_disguise.onnx", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_text("hello")


# --- ONNX -------------------------------------------------------------------------------------------------------


def onnx_model(kind: str) -> bytes:
    """A small model: "external" weights, "custom" operator, an endless "loop", "deep" nesting, or "big" constants."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.ones((3072, 2), np.float32), "w")
    flat = helper.make_node("Flatten", ["x"], ["f"])
    nodes = [flat, helper.make_node("MatMul", ["f", "w"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    if kind == "external":
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../../../etc/passwd")
    elif kind == "custom":
        nodes = [helper.make_node("Run", ["x"], ["y"], domain="evil.library")]
        opsets.append(helper.make_opsetid("evil.library", 1))
    elif kind == "loop":
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["u"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("u", TensorProto.FLOAT, None),
            ],
        )
        nodes = [
            helper.make_node("Constant", [], ["many"], value=helper.make_tensor("m", TensorProto.INT64, [], [1 << 62])),
            helper.make_node("Constant", [], ["true"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
            flat,
            helper.make_node("MatMul", ["f", "w"], ["z"]),
            helper.make_node("Loop", ["many", "true", "z"], ["y"], body=body),
        ]
    elif kind == "big":
        size = helper.make_tensor("s", TensorProto.INT64, [2], [1 << 20, 1 << 20])
        nodes = [
            helper.make_node("Constant", [], ["size"], value=size),
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            flat,
            helper.make_node("MatMul", ["f", "w"], ["z"]),
            helper.make_node("Add", ["z", "zero"], ["y"]),
        ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def _write_onnx(kind: str) -> Callable[[Path, Path], None]:
    return lambda path, _: path.write_bytes(onnx_model(kind)) and None


CASES += [
    Case("truncated.onnx", lambda path, _: path.write_bytes(onnx_model("plain")[:-20]) and None, "BD-FILE-02"),
    Case("external_data.onnx", _write_onnx("external"), "BD-FILE-03"),
    Case("custom_operator.onnx", _write_onnx("custom"), "BD-FILE-03"),
    Case("endless_loop.onnx", _write_onnx("loop"), "error"),
    Case("terabyte_constant.onnx", _write_onnx("big"), "error"),
]


@case("deep_graph.onnx", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    def field(number: int, data: bytes) -> bytes:
        length, size = len(data), b""
        while length >= 0x80:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    path.write_bytes(b"\x08\x09" + field(7, graph))


# --- folders ----------------------------------------------------------------------------------------------------


def hf_folder(path: Path, config: dict[str, Any] | bytes, files: dict[str, bytes] | None = None) -> None:
    path.mkdir()
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    (path / "config.json").write_bytes(raw)
    tensors = safetensors({"classifier.weight": entry("F32", [2, 4], 0, 32)}, bytes(32))
    (path / "model.safetensors").write_bytes(tensors)
    for name, data in (files or {}).items():
        (path / name).write_bytes(data)


@case("hf_remote_code", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    config = {"model_type": "evil", "auto_map": {"AutoModel": "modeling_evil.Evil"}}
    hf_folder(path, config, {"modeling_evil.py": code(marker).encode(), "__init__.py": code(marker).encode()})


@case("hf_shadowing_modules", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    names = ("torch.py", "sitecustomize.py", "usercustomize.py", "transformers.py", "numpy.py", "json.py", "mynet.py")
    hf_folder(
        path,
        {"model_type": "vit", "hidden_size": 4, "num_hidden_layers": 1},
        {name: code(marker).encode() for name in names},
    )


@case("hf_ten_million_classes", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {"model_type": "vit", "num_labels": 10_000_000})


@case("hf_billion_layers", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {"model_type": "vit", "num_hidden_layers": 1_000_000_000})


@case("hf_deep_config", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, b'{"a":' * 50_000 + b"1" + b"}" * 50_000)


@case("hf_link_out", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {"model_type": "vit"})
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("/etc/passwd")


@case("hf_index_leaves", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    index = json.dumps({"weight_map": {"w": "../../../../etc/passwd"}}).encode()
    hf_folder(path, {"model_type": "vit"}, {"model.safetensors.index.json": index})


@case("hf_config_is_a_pipe", "error")
def _(path: Path, marker: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "config.json")


@case("hf_kernels_from_the_hub", "error")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {"model_type": "timm_wrapper", "attn_implementation": "evil/kernel", "architecture": "x"})


@case("hf_pickles_only", "error")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {"model_type": "bert"}, {"pytorch_model.bin": global_call("os", "system", command(marker))})
    (path / "model.safetensors").unlink()


@case("victim_with_wrong_checksum", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, {})
    (path / "card.json").write_text(
        json.dumps({"task": {"name": "vision/digits"}, "files": {"model.safetensors": "0"}})
    )


@case("folder_of_links", "BD-FILE-03")
def _(path: Path, marker: Path) -> None:
    path.mkdir()
    (path / "config.json").symlink_to("/etc/passwd")
    (path / "loop").symlink_to(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/scanner/hostile.py DIR")
    for made in build(Path(sys.argv[1])):
        print(ascii(made))
