"""Ordinary models of tools that are not opened here: what each is, and the command that makes something that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torchbands.core.errors import Unsupported

from .refusal import listed, plain

#: How formats begin (at an offset) that are not opened here, and what to do instead.
_FILES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "Keras or HDF5", "export it to ONNX"),
    (0, b"GGUF", "GGUF", "name its safetensors instead"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it yourself, with an eye on its size, and name the model inside"),
    (0, b"BZh", "a bzip2 archive", "unpack it yourself, with an eye on its size, and name the model inside"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "unpack it yourself, with an eye on its size, and name the model inside"),
    (0, b"(\xb5/\xfd", "a zstd archive", "unpack it yourself, with an eye on its size, and name the model inside"),
    (257, b"ustar", "a tar archive", "unpack it yourself, with an eye on its size, and name the model inside"),
    (0, b"\x93NUMPY", "a NumPy array", "name a model; data goes to --data"),
    (4, b"TFL3", "TensorFlow Lite", "export the model that it was made from to ONNX"),
    (0, b"tree\nversion=", "a LightGBM model", "export it to ONNX: onnxmltools.convert_lightgbm(booster, ...)"),
    (0, b'{"learner":', "an XGBoost model", "export it to ONNX: onnxmltools.convert_xgboost(model, ...)"),
)
#: Entries of a zip archive that tell what it is.
_ARCHIVES = (
    ("model.weights.h5", "a Keras 3 model", "export it to ONNX: model.export('m.onnx', format='onnx')"),
    ("keras_metadata.pb", "a Keras model", "export it to ONNX: model.export('m.onnx', format='onnx')"),
)
#: Names in a folder that tell what it is; a leading * stands for any beginning.
_FOLDERS = (
    ("saved_model.pb", "a TensorFlow SavedModel", "python -m tf2onnx.convert --saved-model {path} --output model.onnx"),
    (
        "model_index.json",
        "a diffusers pipeline, which generates and classifies nothing",
        "only classifiers are scanned",
    ),
    (
        "*.distcp",
        "a distributed checkpoint of torch",
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pt",
    ),
    (
        "zero_to_fp32.py",
        "a DeepSpeed checkpoint",
        "python -m deepspeed.utils.zero_to_fp32 {path} out, then scan what it wrote",
    ),
)
_MODELS = (".safetensors", ".onnx", ".pt", ".pth", ".ckpt", ".bin")


def refuse_file(data: bytes | bytearray, path: Path) -> None:
    """Raises Unsupported for a file of another tool."""
    for at, magic, what, todo in _FILES:
        if data[at : at + len(magic)] == magic:
            raise Unsupported(f"{plain(path)} is {what}, which is not opened here", hint=todo)
    head = bytes(data[:2048])
    if head.lstrip().startswith(b"<?xml") and b"<net " in head:
        raise Unsupported(f"{plain(path)} is an OpenVINO model, which is not opened here", hint="name its ONNX instead")
    if head.lstrip()[:1] == b"{" and b'"learner"' in head:
        raise Unsupported(f"{plain(path)} is an XGBoost model, which is not opened here", hint=_FILES[-1][3])


def refuse_archive(names: Sequence[str]) -> None:
    """Raises Unsupported for a zip archive of another tool."""
    for entry, what, todo in _ARCHIVES:
        if entry in names:
            raise Unsupported(f"the file is {what}, which is not opened here", hint=todo)
    if names and all(name.lower().endswith(".npy") for name in names):
        raise Unsupported(
            "the file holds NumPy arrays, which are not read as a model",
            hint="safetensors.numpy.save_file(dict(numpy.load('m.npz')), 'm.safetensors'); data goes to --data",
        )


def refuse_folder(path: Path, names: Sequence[str]) -> None:
    """Raises Unsupported for a folder that is no model folder, with what to name or to make instead."""
    for name, what, todo in _FOLDERS:
        if any(n.endswith(name[1:]) for n in names) if name.startswith("*") else name in names:
            raise Unsupported(f"{plain(path)} is {what}, which is not opened here", hint=todo.format(path=str(path)))
    if ".metadata" not in names and (models := [n for n in names if n.lower().endswith(_MODELS)]):
        first = next(n for suffix in _MODELS for n in models if n.lower().endswith(suffix))
        raise Unsupported(
            f"{plain(path)} is no model folder: it has neither config.json nor card.json",
            hint=f"name a model file in it: {json.dumps(plain(path / first))}, of {listed(models)}",
        )
