"""Which files of a Hugging Face folder transformers loads, in its order; where two answers are possible, neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchbands.core.errors import Unsupported

from . import tensors
from .files import ADAPTER, Folder, parse_json
from .limits import MAX_JSON, Limits
from .refusal import ambiguous, listed, malformed, shown
from .weights import State, Weights

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".msgpack", ".h5", ".ckpt")


def weights_of(folder: Folder, config: Mapping[str, Any], limits: Limits, state: State) -> Weights:
    """The tensors that transformers would load.

    Raises Refusal where another loader, or transformers with another package installed, would load other ones.
    """
    _alone(folder, config)
    if ONE in folder.names:
        names = [ONE]
    elif INDEX in folder.names:
        names = _shards(folder)
    else:
        names = [n for n in folder.names if n.endswith(".safetensors")]
        pickled = [n for n in folder.names if n.endswith(("pytorch_model.bin", "pytorch_model.bin.index.json"))]
        if len(names) != 1 or pickled:
            raise Unsupported(
                f"the folder has no {ONE}, but {listed([*names, *pickled]) or 'no weights'}",
                hint="pickled weights are not read from folders: where you trust them, convert them with "
                "AutoModelForSequenceClassification (or ...Image...).from_pretrained(FOLDER).save_pretrained(NEW)",
            )
    found = _read(folder, names, limits)
    if not found:
        raise malformed("the safetensors files hold no tensors")
    if ONE in folder.names and INDEX in folder.names:
        _same(found, _read(folder, _shards(folder), limits))
    unread = [n for n in folder.names if n.endswith((*_PICKLES, ".safetensors")) and n not in folder.hashes]
    if unread:
        state.facts["not_read"] = unread[:50]
    return Weights(found)


def _alone(folder: Folder, config: Mapping[str, Any]) -> None:
    """Nothing else in the folder says what the model is."""
    if ADAPTER in folder.names:
        raise ambiguous(
            f"{ADAPTER} lies beside config.json: where peft is installed, transformers puts its adapter on the model, "
            "and elsewhere it does not. Merge it (merge_and_unload) or move it out",
            subject=ADAPTER,
        )
    named = config.get("transformers_weights")
    if named is not None:
        raise ambiguous(
            f"config.json makes new versions of transformers load {shown(named, 80)} and older ones {ONE}",
            subject="config.json: transformers_weights",
        )


def _shards(folder: Folder) -> list[str]:
    table = parse_json(folder.read(INDEX, MAX_JSON), INDEX).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise malformed(f"{INDEX} has no weight_map of names", subject=INDEX)
    names = sorted(set(table.values()))
    if outside := [n for n in names if "/" in n or "\\" in n or n not in folder.names]:
        raise malformed(f"{INDEX} names files that are not in the folder: {listed(outside)}", subject=INDEX)
    if odd := [n for n in names if not n.endswith(".safetensors")]:
        raise malformed(f"{INDEX} names files that are no safetensors: {listed(odd)}", subject=INDEX)
    return names


def _read(folder: Folder, names: list[str], limits: Limits) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    room = limits.bytes
    for name in names:
        data = folder.read(name, room)
        room -= len(data)
        entries = tensors.header(data)
        if twice := sorted(found.keys() & entries.keys()):
            raise ambiguous(f"two files hold the tensor {shown(twice[0])}: readers take one or the other", subject=name)
        found |= tensors.tensors(data, entries)
    return found


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    alike = one.keys() == other.keys() and all(
        t.dtype == other[k].dtype and t.shape == other[k].shape and torch.equal(_bytes(t), _bytes(other[k]))
        for k, t in one.items()
    )
    if not alike:
        raise ambiguous(f"{ONE} and the files that {INDEX} names hold different weights", subject=INDEX)


def _bytes(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous().flatten().view(torch.uint8)
