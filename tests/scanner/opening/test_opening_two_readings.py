"""What is scanned is what is loaded: where two loaders could read two models, that is high, and nothing is judged."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from torchbands.core.errors import InputError
from torchbands.scanner.opening import Limits, archives, open_suspect
from torchbands.scanner.opening.refusal import Refusal

_SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "hostile.py")
assert _SPEC is not None and _SPEC.loader is not None
hostile = importlib.util.module_from_spec(_SPEC)
sys.modules["hostile"] = hostile
_SPEC.loader.exec_module(hostile)
READINGS, entries, plain = hostile.READINGS, hostile.entries, hostile.plain

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("name", READINGS)
def test_zip_archives_that_readers_read_differently(name: str) -> None:
    with pytest.raises(Refusal, match="nothing is judged") as caught:
        archives.opened(bytearray(READINGS[name]()), Limits())
    assert caught.value.alert.level == "high" and caught.value.alert.rule == "BD-FILE-02"


def test_archives_as_tools_write_them_have_one_reading() -> None:
    saved = io.BytesIO()
    torch.save({"w": torch.randn(3)}, saved)
    raw = saved.getvalue()
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
