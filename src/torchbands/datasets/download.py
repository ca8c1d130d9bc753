"""Downloads over https with the standard library: resumable, verified, atomic."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.archives import is_archive, unpack
from torchbands.datasets.base import Progress
from torchbands.datasets.checks import CHUNK, verify_file

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 3
#: Most bytes of one file, and the longest that one may take in all.
MOST_BYTES, MOST_SECONDS = 2 << 30, 3600.0
ALLOW_HTTP_LOOPBACK = False  # set only by tests, which serve files from this machine


@dataclass(frozen=True)
class RemoteFile:
    """One file: its https address and its published checksum (``sha256:`` or ``md5:``)."""

    url: str
    checksum: str

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Urls:
    """Files at canonical addresses. Archives are unpacked once their checksum agrees."""

    files: tuple[RemoteFile, ...]

    def describe(self) -> str:
        hosts = sorted({urlsplit(file.url).hostname or "?" for file in self.files})
        return f"https from {', '.join(hosts)}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        for file in self.files:
            path = download(file, target, progress)
            if is_archive(path):
                unpack(path, target)
        return target


def download(file: RemoteFile, folder: Path, progress: Progress) -> Path:
    """Download one file into ``folder``, resuming ``<name>.part`` if an earlier attempt was cut off.

    Raises:
        DataUnavailable: the address is not https, the server cannot be reached, the transfer is cut off, or the
            checksum differs (the file is then removed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, part = folder / file.name, folder / f"{file.name}.part"
    _require_secure(file.url)
    if final.exists():
        try:
            verify_file(final, file.checksum)
            return final
        except DataUnavailable:
            final.unlink()
    until = time.monotonic() + MOST_SECONDS
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(file, part, progress, until)
            break
        except (ConnectionResetError, TimeoutError, http.client.HTTPException, _CutOff) as error:
            gained = part.exists() and part.stat().st_size > before
            if not gained or attempt == ATTEMPTS - 1:
                raise DataUnavailable(f"{file.url}: cut off ({error}); run the command again to resume") from error
        except (urllib.error.URLError, OSError) as error:
            raise DataUnavailable(f"{file.url}: {getattr(error, 'reason', None) or error}") from error
    try:
        verify_file(part, file.checksum)
    except DataUnavailable:
        part.unlink()
        raise
    part.replace(final)
    return final


class _CutOff(Exception):
    """The connection closed before the announced length."""


def _transfer(file: RemoteFile, part: Path, progress: Progress, until: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    with _open(file.url, have) as response:
        if response is None:  # the server holds no more than we already have
            return
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        _bounded(file, part, max(have, total or 0), until)
        with part.open("ab" if have else "wb") as stream:
            while chunk := response.read1(CHUNK):  # what has come, so that a slow server is seen to be late
                stream.write(chunk)
                have += len(chunk)
                _bounded(file, part, have, until)
                progress(have, total, file.name)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and have < total:
        raise _CutOff(f"{have} of {total} bytes")


def _bounded(file: RemoteFile, part: Path, size: int, until: float) -> None:
    """Raises DataUnavailable, and removes what has come, where a server sends too much or takes too long."""
    if size > MOST_BYTES:
        part.unlink(missing_ok=True)
        raise DataUnavailable(f"{file.url}: more than {MOST_BYTES:,} bytes, refused")
    if time.monotonic() > until:
        raise DataUnavailable(f"{file.url}: took more than {MOST_SECONDS:,.0f} s; run the command again to resume")


@contextmanager
def _open(url: str, offset: int) -> Iterator[http.client.HTTPResponse | None]:
    request = urllib.request.Request(url, headers={"User-Agent": "torchbands"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    opener = urllib.request.build_opener(_SecureRedirects)
    try:
        response = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if offset and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            yield None
            return
        raise
    with response:
        yield response


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        _require_secure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_secure(url: str) -> None:
    parts = urlsplit(url)
    loopback = ALLOW_HTTP_LOOPBACK and parts.scheme == "http" and parts.hostname == "127.0.0.1"
    if parts.scheme != "https" and not loopback:
        raise DataUnavailable(f"{url}: refused, only https is used")
