"""Building Hugging Face classifiers from a cleaned config, with the installed classes only; and the child's probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Texts that a tokenizer must survive before it is used.
_SAMPLES = [
    "a small test",
    "",
    "x" * 2000,
    "a " * 1000,
    "\u00e9\u4e2d\U0001f600 \x00\n\t",
    "((((((((((aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
]


class Logits(nn.Module):
    """A Hugging Face classifier as a function of values (and a mask, for text) to (N, classes) logits."""

    def __init__(self, body: nn.Module, text: bool) -> None:
        super().__init__()
        self.body, self.text, self.flip = body, text, False

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        values = values.flip(1) if self.flip else values  # channels from last to first
        out = self.body(values, attention_mask=mask.long()) if self.text and mask is not None else self.body(values)
        logits: Tensor = out.logits
        return logits


def as_classifier(body: nn.Module, model_type: str) -> nn.Module | None:
    """A BERT text classifier as the network `transformer` has it, so that it can be compared with references of that
    network, which begin from the same public encoder. None for other types."""
    from torchbands.networks.transformer import Classifier

    encoder, head = getattr(body, "bert", None), getattr(body, "classifier", None)
    if model_type != "bert" or not isinstance(encoder, nn.Module) or not isinstance(head, nn.Linear):
        return None
    made = Classifier(encoder, head.in_features, head.out_features, "first", "", 0.1)
    made.head.load_state_dict(head.state_dict())
    return made


def warm(model_type: str) -> None:
    """Import what building a type needs. Nothing of the suspect but its (known) type is used."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]
    for auto in (AutoModelForSequenceClassification, AutoModelForImageClassification):
        if config in auto._model_mapping:
            auto._model_mapping[config]


def build_body(kind: str, model_type: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised classifier of the installed transformers, which never sees the folder."""
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    made = AutoConfig.for_model(model_type, **config)
    auto = AutoModelForSequenceClassification if kind == "text" else AutoModelForImageClassification
    build: Any = auto.from_config
    body: nn.Module = build(made, attn_implementation="eager", trust_remote_code=False)
    return body


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Build the classifier, fill it from job["weights"] and write it to job["out"] under its own names.

    Released checkpoints often have older names than the installed class, and only transformers knows how they map.
    """
    with torch.device("meta"):  # sizes first: this allocates nothing
        body = build_body(job["kind"], job["model_type"], job["config"])
    config: Any = body.config
    needed = 4 * sum(t.numel() for t in [*body.parameters(), *body.buffers()])
    if needed > job["megabytes"] << 20:
        return {"error": f"config.json asks for {needed >> 20:,} MB of weights"}
    reply: dict[str, Any] = {"classes": int(config.num_labels), **_converted(body, job)}
    if job["kind"] == "vision":
        size = getattr(config, "image_size", None)
        reply |= {"size": size if isinstance(size, int) else (size or [0])[0], "channels": config.num_channels}
    else:
        reply |= {"length": getattr(config, "max_position_embeddings", 512), "tokens": config.vocab_size}
        if job.get("tokenizer"):
            reply |= _tokenizer(job["tokenizer"], config.vocab_size)
    return reply


def _converted(body: nn.Module, job: dict[str, Any]) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    kind: Any = type(body)
    filled, told = kind.from_pretrained(
        None,
        config=body.config,
        state_dict=load_file(job["weights"]),
        attn_implementation="eager",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        local_files_only=True,
    )
    wrong = [f"{name} is {tuple(have)}, expected {tuple(want)}" for name, have, want in told["mismatched_keys"]]
    missing, spare = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if not missing and not wrong:
        _tried(filled.eval(), job["kind"])
        state = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in filled.state_dict().items()}
        save_file(state, job["out"])
    return {"missing": missing, "wrong": wrong, "spare": spare}


def _tried(body: Any, kind: str) -> None:
    """A pass at the size that the config asks for, while the limits of this process hold."""
    from torchbands.modalities.image import Image

    from .limits import MAX_CHANNELS, MAX_EDGE, MAX_TEXT
    from .trial import weigh, weigh_ids

    config = body.config
    if kind == "text":
        reserved = config.pad_token_id or 0
        length = min(getattr(config, "max_position_embeddings", MAX_TEXT) - reserved - 1, MAX_TEXT)
        weigh_ids(body, max(1, length))
        return
    size = getattr(config, "image_size", None) or 32
    size = size if isinstance(size, int) else size[0]
    if not 1 <= size <= MAX_EDGE or not 1 <= config.num_channels <= MAX_CHANNELS:
        raise ValueError(f"images of {size} x {size} with {config.num_channels} channels")
    weigh(Logits(body, False), Image(channels=config.num_channels, size=size), int(config.num_labels))


def _tokenizer(file: str, tokens: int) -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for sample in _SAMPLES:
        tokenizer.encode(sample)
    if tokenizer.get_vocab_size() > tokens:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model {tokens}")
    encoded = tokenizer.encode("a")
    prefix = 0
    for special in encoded.special_tokens_mask:
        if not special:
            break
        prefix += 1
    return {"prefix": prefix, "special": sum(encoded.special_tokens_mask)}
