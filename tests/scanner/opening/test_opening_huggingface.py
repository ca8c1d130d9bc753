"""Hugging Face folders: text and images, built from the installed transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from torchbands.core.seeding import RowRng
from torchbands.scanner.opening import open_suspect

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.timeout(500)

TEXTS = ["a good film", "bad", "the film was bad and the film was long and the film was very bad indeed"]


def text_folder(folder: Path) -> transformers.PreTrainedModel:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "a",
        "good",
        "film",
        "bad",
        "the",
        "was",
        "and",
        "long",
        "very",
        "##ed",
    ]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    net = transformers.BertForSequenceClassification(config).eval()
    net.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return net


def test_text(tmp_path: Path) -> None:
    net = text_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'w')")
    suspect = open_suspect(tmp_path)
    assert suspect.model is not None and suspect.model.classes == 3
    assert {(a.rule, a.level) for a in suspect.alerts} == {("BD-FILE-03", "low"), ("BD-FILE-03", "medium")}
    assert not (tmp_path / "EXECUTED").exists()
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(12)
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            expected = net(ids).logits
        assert torch.allclose(suspect.model.logits(TEXTS)[i : i + 1], expected, atol=1e-4)
    _searchable(suspect.model)


def _searchable(model) -> None:  # type: ignore[no-untyped-def]
    """A trigger can be searched in it, and what is found is words."""
    e = model.embed(TEXTS)
    assert e.tokens is not None and torch.allclose(model.logits_at(e), model.logits(TEXTS), atol=1e-4)
    search = model.modality.perturbation(model, RowRng(0, torch.arange(3)))
    model.logits_at(search(e, torch.arange(3))).sum().backward()
    assert search.logits.grad is not None and search.logits.grad.abs().sum() > 0
    trigger = search.harden(0)
    assert set(trigger.words) <= {"good", "film", "bad", "the", "was", "and", "long", "very"} and trigger.words
    assert model.head is not None and model.features(TEXTS).shape == (3, 16)


def test_images(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=4, id2label={i: f"class {i}" for i in range(4)},
    )  # fmt: skip
    torch.manual_seed(0)
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "size": {"height": 8, "width": 8}})
    )
    suspect = open_suspect(tmp_path)
    assert suspect.model is not None and suspect.alerts == () and suspect.format == "huggingface"
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net((x - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 0.2).logits
    assert torch.allclose(suspect.model.logits(x), expected, atol=1e-4)
    assert suspect.facts["class_names"] == [f"class {i}" for i in range(4)]
