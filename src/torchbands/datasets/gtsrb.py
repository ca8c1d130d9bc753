"""The German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), 43 classes, scaled to 32x32."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.base import SPLITS, Arrays, image_array
from torchbands.datasets.decode import find, need, read_image

SIDE = 32
TILES_PER_ROW = 100
CLASSES = 43

GTSRB_CLASSES = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general caution",
    "dangerous curve left",
    "dangerous curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight or right",
    "straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)

TILE_CHECKSUMS = {
    "labels.json": "sha256:9948312b51d1d5ea79c257d541ffb1f574c759530e17e3e66c2df2a768d8e988",
    "train_0.webp": "sha256:897e7d36c2fac9c98ff9df9dc425e7390dc82ea6cbdd7dd9af9c45c5c5f7a28b",
    "train_1.webp": "sha256:0a26025f08a3e5d4a0d5cf591b2633e3e7072ca7be164cc94c1857c06997af37",
    "train_2.webp": "sha256:2528f1c74f30fc061904c28371c38d8693160faa7fd0a47891f3c62bc96f6838",
    "test_0.webp": "sha256:ff331e1c4230b01bb6073ccb2ba6e57b7a21f9b73cec68dc15dd46832fe29540",
    "test_1.webp": "sha256:6ae843dc6be5841e9e2ae9d079d028a62f4ff485aef6527fdbf817bc73880f35",
    "test_2.webp": "sha256:cccd1a78df8318785f949675e1ba1fef0e9a903c8d803448236fdced76278088",
}


def decode_gtsrb(folder: Path) -> Arrays:
    """Either layout: the official archives unpacked, or lossless tilings of 32x32 images with ``labels.json``.

    The official archives hold 39,209 training images; the tilings every third frame of each track, 13,069 (the frames
    of a track show one sign a moment apart). Both hold all 12,630 test images.
    """
    if find(folder, "labels.json") and find(folder, "train_0.webp"):
        return _tiles(folder)
    return _official(folder)


def _tiles(folder: Path) -> Arrays:
    labels = json.loads(need(folder, "labels.json").read_text())
    arrays: Arrays = {}
    for split in SPLITS:
        images: list[npt.NDArray[Any]] = []
        while sum(map(len, images)) < len(labels[split]):
            page = read_image(need(folder, f"{split}_{len(images)}.webp"))
            rows = page.reshape(page.shape[0] // SIDE, SIDE, TILES_PER_ROW, SIDE, 3).swapaxes(1, 2)
            images.append(rows.reshape(-1, SIDE, SIDE, 3))
        arrays[f"{split}.images"] = image_array(np.concatenate(images)[: len(labels[split])])
        arrays[f"{split}.labels"] = np.asarray(labels[split], np.int64)
    return arrays


def _official(folder: Path) -> Arrays:
    train = [
        (path, label)
        for label in range(CLASSES)
        for path in sorted(folder.glob(f"**/Final_Training/Images/{label:05d}/*.ppm"))
    ]
    if not train:
        raise DataUnavailable(f"{folder.name}: no files Final_Training/Images/<class>/*.ppm, no labels.json and tiles")
    pictures = {path.name: path for path in folder.glob("**/Final_Test/Images/*.ppm")}
    with need(folder, "GT-final_test.csv").open(newline="") as stream:
        rows = [(row["Filename"], int(row["ClassId"])) for row in csv.DictReader(stream, delimiter=";")]
    missing = [name for name, _ in rows if name not in pictures]
    if missing:
        raise DataUnavailable(f"Final_Test/Images lacks {len(missing)} files, the first is {missing[0]}")
    test = [(pictures[name], label) for name, label in rows]
    arrays: Arrays = {}
    for split, items in (("train", train), ("test", test)):
        arrays[f"{split}.images"] = image_array(np.stack([_scaled(path) for path, _ in items]))
        arrays[f"{split}.labels"] = np.asarray([label for _, label in items], np.int64)
    return arrays


def _scaled(path: Path) -> npt.NDArray[Any]:
    from PIL import Image

    return np.asarray(Image.fromarray(read_image(path)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
