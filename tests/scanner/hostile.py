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
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "EXECUTED"


@dataclass(frozen=True)
class Case:
    """One hostile file or folder. expect: an alert's rule, or "error" for one clear error; level: of the alert.

    slow: needs a child with large libraries.
    """

    name: str
    make: Callable[[Path, Path], None]
    expect: str
    level: str = ""
    slow: bool = False


CASES: list[Case] = []


def case(
    name: str, expect: str, level: str = "", slow: bool = False
) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Register a maker: called with where to write and with the marker that its payload would create."""

    def wrap(make: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        CASES.append(Case(name, make, expect, level, slow))
        return make

    return wrap


def build(folder: Path, *, slow: bool = True) -> dict[str, Case]:
    """Write the corpus; the cases by the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for one in CASES:
        if one.slow and not slow:
            continue
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


@case("joblib.joblib", "error")
def _(path: Path, marker: Path) -> None:
    import joblib
    import numpy as np

    joblib.dump({"w": np.zeros(3)}, path)


@case("code_behind_an_array.joblib", "BD-FILE-01", "high")
def _(path: Path, marker: Path) -> None:
    import joblib
    import numpy as np

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (command(marker),)

    joblib.dump([np.zeros(3), Payload()], path)


@case("endless_memo.pkl", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04" + b"]\x94" * 100_000 + b".")


