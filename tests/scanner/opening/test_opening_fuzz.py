"""Random damage to valid files: the checks answer with Refusal or a result, quickly, and never otherwise."""

from __future__ import annotations

import io
import pickle
import random
import time
import zipfile
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save

from torchbands.core.errors import InputError
from torchbands.scanner.opening import Limits, archives, files, onnx_graph, pickles, tensors
from torchbands.scanner.opening.refusal import Refusal

LIMITS = Limits(seconds=5, megabytes=64)
SECONDS = 2.0


def _safetensors() -> bytes:
    return save({"a.weight": torch.zeros(3, 4), "b": torch.zeros(2, dtype=torch.int64), "c": torch.zeros(())})


def _torch_zip() -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.zeros(4, 4), "b": torch.ones(3)}, out)
    return out.getvalue()


def _pickle() -> bytes:
    return pickle.dumps({"a": [1, 2.5, "x" * 20], "b": (None, True, {"k": b"yy"})}, 4)


def _onnx() -> bytes:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    weights = b"\x08\x02\x10\x01" + field(8, b"w") + field(9, bytes(8))
    return b"\x08\x09" + field(2, b"maker") + field(7, field(1, node) + field(5, weights)) + field(8, b"\x10\x11")


def _read_safetensors(data: bytearray) -> None:
    if tensors.looks_like(data):
        made = tensors.tensors(data, tensors.header(data))
        assert sum(t.numel() * t.element_size() for t in made.values()) <= len(data)


def _read_zip(data: bytearray) -> None:
    archive = archives.opened(data, LIMITS)
    archive.strange()
    if archive.root is not None:
        pickles.walk_all(archive.read(f"{archive.root}data.pkl", 1 << 20)).overt()


def _read_onnx(data: bytearray) -> None:
    if onnx_graph.looks_like(data):
        onnx_graph.inspect(data).check()


def _read_json(data: bytearray) -> None:
    files.parse_json(data, "config.json")


SUBJECTS: dict[str, tuple[Callable[[], bytes], Callable[[bytearray], None]]] = {
    "safetensors": (_safetensors, _read_safetensors),
    "zip": (_torch_zip, _read_zip),
    "pickle": (_pickle, lambda data: pickles.walk_all(data).overt() and None),
    "onnx": (_onnx, _read_onnx),
    "json": (lambda: b'{"model_type": "vit", "id2label": {"0": "a", "1": "b"}, "x": [1, 2.5e3, null]}', _read_json),
}


def mutated(data: bytes, rng: random.Random) -> bytearray:
    """One to eight changes: bytes, bits, runs deleted, doubled or filled; numbers made large."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(out) + 1) if rng.random() < 0.5 else rng.randrange(min(len(out), 120) + 1)
        what, run = rng.randrange(6), rng.randint(1, 40)
        if what == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del out[at : at + run]
        elif what == 3:
            out[at:at] = out[at : at + run]
        elif what == 4:
            out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"99999999", b"[[[[{{{{"])
        else:
            del out[at:]
        if not out:
            out += b"\x00"
    return out


@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_files_end_as_findings(name: str) -> None:
    make, check = SUBJECTS[name]
    good = make()
    check(bytearray(good))  # an undamaged file passes
    rng, end, rounds, refused = random.Random(f"fuzz {name}"), time.monotonic() + SECONDS, 0, 0
    while rounds < 50 or (rounds < 20_000 and time.monotonic() < end):
        data, start = mutated(good, rng), time.monotonic()
        rounds += 1
        try:
            check(data)
        except (Refusal, InputError) as error:
            refused += 1
            said = error.message if isinstance(error, InputError) else str(error)
            assert said.isprintable(), ascii(said)
        assert time.monotonic() - start < 5, data
    assert refused > 0 or name == "pickle"


def test_generated_pickles_of_every_opcode() -> None:
    """Random instructions: walking them never fails, and an import in them is never missed."""
    import pickletools

    rng, names = random.Random(3), [o for o in pickletools.opcodes if o.arg is None]
    for _ in range(3000):
        body = bytearray(b"".join(rng.choice(names).code.encode("latin-1") for _ in range(rng.randint(1, 30))))
        walk = pickles.walk_all(b"\x80\x04" + bytes(body).replace(b".", b"N") + b"cos\nsystem\n.")
        assert "os.system" in walk.imports


def test_random_zip_directories_never_unpack_more_than_allowed() -> None:
    rng = random.Random(5)
    for _ in range(15):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            for i in range(rng.randint(1, 5)):
                file.writestr(f"a/{i}", bytes(rng.choice([10, 1000, 3 << 20])))
        data = bytearray(out.getvalue())
        try:
            archive = archives.opened(data, LIMITS)
        except Refusal:
            continue
        assert sum(archive.zip.getinfo(n).file_size for n in archive.names) <= LIMITS.bytes
