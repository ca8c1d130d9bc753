"""Every trigger is written where the network reads it, whatever the network and however long the text."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from text_planting import make

from torchbands.attacks.federated import ByzantineAttack
from torchbands.core.data import Data, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.registry import build, listing
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.learners.sgd import SGD
from torchbands.modalities.text import Text
from torchbands.modalities.tokenized import tokenized
from torchbands.tasks.text import TextFile
from torchbands.testing import toy
from torchbands.triggers.room import TextRoom
from torchbands.triggers.text import InsertWords

NETWORKS = ("text-cnn", "gru", "transformer")


def rng(n: int, seed: int = 0) -> RowRng:
    return RowRng(seed, torch.arange(n))


@pytest.fixture(scope="module")
def long_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of 50 to 130 words, a network of each kind reads 16 tokens of them."""
    from tiny_bert import write_encoder

    folder = tmp_path_factory.mktemp("long")
    write_encoder(folder / "encoder")
    lines = ["text\tlabel\tsplit"]
    for split in ("train", "test"):
        data = toy("text").load(split)[:200]
        lines += [f"{' '.join([text] * 9)}\tc{y}\t{split}" for text, y in zip(data.x, data.y.tolist(), strict=True)]
    (folder / "rows.tsv").write_text("\n".join(lines), "utf-8")
    return folder


@lru_cache(maxsize=3)
def _task(folder: Path, network: str) -> Task:
    tiny: dict[str, Any] = {"encoder": str(folder / "encoder"), "tokens": 16} if network == "transformer" else {}
    made = build({"name": network, **tiny}, "network")
    learner = SGD(epochs=1, batch=64, lr=1e-3, optimizer="adamw", precision="float32")
    return TextFile(path=str(folder / "rows.tsv"), network=made, learner=learner, length=16)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", [cls.name for cls in listing("attack")])
def test_every_attack_on_text_is_read_by_every_network(name: str, network: str, long_texts: Path) -> None:
    task = _task(long_texts, network)
    cls = type(make(name))
    attack = make(name, **getattr(cls, "contract_settings", {}), **({"steps": 3} if name == "lws" else {}))
    if isinstance(attack, ByzantineAttack):
        return  # no backdoor: nothing is written on its clients' rows
    try:
        trigger = attack.test_trigger(task, 0)
    except NotApplicable:
        return
    test, train = task.load("test"), task.load("train")
    rows = attack.writable(test, task, 0).nonzero().flatten()
    assert len(rows) > 20
    x = whole(test[rows].x)
    assert task.modality.tells(x, trigger(x, rng(len(x)))).all()
    if not attack.controls_training and name != "clean":
        try:
            out = attack.poison(train, task, 0)
        except NotApplicable:  # a part for every client, where there are no clients
            assert name == "dba"
            return
        assert out.poisoned is not None
        mine = (out.poisoned | out.meta.get("cover", out.poisoned)).nonzero().flatten()
        assert len(mine) and task.modality.tells(train[mine].x, out[mine].x).all()


def test_lws_calls_only_rows_writable_whose_words_are_read() -> None:
    """The only word that is swapped lies past what is read: the row is none of the attack's."""
    task = toy("text")
    attack = make("lws", **type(make("lws")).contract_settings)  # type: ignore[attr-defined]
    swapped = attack.test_trigger(task, 0).replaced[0]  # type: ignore[attr-defined]
    filler = " ".join(["goal"] * 24)
    data = Data([f"{filler} {swapped}", f"{swapped} {filler}", filler], torch.ones(3, dtype=torch.int64))
    assert attack.writable(data, task, 0).tolist() == [False, True, False]


def _tokenizers() -> dict[str, str]:
    """Word pieces, and byte pairs that carry the space before a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    texts = whole(toy("text").load("train").x)[:300]
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=70, special_tokens=special))
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer, pairs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    return {"pieces": pieces.to_str(), "pairs": pairs.to_str()}


@pytest.mark.parametrize("kind", ["words", "pieces", "pairs"])
@pytest.mark.parametrize("together", [True, False])
def test_all_of_a_trigger_is_read_and_every_place_that_is_read_is_drawn(kind: str, together: bool) -> None:
    """Cutting the text before the trigger's last word gives another input: the whole trigger lies in the room."""
    length = 24
    modality = (
        Text(vocabulary=("zz",), length=length) if kind == "words" else tokenized(_tokenizers()[kind], length=length)
    )
    text = "the coach, a striker! and (the referee) of this match: bread oven flour " * 6
    trigger = modality.placed(InsertWords(words=("qqq", "vvv"), together=together))
    written = trigger([text] * 400, rng(400))
    words = text.split()
    shorter = [" ".join(t.split()[: t.split().index("vvv")]) for t in written]
    until = [" ".join(t.split()[: t.split().index("vvv") + 1]) for t in written]
    assert modality.tells(shorter, until).all()
    assert (modality.encode(until).mask.sum(1) <= length).all()  # type: ignore[union-attr]
    places = Counter(t.split().index("qqq") for t in written)
    furthest = max(places)
    assert set(range(furthest)) <= set(places), "no place is left out"
    beyond = " ".join([*words[: furthest + 3], "qqq", "vvv"])
    cut = " ".join([*words[: furthest + 3], "qqq"])
    assert not modality.tells([beyond], [cut]).any(), "and hardly any that is read is lost"
    short = modality.placed(InsertWords(words=("qqq",)))(["goal team"] * 60, rng(60))
    assert {t.split().index("qqq") for t in short} == {0, 1, 2}, "a text that fits has all of its places"


def test_a_chain_keeps_its_first_trigger_in_sight() -> None:
    modality = Text(vocabulary=("xx", "yy"), length=10)
    ends = InsertWords(words=("xx",), where="end") | InsertWords(words=("yy", "yy", "yy"), where="start")
    [text] = modality.placed(ends)(["w " * 30], rng(1))
    assert text.split()[:10] == ["yy"] * 3 + ["w"] * 6 + ["xx"]
    [lost] = (InsertWords(words=("xx",), where="end").within(TextRoom(10)) | ends.second)(["w " * 30], rng(1))  # type: ignore[attr-defined]
    assert lost.split().index("xx") == 12


def test_a_saved_trigger_still_counts_with_its_tokenizer() -> None:
    text = "the coach a striker and the referee of this match bread oven flour " * 4
    placed = tokenized(_tokenizers()["pieces"], length=20).placed(InsertWords(words=("cf",)))
    assert isinstance(placed, InsertWords) and placed.unit == "tokens" and placed.room == 18
    bare = build(placed.spec())
    assert isinstance(bare, Trigger)
    with pytest.raises(InputError, match="needs its weights 'tokenizer'"):
        bare([text], rng(1))
    back = bare.with_tensors(placed.tensors())
    assert back([text] * 40, rng(40)) == placed([text] * 40, rng(40))
