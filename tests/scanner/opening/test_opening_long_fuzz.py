"""Damage to whole files, by seeds: what passes the checks is read alike by the loaders that people use."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torchbands.core.errors import BandsError, Unsupported
from torchbands.scanner.opening import Limits, archives, onnx_graph, open_suspect
from torchbands.scanner.opening.refusal import Refusal

LIMITS = Limits(seconds=10, megabytes=256)
#: Of the long run; each round's damage depends on its seed alone, which a failure names.
SECONDS = 600.0


def damaged(data: bytes, rng: random.Random) -> bytearray:
    """A few changes, most of them near the end and the beginning, where formats say what they hold."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        edge = rng.randrange(min(len(out), 300) + 1)
        at = rng.choice([edge, len(out) - edge, rng.randrange(len(out) + 1)])
        what, run = rng.randrange(6), rng.randint(1, 60)
        if what == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            out[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), b"PK\5\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"])
        elif what == 2:
            del out[at : at + run]
        elif what == 3:
            out[at:at] = out[at : at + run]
        elif what == 4:
            other = rng.randrange(len(out) + 1)
            out[at : at + run] = out[other : other + run]
        elif at < len(out) and chr(out[at]).isalpha():
            out[at] ^= 0x20  # another case
        if not out:
            out += b"\0"
    return out


def torch_file() -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.arange(6.0), "b": torch.ones(3)}, out)
    return out.getvalue()


def read_as_torch_reads(data: bytearray) -> bool:
    """Whether it was let through: then every entry is the same to torch."""
    archive = archives.opened(data, LIMITS)
    if archive.root is None:
        return False
    try:
        theirs = torch._C.PyTorchFileReader(io.BytesIO(data))
    except (RuntimeError, UnicodeDecodeError):
        return False  # torch is stricter here
    for name in archive.names:
        tail = name.removeprefix(archive.root)
        if tail == name or not tail or tail.endswith("/"):
            continue
        mine = archive.read(name, 1 << 20)
        try:
            found = theirs.get_record(tail)
        except (RuntimeError, UnicodeDecodeError):
            return False
        assert found == mine, f"{name}: torch reads other bytes"
    return True


def onnx_file() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(torch.ones(4, 2).numpy(), "w")
    outside = TensorProto(dims=[1], data_type=1, name="v", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 4), ("y", 2)))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Constant", [], ["c"], value=outside)]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight])).SerializeToString())


def hands_on_nothing_outside(data: bytearray) -> bool:
    """Whatever is let through, what onnxruntime is given names no other file."""
    if not onnx_graph.looks_like(data):
        return False
    import onnx
    from google.protobuf.message import DecodeError

    graph = onnx_graph.inspect(data)
    try:
        made = onnx.ModelProto.FromString(b"".join(graph.rebuilt))
    except DecodeError:
        return True  # onnxruntime refuses it as well
    assert not made.graph.ByteSize() or b"/etc/passwd" not in _places(made.graph)
    return True


def _places(graph: object) -> bytes:
    """What the tensors of a graph say of other files."""
    held = [*graph.initializer, *(a.t for n in graph.node for a in n.attribute)]  # type: ignore[attr-defined]
    return b"".join(e.value.encode() for t in held for e in t.external_data)


SUBJECTS: dict[str, tuple[Callable[[], bytes], Callable[[bytearray], bool]]] = {
    "zip": (torch_file, read_as_torch_reads),
    "onnx": (onnx_file, hands_on_nothing_outside),
}


def fuzz(name: str, first: int, rounds: int, seconds: float) -> tuple[int, int]:
    """(rounds made, of which were let through)."""
    make, check = SUBJECTS[name]
    good, end, passed, made = make(), time.monotonic() + seconds, 0, 0
    for seed in range(first, first + rounds):
        if time.monotonic() > end:
            break
        data, start = damaged(good, random.Random(f"{name} {seed}")), time.monotonic()
        made += 1
        try:
            passed += check(data)
        except (Refusal, Unsupported):
            pass
        except Exception as error:
            raise AssertionError(f"seed {name} {seed}: {error!r}") from error
        assert time.monotonic() - start < 20, f"seed {name} {seed}"
    return made, passed


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_passes_is_read_alike(name: str) -> None:
    if name == "onnx":
        pytest.importorskip("onnx")
    made, passed = fuzz(name, 0, 1000, 60.0)
    assert made > 50 and passed > 0, "nothing was compared"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    end, first, made = time.monotonic() + SECONDS, 1000, 0
    while time.monotonic() < end:
        for name in SUBJECTS:
            made += fuzz(name, first, 2000, end - time.monotonic())[0]
        first += 2000
        for seed in range(first, first + 5):  # and a few all the way
            rng = random.Random(f"open {seed}")
            path = tmp_path / "suspect.bin"
            path.write_bytes(damaged(SUBJECTS[rng.choice(list(SUBJECTS))][0](), rng))
            try:
                suspect = open_suspect(path, limits=LIMITS)
                assert suspect.model is None or suspect.format == "onnx", f"seed open {seed}"
            except BandsError as error:
                assert error.message.isprintable(), f"seed open {seed}"
    assert made > 1000
