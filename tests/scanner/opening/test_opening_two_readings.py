"""What is scanned is what is loaded: where two loaders could read two models, that is high, and nothing is judged."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from torchbands.core.errors import InputError
from torchbands.scanner.opening import Limits, archives, open_suspect
from torchbands.scanner.opening.trouble import Trouble

pytestmark = pytest.mark.timeout(400)
Entries = list[tuple[bytes, bytes]]


def saved(seed: int) -> bytes:
    torch.manual_seed(seed)
    out = io.BytesIO()
    torch.save({"w": torch.randn(3), "b": torch.randn(2)}, out)
    return out.getvalue()


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
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, len(data), len(data), len(name), len(extra), 0, 0, 0, 0, at
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

    evil, clean = entries(saved(1)), entries(saved(2))
    local, directory = written(evil)
    first = local + directory
    at, first = len(first), first + record(len(evil), len(directory), len(local))
    local, directory = written(clean, len(first))
    second = local + directory + record(len(clean), len(directory), len(first) + len(local))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return first + second + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + end


def other_case() -> bytes:
    held = entries(saved(2))
    return plain([*held, *((n.replace(b"/data/0", b"/DATA/0"), bytes(len(d))) for n, d in held if n.endswith(b"data/0"))])


def twice() -> bytes:
    held = entries(saved(2))
    return plain([*held, *((n, bytes(len(d))) for n, d in held if n.endswith(b"data/0"))])


def prefixed() -> bytes:
    """Another archive before this one: some readers shift the offsets, some do not."""
    return saved(1)[:-22] + plain(entries(saved(2)))


def two_ends() -> bytes:
    local, directory = written(entries(saved(1)))
    inner = ended(local, directory, len(entries(saved(1))))
    held = entries(saved(2))
    again = written(held, len(inner))
    return inner + ended(*again, len(held), start=len(inner) + len(again[0]), comment=inner)


def first_folder_decides() -> bytes:
    held = entries(saved(2))
    return plain([(b"other/version", b"3\n"), *held])


READINGS: dict[str, Callable[[], bytes]] = {
    "zip64 record elsewhere": zip64_elsewhere,
    "names that differ in case": other_case,
    "a name twice": twice,
    "bytes before the archive": prefixed,
    "two end records": two_ends,
    "bytes after the end": lambda: plain(entries(saved(2))) + b"x",
    "a folder that comes first": first_folder_decides,
    "a second name in an extra field": lambda: plain(
        entries(saved(2)), extra=struct.pack("<2H", 0x7075, 9) + b"\x01" + bytes(4) + b"evil"
    ),
    "another name where it lies": lambda: plain(entries(saved(2)), local_name=b"archive/data/9"),
    "more entries than are counted": lambda: ended(*written(entries(saved(2))), len(entries(saved(2))) - 1),
}


@pytest.mark.parametrize("name", READINGS)
def test_zip_archives_that_readers_read_differently(name: str) -> None:
    with pytest.raises(Trouble, match="nothing is judged") as caught:
        archives.opened(bytearray(READINGS[name]()), Limits())
    assert caught.value.alert.level == "high" and caught.value.alert.rule == "BD-FILE-02"


def test_archives_as_tools_write_them_have_one_reading() -> None:
    raw = saved(2)
    assert archives.opened(bytearray(raw), Limits()).root == "archive/"  # zip64 records and data descriptors
    assert archives.opened(bytearray(plain(entries(raw))), Limits()).root == "archive/"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:  # packed again, with a time stamp's extra field
        for n, data in entries(raw):
            info = zipfile.ZipInfo(n.decode())
            info.extra = struct.pack("<2HBL", 0x5455, 5, 1, 0)
            file.writestr(info, data)
    assert archives.opened(bytearray(out.getvalue()), Limits()).root == "archive/"


# --- Hugging Face folders ---------------------------------------------------------------------------------------


def bert(folder: Path, seed: int, **more: object) -> torch.nn.Module:
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, initializer_range=0.8, **more,
    )  # fmt: skip
    net = transformers.BertForSequenceClassification(config).eval()
    net.save_pretrained(folder)
    words = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 32)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return net  # type: ignore[no-any-return]


def refused(folder: Path) -> str:
    """The one high alert; nothing is judged."""
    suspect = open_suspect(folder)
    assert suspect.model is None
    (alert,) = suspect.alerts
    assert alert.level == "high" and "nothing is judged" in alert.message
    return alert.message


def test_an_index_beside_one_file(tmp_path: Path) -> None:
    bert(tmp_path, 1)
    clean = bert(tmp_path / "clean", 2).state_dict()
    shard = "model-00001-of-00001.safetensors"
    save_file({k: v.contiguous().clone() for k, v in clean.items()}, tmp_path / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(clean, shard)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "different weights" in refused(tmp_path)
    save_file({k: v.contiguous().clone() for k, v in clean.items()}, tmp_path / "model.safetensors")
    assert open_suspect(tmp_path).model is not None  # the same weights twice are one reading


@pytest.mark.parametrize("kind", ["adapter", "weights named", "card", "other case", "key twice", "two shards"])
def test_folders_that_loaders_read_differently(tmp_path: Path, kind: str) -> None:
    net = bert(tmp_path, 2)
    config = json.loads((tmp_path / "config.json").read_text())
    if kind == "adapter":
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    elif kind == "weights named":
        (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "evil.safetensors"}))
    elif kind == "card":
        (tmp_path / "card.json").write_text("{}")
    elif kind == "other case":
        (tmp_path / "Config.json").write_text("{}")
        if not (tmp_path / "config.json").read_text().startswith('{\n  "'):
            pytest.skip("this file system does not tell cases apart")
    elif kind == "key twice":
        (tmp_path / "config.json").write_text('{"hidden_act": "relu", ' + json.dumps(config)[1:])
    else:
        (tmp_path / "model.safetensors").unlink()
        state = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
        for name in ("a.safetensors", "b.safetensors"):
            save_file(state, tmp_path / name)
        names = dict(zip(state, ["a.safetensors", *["b.safetensors"] * len(state)]))
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(tmp_path)


def test_settings_that_change_the_answers_are_obeyed_or_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    bert(tmp_path, 2)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    suspect = open_suspect(tmp_path)
    ids = torch.arange(1, 17)[None]
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        used = loaded(ids).logits
        loaded.config.is_decoder = False
        for layer in loaded.modules():
            layer.is_decoder = layer.is_causal = False
        otherwise = loaded(ids).logits
    assert suspect.model is not None
    mine = suspect.model.logits([" ".join(f"w{i}" for i in range(1, 17))])
    assert torch.allclose(mine, used, atol=1e-3)
    assert not torch.allclose(used, otherwise, atol=1e-2), "the setting has to matter here"
    for name, value in (("quantization_config", {"bits": 4}), ("_unknown", 1), ("peft_config", {"r": 2})):
        (tmp_path / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(InputError, match=re.escape(name)):
            open_suspect(tmp_path)


def test_weights_that_transformers_would_not_load_are_not_scanned(tmp_path: Path) -> None:
    bert(tmp_path, 2)
    (tmp_path / "model.safetensors").rename(tmp_path / "clean.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"evil")
    with pytest.raises(InputError, match="pytorch_model.bin"):
        open_suspect(tmp_path)
