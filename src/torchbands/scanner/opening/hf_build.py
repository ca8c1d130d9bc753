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
        self.body, self.text = body, text

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.body(values, attention_mask=mask.long()) if self.text and mask is not None else self.body(values)
        logits: Tensor = out.logits
        return logits


def warm() -> None:
    """Import what building needs."""
    import transformers  # noqa: F401
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification  # noqa: F401


def build_body(kind: str, model_type: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised classifier of the installed transformers."""
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    made = AutoConfig.for_model(model_type, **config)
    auto = AutoModelForSequenceClassification if kind == "text" else AutoModelForImageClassification
    body: nn.Module = auto.from_config(made, attn_implementation="eager", trust_remote_code=False)
    return body


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Build on the meta device under limits and say what the model looks like; try the tokenizer."""
    with torch.device("meta"):
        body = build_body(job["kind"], job["model_type"], job["config"])
    config: Any = body.config
    reply: dict[str, Any] = {
        "shapes": {name: list(t.shape) for name, t in body.state_dict().items()},
        "elements": sum(t.numel() for t in [*body.parameters(), *body.buffers()]),
        "classes": int(config.num_labels),
    }
    if job["kind"] == "vision":
        size = getattr(config, "image_size", None)
        reply |= {"size": size if isinstance(size, int) else (size or [0])[0], "channels": config.num_channels}
    else:
        reply |= {"length": getattr(config, "max_position_embeddings", 512), "tokens": config.vocab_size}
        if job.get("tokenizer"):
            reply |= _tokenizer(job["tokenizer"], config.vocab_size)
    return reply


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
