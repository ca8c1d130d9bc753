"""A BERT of a few layers in a folder as Hugging Face writes it, and the toy sentences as a task that it reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from torchbands.core.data import whole
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.networks.transformer import TransformerNetwork
from torchbands.tasks.text import TextFile
from torchbands.testing import synthetic

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SETTINGS = {
    "model_type": "bert",
    "vocab_size": 0,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def write_encoder(folder: Path) -> Path:
    """config.json, model.safetensors and tokenizer.json of an encoder that nothing has trained."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *synthetic.VOCABULARY))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    settings = SETTINGS | {"vocab_size": len(vocabulary)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = BertModel(BertConfig(**{k: v for k, v in settings.items() if k != "model_type"}))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    save_file(encoder.state_dict(), folder / "model.safetensors")
    return folder


def tiny_task(folder: Path, **network: object) -> Task:
    """The toy sentences in a file, read by an encoder in `folder`; both are made where they are not there.

    The encoder has learned the words from the clean part, as a public one has from elsewhere.
    """
    encoder, path = folder / "encoder", folder / "rows.csv"
    if not path.is_file():
        write_encoder(encoder)
        toy = build("toy/text")
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("text", "label", "split"))
            for part in ("train", "clean", "test"):
                data = toy.load(part)
                rows.writerows((text, f"c{y}", part) for text, y in zip(whole(data.x), data.y.tolist(), strict=True))
        # a network's first weights are drawn by its settings, which name the temporary folder: every run draws others,
        # and a few epochs leave some encoders that have learned too little for a head alone
        began = _task(path, encoder)
        began = began.but(learner=began.learner.but(epochs=16))
        learned = began.train(began.load("clean")).module
        save_file(learned.encoder.state_dict(), encoder / "model.safetensors")
    return _task(path, encoder, **network)


def _task(path: Path, encoder: Path, **network: object) -> Task:
    settings = {"encoder": str(encoder), "tokens": 24, "dropout": 0.0, **network}
    return TextFile(
        path=str(path),
        network=TransformerNetwork(**settings),
        learner=SGD(epochs=4, batch=32, lr=1e-3, optimizer="adamw", precision="float32"),
    )