@case("too_many_instructions.pkl", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04" + b"N0" * 300_000 + b"N.")


@case("huge_string_claim.pkl", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.")


@case("truncated_pickle.pt", "error")
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


@case("truncated_zip.pt", "error")
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
#: Files that end too early are not whole, and those of no known kind are unsupported; neither is worse.
_CUT_SHORT = ("truncated_header", "truncated_data", "ten_million_classes", "header_of_2_to_62")
for _name, _make in _SAFETENSORS.items():
    _expect = "error" if _name in _CUT_SHORT else "BD-FILE-02"
    CASES.append(Case(f"{_name}.safetensors", lambda path, _, make=_make: path.write_bytes(make()) and None, _expect))


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


@case("<img src=x onerror=alert(1)>\n\u202e[red]\u2603.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(b"nothing of the kind")


# --- files that are none ----------------------------------------------------------------------------------------


@case("zeros.safetensors", "error")
def _(path: Path, marker: Path) -> None:
    path.write_bytes(bytes(8))


@case("link_to_passwd.safetensors", "error")
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


@case("text_in_disguise.onnx", "error")
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
    Case("truncated.onnx", lambda path, _: path.write_bytes(onnx_model("plain")[:-20]) and None, "error"),
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


# --- zip archives that two readers read differently --------------------------------------------------------------

Entries = list[tuple[bytes, bytes]]


def state_zip(seed: int) -> bytes:
    raw = struct.pack("<2f", seed, -seed)
    return torch_zip(state_pickle((2,), (1,), 2), storages={"0": raw})


def entries(raw: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        return [(i.filename.encode(), file.read(i)) for i in file.infolist()]


def written(held: Entries, base: int = 0, extra: bytes = b"", local_name: bytes | None = None) -> tuple[bytes, bytes]:
    """(local entries, directory) at an offset."""
    local = directory = b""
    for name, data in held:
        crc, at, n = zlib.crc32(data), base + len(local), local_name or name
        local += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, crc, len(data), len(data), len(n), 0) + n + data
        directory += struct.pack(
            "<4s6H3L5H2L",
            b"PK\1\2",
            20,
            20,
            0,
            0,
            0,
            33,
            crc,
            len(data),
            len(data),
            len(name),
            len(extra),
            0,
            0,
            0,
            0,
            at,
        )
        directory += name + extra
    return local, directory


def ended(local: bytes, directory: bytes, count: int, start: int | None = None, comment: bytes = b"") -> bytes:
    start = len(local) if start is None else start
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), start, len(comment))
    return local + directory + end + comment


def plain(held: Entries, **how: bytes) -> bytes:
    return ended(*written(held, **how), len(held))  # type: ignore[arg-type]


def zip64_elsewhere() -> bytes:
    """The locator names the record of one archive, while another record lies before it."""

    def record(count: int, size: int, at: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)

    evil, clean = entries(state_zip(1)), entries(state_zip(2))
    local, directory = written(evil)
    first = local + directory
    at, first = len(first), first + record(len(evil), len(directory), len(local))
    local, directory = written(clean, len(first))
    second = local + directory + record(len(clean), len(directory), len(first) + len(local))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return first + second + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + end


def other_case() -> bytes:
    held = entries(state_zip(2))
    return plain(
        [*held, *((n.replace(b"/data/0", b"/DATA/0"), bytes(len(d))) for n, d in held if n.endswith(b"data/0"))]
    )


def twice() -> bytes:
    held = entries(state_zip(2))
    return plain([*held, *((n, bytes(len(d))) for n, d in held if n.endswith(b"data/0"))])


def prefixed() -> bytes:
    """Another archive before this one: some readers shift the offsets, some do not."""
    return state_zip(1)[:-22] + plain(entries(state_zip(2)))


def two_ends() -> bytes:
    local, directory = written(entries(state_zip(1)))
    inner = ended(local, directory, len(entries(state_zip(1))))
    held = entries(state_zip(2))
    again = written(held, len(inner))
    return inner + ended(*again, len(held), start=len(inner) + len(again[0]), comment=inner)


def first_folder_decides() -> bytes:
    held = entries(state_zip(2))
    return plain([(b"other/version", b"3\n"), *held])


def marked_as_folder() -> bytes:
    raw = bytearray(plain(entries(state_zip(2))))
    raw[raw.rindex(b"PK\1\2") + 38] = 0x10
    return bytes(raw)


READINGS: dict[str, Callable[[], bytes]] = {
    "zip64 record elsewhere": zip64_elsewhere,
    "names that differ in case": other_case,
    "a name twice": twice,
    "bytes before the archive": prefixed,
    "two end records": two_ends,
    "bytes after the end": lambda: plain(entries(state_zip(2))) + b"x",
    "a folder that comes first": first_folder_decides,
    "contents marked as a folder": marked_as_folder,
    "a second name in an extra field": lambda: plain(
        entries(state_zip(2)), extra=struct.pack("<2H", 0x7075, 9) + b"\x01" + bytes(4) + b"evil"
    ),
    "another name where it lies": lambda: plain(entries(state_zip(2)), local_name=b"archive/data/9"),
    "more entries than are counted": lambda: ended(*written(entries(state_zip(2))), len(entries(state_zip(2))) - 1),
}


def _raw(data: bytes) -> Callable[[Path, Path], None]:
    return lambda path, _: path.write_bytes(data) and None


def _from(make: Callable[[], bytes]) -> Callable[[Path, Path], None]:
    return lambda path, _: path.write_bytes(make()) and None


CASES += [Case(f"zip with {n}.pt", _from(make), "BD-FILE-02", "high") for n, make in READINGS.items()]


# --- one callable each, raw and within a torch zip ---------------------------------------------------------------

_CALLABLES = (
    *("os.popen", "os.execv", "os.spawnl", "os.remove", "os.rename", "os.fork", "nt.system", "posix.execv"),
    *("subprocess.Popen", "subprocess.getoutput", "subprocess.check_output", "pty.spawn", "shutil.rmtree"),
    *("builtins.exec", "builtins.compile", "builtins.open", "builtins.__import__", "builtins.getattr"),
    *("importlib.import_module", "runpy.run_path", "code.interact", "pdb.run", "timeit.timeit", "cProfile.run"),
    *("socket.create_connection", "urllib.request.urlopen", "http.client.HTTPConnection", "webbrowser.open"),
    *("ctypes.CDLL", "pickle.loads", "marshal.loads", "types.CodeType", "operator.attrgetter", "functools.partial"),
    *("multiprocessing.Process", "threading.Thread", "signal.alarm", "tempfile.mkstemp", "zipfile.ZipFile"),
    *("os.kill", "os.chmod", "builtins.eval", "pip.main", "bdb.Bdb.run", "commands.getoutput", "trace.Trace"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.utils.cpp_extension.load", "numpy.load"),
    *("pandas.read_pickle", "pydoc.pipepager", "site.main", "asyncio.run", "pathlib.Path.unlink"),
)
for _at, _dotted in enumerate(_CALLABLES):
    _call = global_call(*_dotted.rsplit(".", 1), "x")
    _file = (f"calls {_dotted}.pt", torch_zip(_call)) if _at % 2 else (f"calls {_dotted}.pkl", _call)
    CASES.append(Case(_file[0], _raw(_file[1]), "BD-FILE-01", "high"))


# --- ONNX: files of others, and batches of no end ----------------------------------------------------------------


def tag_of_five(raw: bytes, number: int) -> bytes:
    """A varint of five bytes that a parser of 32-bit tags reads as field `number`, text."""
    value = (1 << 32) | (number << 3 | 2)
    return bytes(value >> s & 0x7F | (0x80 if s < 28 else 0) for s in range(0, 35, 7)) + bytes([len(raw)]) + raw


def onnx_outside(how: str) -> bytes:
    """Weights outside of the file, as a plain parser does not see them."""
    import onnx
    from onnx import AttributeProto, TensorProto, helper

    weight = TensorProto(dims=[48, 3], data_type=TensorProto.FLOAT, name="v")
    proto = onnx.ModelProto.FromString(onnx_model("plain"))
    if how == "tag":
        hidden = (
            weight.SerializeToString()
            + tag_of_five(b"\x0a\x08location\x12\x0b/etc/passwd", 13)
            + b"\xf0\x80\x80\x80\x10\x01"
        )
        graph = bytes([0x2A, len(hidden)]) + hidden  # a second graph field: parsers merge the two
        return bytes(proto.SerializeToString()) + bytes([0x3A, len(graph)]) + graph
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
        proto.graph.initializer.append(weight)
    return bytes(proto.SerializeToString())


def onnx_sized(shape: list[int], operator: str = "ReduceMean") -> bytes:
    """A tiny model whose input claims a shape."""
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


_OUTSIDE = {"tag": "BD-FILE-02", **dict.fromkeys(("default of a function", "constant", "place alone"), "BD-FILE-03")}
for _how, _rule in _OUTSIDE.items():
    CASES.append(Case(f"external data by {_how}.onnx", _from(lambda how=_how: onnx_outside(how)), _rule))
_SIZED = {"a batch of 400,000": [400_000, 3, 32, 32], "86 GB": [7_000_000, 3, 32, 32], "all numbers": [1 << 31] * 4}
for _said, _shape in _SIZED.items():
    CASES.append(Case(f"input of {_said}.onnx", _from(lambda shape=_shape: onnx_sized(shape)), "BD-FILE-02"))
CASES.append(Case("reads an engine.onnx", _from(lambda: onnx_sized([1, 3, 32, 32], "EPContext")), "BD-FILE-03"))


# --- more safetensors: each header claims what its bytes do not bear out -----------------------------------------

for _dtype in ("BOOL", "U8", "I8", "F8_E4M3", "I16", "F16", "BF16", "I32", "F32", "I64", "F64"):
    for _wrong, _bytes in (("too few", 8), ("too many", 80)):
        _claim = safetensors({"w": entry(_dtype, [9], 0, _bytes)}, bytes(_bytes))
        CASES.append(Case(f"{_wrong} bytes of {_dtype}.safetensors", _raw(_claim), "BD-FILE-02"))


@case("one-byte weights that grow.safetensors", "BD-FILE-02")
def _(path: Path, marker: Path) -> None:
    with path.open("wb") as file:  # 300 MB of a sparse file, 1.2 GB as float32
        file.write(safetensors({"w": entry("U8", [300 << 20], 0, 300 << 20)}))
        file.truncate(file.tell() + (300 << 20))


# --- folders that two loaders read differently, or that ask for too much -----------------------------------------

_BERT = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}
_SHARD = safetensors({"classifier.weight": entry("F32", [2, 4], 0, 32)}, b"\x01" * 32)
_INDEX_NAME = "model.safetensors.index.json"


def _index(**names: str) -> bytes:
    return json.dumps({"weight_map": names}).encode()


def _tokenizer(**steps: Any) -> dict[str, bytes]:
    return {"tokenizer.json": json.dumps(steps).encode()}


_TIMES_100 = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 100}
_ENDLESS = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated"}
_FOLDERS: tuple[tuple[str, dict[str, Any] | bytes, dict[str, bytes], str, str], ...] = (
    ("adapter beside the model", _BERT, {"adapter_config.json": b"{}"}, "BD-FILE-02", "high"),
    ("weights that the config names", {**_BERT, "transformers_weights": "x.safetensors"}, {}, "BD-FILE-02", "high"),
    ("index beside the model", _BERT, {_INDEX_NAME: _index(w="a.st.safetensors")}, "BD-FILE-02", ""),
    ("other shards", _BERT, {_INDEX_NAME: _index(w="a.safetensors"), "a.safetensors": _SHARD}, "BD-FILE-02", "high"),
    ("card beside the config", _BERT, {"card.json": b"{}"}, "BD-FILE-02", "high"),
    ("key twice in the config", b'{"model_type": "bert", "model_type": "vit"}', {}, "BD-FILE-02", "high"),
    ("names that differ in case", _BERT, {"Model.safetensors": _SHARD}, "BD-FILE-02", "high"),
    ("index that names pickles", _BERT, {_INDEX_NAME: _index(w="w.bin"), "w.bin": b"x"}, "BD-FILE-02", ""),
    ("quantised weights", {**_BERT, "quantization_config": {"bits": 4}}, {}, "error", ""),
    ("a setting that nobody knows", {**_BERT, "_impl": "x"}, {}, "error", ""),
    ("a tokenizer that multiplies", _BERT, _tokenizer(normalizer={"normalizers": [_TIMES_100] * 3}), "BD-FILE-02", ""),
    ("a tokenizer that never ends", _BERT, _tokenizer(pre_tokenizer=_ENDLESS), "BD-FILE-02", ""),
)
for _named, _config, _files, _rule, _high in _FOLDERS:
    CASES.append(Case(f"hf {_named}", lambda path, _, c=_config, f=_files: hf_folder(path, c, f), _rule, _high))


