"""What lies beside a Hugging Face model and changes what it reads: obeyed, told or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from torchbands.core.errors import InputError, Unsupported
from torchbands.modalities.image import Image
from torchbands.scanner.opening import hf_images, open_suspect
from torchbands.scanner.opening.hf_tokenizer import check_padding, differences
from torchbands.scanner.opening.refusal import Refusal
from torchbands.scanner.opening.weights import State

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZED = {"size": 8, "channels": 3}


def read(settings: dict[str, Any]) -> tuple[torch.Tensor, list[str]]:
    """What X becomes, and what is told."""
    state = State()
    mean, std = hf_images.scale_of(settings, 3, state)
    x = X if mean is None else (X - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    return x.flip(1) if hf_images.flipped(settings) else x, state.facts.get("notes", [])


@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": True},
        {"do_normalize": False, "do_rescale": False},
        {"do_normalize": False, "rescale_factor": 2 / 255},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]},
        {"image_mean": 0.5, "image_std": 0.25, "do_rescale": False},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "rescale_factor": 1 / 127.5},
        {"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"do_normalize": False, "do_flip_channel_order": True},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "do_flip_channel_order": True},
    ],
    ids=str,
)
def test_pixels_go_in_as_the_image_processor_makes_them(settings: dict[str, Any]) -> None:
    """Recomputed step by step on bytes, as transformers does it."""
    want = X * 255
    if settings.get("do_rescale", True):
        want = want * settings.get("rescale_factor", 1 / 255) - int(settings.get("rescale_offset", 0))
    want = want.flip(1) if settings.get("do_flip_channel_order") else want
    if settings.get("do_normalize", True):
        mean, std = (torch.tensor(settings[k]).expand(3).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
        want = (want - mean) / std
    found, notes = read(settings)
    assert torch.allclose(found, want, atol=1e-4, rtol=1e-4)
    scaled = not settings.get("do_rescale", True) or settings.get("rescale_factor", 1 / 255) != 1 / 255
    assert scaled == any("rescale_factor" in n for n in notes)


def test_what_is_not_done_or_makes_no_sense() -> None:
    assert "do_pad" in str(read({"do_pad": True})[1])
    for wrong in ({"image_mean": [0.5]}, {"rescale_factor": 0.0}, {"image_std": [0, 1, 1]}, {"rescale_factor": "x"}):
        with pytest.raises(Refusal):
            read(wrong)
    state = State()
    with pytest.raises(Unsupported, match="only squares"):
        hf_images.image_of(SIZED, {"size": {"height": 8, "width": 16}}, None, state)
    settings = {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 12, "width": 12}}
    assert hf_images.image_of(SIZED, settings, None, state) == Image(channels=3, size=8)
    assert "says 12 pixels, config.json 8" in state.facts["notes"][0] and "cuts 12 out of 16" in state.facts["notes"][1]
    bare = {"size": None, "channels": 3}
    assert hf_images.image_of(bare, {}, Image(channels=3, size=4), state) == Image(channels=3, size=4)
    with pytest.raises(InputError, match="how large"):
        hf_images.image_of(bare, {}, None, state)


def test_a_folder_is_read_by_its_preprocessor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=4,
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path)
    assert open_suspect(tmp_path).facts["normalisation"] == "none"  # told by the command line
    said = {"do_normalize": False, "rescale_factor": 2 / 255, "do_flip_channel_order": True, "size": 8}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    suspect = open_suspect(
        tmp_path, modality=Image(channels=3, size=32)
    )  # rows of another size are scaled to the model's
    assert suspect.model is not None and suspect.model.modality == Image(channels=3, size=8)
    with torch.no_grad():
        assert torch.allclose(suspect.model.logits(X), net(2 * X.flip(1)).logits, atol=1e-4)


def test_a_decoder_without_padding_gets_the_line_that_helps() -> None:
    with pytest.raises(Unsupported, match="pad_token_id") as error:
        check_padding({"model_type": "gpt2"}, {"eos_token": "<|endoftext|>"})
    assert "model.config.pad_token_id" in error.value.hint and "|endoftext|" in error.value.hint
    check_padding({"model_type": "gpt2", "pad_token_id": 0}, {})
    check_padding({"model_type": "bert"}, {})


def test_tokenizer_files_that_differ_are_told() -> None:
    bert = {"type": "BertNormalizer", "lowercase": False, "strip_accents": None}
    table = {"normalizer": {"type": "Sequence", "normalizers": [bert]}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    assert differences(table, {"do_lower_case": False}) == [] == differences(table, {})
    assert "do_lower_case True (there: lowercase False)" in differences(table, {"do_lower_case": True})[0]
    level = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}
    assert "add_prefix_space True" in differences(level, {"add_prefix_space": True})[0]
    assert "their ends are cut" in differences({}, {"truncation_side": "left"})[0]
