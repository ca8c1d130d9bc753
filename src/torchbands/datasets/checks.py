"""Checksums: nothing downloaded is decoded, and nothing decoded is used, before its hash has been verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torchbands.core.errors import DataUnavailable

CHUNK = 1 << 20


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, read in chunks of 1 MiB."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def verify_file(path: Path, expected: str) -> None:
    """Refuse a file whose digest differs from ``expected``.

    Args:
        path: the file.
        expected: ``"sha256:<hex>"`` or, where upstream publishes nothing stronger, ``"md5:<hex>"``.

    Raises:
        DataUnavailable: the digest differs; both are named.
    """
    algorithm, _, wanted = expected.partition(":")
    if algorithm not in {"sha256", "md5"} or not wanted:
        raise ValueError(f"checksum {expected!r} must look like 'sha256:<hex>' or 'md5:<hex>'")
    found = file_hash(path, algorithm)
    if found != wanted:
        raise DataUnavailable(f"{path.name}: checksum mismatch: {algorithm} is {found}, expected {wanted}")