@case("hf two shards with one tensor", "BD-FILE-02", "high")
def _(path: Path, marker: Path) -> None:
    names = _index(x="a.safetensors", y="b.safetensors")
    hf_folder(path, _BERT, {_INDEX_NAME: names, "a.safetensors": _SHARD, "b.safetensors": _SHARD})
    (path / "model.safetensors").unlink()


@case("hf weights are a pipe", "error")
def _(path: Path, marker: Path) -> None:
    hf_folder(path, _BERT)
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def vision_folder(path: Path, kind: str, said: dict[str, Any], **settings: Any) -> None:
    """A whole small image classifier whose config.json then says otherwise."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=2, **settings)
    getattr(transformers, f"{kind}ForImageClassification")(config).save_pretrained(path)
    table = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**table, **said}))


@case("hf images of 240 GB", "BD-FILE-02", slow=True)
def _(path: Path, marker: Path) -> None:
    vision_folder(path, "ConvNext", {"image_size": 100_000}, hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1])


@case("hf attention of 42 GB", "BD-FILE-02", slow=True)
def _(path: Path, marker: Path) -> None:
    sizes = {"hidden_size": 2, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 2}
    vision_folder(path, "ViT", {}, image_size=512, patch_size=2, **sizes)


@case("victim that asks for a download", "error", slow=True)
def _(path: Path, marker: Path) -> None:
    import hashlib

    path.mkdir()
    (path / "model.safetensors").write_bytes(_SHARD)
    task = {"name": "text/sst2", "params": {"network": {"name": "transformer", "params": {}}}}
    digest = hashlib.sha256(_SHARD).hexdigest()
    (path / "card.json").write_text(json.dumps({"task": task, "files": {"model.safetensors": digest}}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/scanner/hostile.py DIR")
    for made in build(Path(sys.argv[1])):
        print(ascii(made))
