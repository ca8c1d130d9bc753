"""Public encoders, fine-tuned: weights from a Hugging Face style folder, code from the installed transformers."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from torchbands.core.errors import InputError, MissingExtra, NotApplicable
from torchbands.core.method import Free, method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network


class Classifier(nn.Module):
    """An encoder with a linear head. Input `(ids (N, L) int64, mask (N, L) bool)`; output logits `(N, classes)`."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, pool: str, source: str, dropout: float) -> None:
        super().__init__()
        self.encoder, self.pool, self.source = encoder, pool, source
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.read(self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    def read(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, classes) logits of one layer's (N, L, D) states."""
        if self.pool == "first":
            pooler: Any = self.encoder.pooler
            h = pooler(states)
        else:
            real = mask[..., None].to(states)
            h = (states * real).sum(1) / real.sum(1).clamp_min(1)
        logits: Tensor = self.head(self.dropout(h))
        return logits

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(N, L, D) each: what the embeddings and every block give, the last one last."""
        found = self.encoder(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        layers: tuple[Tensor, ...] = found.hidden_states
        return layers

    def pretrained_state(self) -> dict[str, Tensor]:
        """The public weights that training began from, by this module's own names; the head has none."""
        named = {f"encoder.{k}": v for k, v in _encoder(self.source).state_dict().items()}
        own = self.state_dict()
        return {k: v for k, v in named.items() if k in own}


@method("transformer", paper="Devlin et al., NAACL 2019, arXiv:1810.04805")
class TransformerNetwork(Network):
    """Pre-trained BERT-like encoder with a linear head; full fine-tuning, the head only, or LoRA."""

    free: ClassVar[Free] = {"encoder": ("minilm",)}

    encoder: str = "minilm"
    """"minilm" (all-MiniLM-L6-v2, 22.7 M parameters), or a folder with config.json, safetensors and tokenizer.json."""
    tune: Literal["full", "head", "lora"] = "full"
    """Which weights are trained; LoRA (Hu et al., ICLR 2022) adapts the queries and values."""
    pool: Literal["first", "mean"] = "first"
    """Sentence representation: the pooled state of the first token (BERT's), or the mean over all real tokens."""
    tokens: int = 64
    """Maximum number of tokens; longer texts are truncated."""
    rank: int = 8
    """Rank of the LoRA matrices."""
    dropout: float = 0.1
    """Dropout before the head."""

    def absent(self) -> str:
        from torchbands.core.errors import DataUnavailable
        from torchbands.datasets.language import encoder_files

        if self.encoder != "minilm":
            return ""
        try:
            encoder_files(self.encoder, fetch=False)
        except DataUnavailable:
            return f"the encoder {self.encoder}"
        return ""

    def reads(self, modality: Modality) -> Modality:
        from torchbands.modalities.tokenized import tokenized

        if not modality.has_words:
            raise NotApplicable(f"{self.name} reads text, not {modality.name}")
        return tokenized(_text(self.encoder, "tokenizer.json"), length=self.tokens)

    def build(self, modality: Modality, classes: int) -> nn.Module:
        if not modality.has_subwords:
            raise NotApplicable(f"{self.name} reads text by its own tokenizer, not {modality.name}")
        encoder = _encoder(self.encoder)
        width: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        if self.tune == "lora":
            encoder = _adapted(encoder, self.rank)
        if self.tune == "head":
            encoder.requires_grad_(False)
        return Classifier(encoder, width, classes, self.pool, self.encoder, self.dropout)


def _folder(encoder: str) -> Path:
    if encoder == "minilm":
        from torchbands.datasets.language import encoder_files

        return encoder_files("minilm")
    folder = Path(encoder).expanduser()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{encoder} has no {name}", hint='encoder is "minilm" or a folder of an encoder')
    return folder


@lru_cache(maxsize=4)
def _text(encoder: str, name: str) -> str:
    return (_folder(encoder) / name).read_text("utf-8")


def _encoder(encoder: str) -> nn.Module:
    """The public encoder, in float32; the folder's own code is never run."""
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ImportError:
        raise MissingExtra("transformers", "text") from None
    from safetensors.torch import load_file

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    settings: dict[str, Any] = json.loads(_text(encoder, "config.json"))
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    build: Any = AutoModel.from_config
    made: nn.Module = build(config, trust_remote_code=False)
    state = load_file(_folder(encoder) / "model.safetensors")
    wrong = made.load_state_dict(state, strict=False)
    if lost := [k for k in wrong.missing_keys if "position_ids" not in k and "pooler" not in k]:
        raise InputError(f"the weights of {encoder} lack {', '.join(lost[:5])}", hint="save the encoder again")
    return made.float()


def _adapted(encoder: nn.Module, rank: int) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtra("peft", "text") from None
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=["query", "value"])
    wrap: Any = get_peft_model
    made: nn.Module = wrap(encoder, config)
    return made


def export(module: nn.Module, to: Path, class_names: tuple[str, ...]) -> None:
    """Write a wholly tuned classifier with `pool="first"` as a Hugging Face folder: config, safetensors, tokenizer.

    Raises InputError for other modules.
    """
    from safetensors.torch import save_file

    if not isinstance(module, Classifier) or module.pool != "first" or hasattr(module.encoder, "peft_config"):
        raise InputError('only a transformer with tune="full" or "head" and pool="first" is written as a folder')
    settings = json.loads(_text(module.source, "config.json"))
    kind = {"bert": "BertForSequenceClassification"}.get(settings["model_type"])
    if kind is None:
        raise InputError(f"only BERT-like encoders are written as a folder, got {settings['model_type']}")
    settings |= {
        "architectures": [kind],
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
    }
    state = {f"bert.{k}": v for k, v in module.encoder.state_dict().items()}
    state |= {f"classifier.{k}": v for k, v in module.head.state_dict().items()}
    to.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, to / "model.safetensors")
    (to / "config.json").write_text(json.dumps(settings, indent=1), "utf-8")
    (to / "tokenizer.json").write_text(_text(module.source, "tokenizer.json"), "utf-8")
