"""A Hugging Face folder: config.json and safetensors, built from the installed transformers; no code of the folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from torchbands.core.errors import InputError, MissingExtra, Unsupported
from torchbands.core.modality import Modality
from torchbands.core.model import Model

from . import claims, hf_images, tensors
from .architecture import finished, standardised
from .files import Folder, parse_json, read
from .hf_config import class_names, cleaned, kind_of
from .hf_files import weights_of
from .hf_tokenizer import check as check_tokenizer
from .hf_tokenizer import check_padding, differences
from .limits import MAX_JSON, MAX_TEXT, MAX_TOKENIZER, Limits
from .private import Private
from .process import Child
from .refusal import alert, listed, shown
from .weights import Numbers, State, Weights

_SETTINGS = "tokenizer_config.json"


def from_folder(
    folder: Folder,
    state: State,
    limits: Limits,
    modality: Modality | None,
    classes: int | None,
    mean: Numbers | None,
    std: Numbers | None,
) -> Model:
    """A text or image classifier. Raises Refusal for hostile files, InputError for what is not opened here."""
    state.format = "huggingface"
    config = parse_json(folder.read("config.json", MAX_JSON), "config.json")
    _remote_code(folder, config, state)
    kind, model_type = kind_of(config)
    weights = weights_of(folder, config, limits, state)
    state.facts |= {**weights.facts(), "model_type": model_type}
    settings = cleaned(config, len(weights.tensors))
    weights.afford(limits.bytes)
    weights.check()
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("transformers", "text")
    tokenizer = folder.read("tokenizer.json", MAX_TOKENIZER).decode("utf-8", "replace") if _tokenized(folder) else ""
    reading: dict[str, Any] = {}
    if tokenizer:
        table = parse_json(bytearray(tokenizer.encode()), "tokenizer.json")
        check_tokenizer(table)
        if kind == "text" and _SETTINGS in folder.names:
            reading = parse_json(folder.read(_SETTINGS, MAX_JSON), _SETTINGS)
            for remark in differences(table, reading):
                state.tell(remark)
    if kind == "text":
        check_padding(config, reading)
    if kind == "text" and modality is None and not tokenizer:
        raise Unsupported(
            "the folder has no tokenizer.json",
            hint="save the fast one beside the model: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)",
        )
    module, told = _loaded(kind, model_type, settings, weights, tokenizer if kind == "text" else "", limits, state)
    if classes is not None and classes != told["classes"]:
        raise InputError(f"config.json says {told['classes']} classes, given: {classes}")
    if kind == "vision":
        from .hf_build import Logits

        images = hf_images.settings_of(folder, state)
        modality = hf_images.image_of(told, images, modality, state)
        if mean is None and std is None:
            mean, std = hf_images.scale_of(images, told["channels"], state)
        if isinstance(module, Logits):
            module.flip = hf_images.flipped(images)
    elif tokenizer and (modality is None or not modality.has_subwords):
        modality = _text(told, config, tokenizer, reading, state)
    assert modality is not None
    module = standardised(module, modality, mean, std, state)
    claims.of_folder(folder, state)
    state.facts["class_names"] = class_names(config, told["classes"])
    return finished(module, modality, told["classes"], state)


def _remote_code(folder: Folder, config: Mapping[str, Any], state: State) -> None:
    """auto_map makes transformers import the folder's code where it is trusted; here it never is."""
    tables = {"config.json": config}
    for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if name in folder.names:
            tables[name] = parse_json(folder.read(name, MAX_JSON), name)
    for name, table in tables.items():
        if found := table.get("auto_map"):
            said = f"{name} asks for code of its own (auto_map: {shown(found, 100)}); it was not run"
            state.alerts.append(alert("BD-FILE-03", said, subject=f"{name}: auto_map"))


def _tokenized(folder: Folder) -> bool:
    return "tokenizer.json" in folder.names


def _loaded(
    kind: str,
    model_type: str,
    config: Mapping[str, Any],
    weights: Weights,
    tokenizer: str,
    limits: Limits,
    state: State,
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier, and what the child process found out while it built the same under limits."""
    from safetensors.torch import save_file

    from .hf_build import Logits, as_classifier, build_body

    with Private() as at, Child(f"transformers/{model_type}", at, limits) as child:
        given, out, words = at / "given.safetensors", at / "made.safetensors", at / "tokenizer.json"
        save_file(weights.tensors, given)
        words.write_text(tokenizer, "utf-8")
        job: dict[str, Any] = {"kind": kind, "model_type": model_type, "config": config}
        files = {"weights": str(given), "out": str(out), "tokenizer": str(words) if tokenizer else ""}
        told = child.ask({**job, **files})
        if told["missing"] or told["wrong"]:
            raise _misfit(model_type, told)
        weights.tensors.clear()  # held again below, under the names of the class
        data = read(out, limits.bytes)
    made = tensors.tensors(data, tensors.header(data))
    del data
    with torch.random.fork_rng(devices=[]):
        body = build_body(kind, model_type, config)
    body.load_state_dict(made)
    state.facts["weights_matched"] = "by transformers"
    if told["spare"]:
        state.facts["weights_not_used"] = told["spare"][:50]
    return as_classifier(body, model_type) or Logits(body, kind == "text"), told


def _misfit(model_type: str, told: Mapping[str, Any]) -> InputError:
    parts = [f"{len(told['missing'])} missing ({listed(told['missing'], 3)})"] if told["missing"] else []
    if told["wrong"]:
        parts.append(f"{len(told['wrong'])} of another shape ({listed(told['wrong'], 3)})")
    return InputError(
        f"the weights do not fit the transformers class of model_type {model_type!r}: {'; '.join(parts)}",
        hint="the folder is incomplete, or holds another kind of model than a classifier of texts or images",
    )


def _text(
    told: Mapping[str, Any], config: Mapping[str, Any], tokenizer: str, reading: Mapping[str, Any], state: State
) -> Modality:
    from torchbands.modalities.tokenized import tokenized

    pad = config.get("pad_token_id")
    pad = pad if isinstance(pad, int) and 0 <= pad < told["tokens"] else 0
    reserved = pad + 1 if config.get("model_type") in ("roberta", "camembert", "xlm-roberta") else 0
    length = min(int(told["length"]) - reserved, MAX_TEXT)
    longest = reading.get("model_max_length")
    if isinstance(longest, int) and 0 < longest < length:
        length = longest
        state.tell(f"{_SETTINGS} says model_max_length {longest}: texts are read so far")
    return tokenized(tokenizer, length=max(length, told["special"] + 2), padding=pad, prefix=told["prefix"])
