"""Weights that a training starts from, read from a file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.recipe import TrainingFacts
from torchbands.zoo.files import sha256


def load_checkpoint(path: str, model: Model) -> TrainingFacts:
    """Write the weights of a safetensors file into the model. What is told of it: the file's checksum.

    Raises InputError where the file is missing, no safetensors, or of another network.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"there is no checkpoint {path}", hint="a victim's model.safetensors is one")
    try:
        model.module.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        last = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{path} is not a checkpoint of this network: {last}", hint="same task, same network"
        ) from None
    return {"checkpoint": sha256(file)}
