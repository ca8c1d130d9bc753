"""Downloads are resumed and verified, archives stay in their folder. A loopback server stands in for the web."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from torchbands.core.errors import DataUnavailable
from torchbands.datasets import archives, base, download, packages


class Handler(BaseHTTPRequestHandler):
    """Serves one body. The first answer to /flaky stops half way; /elsewhere redirects to plain http."""

    def __init__(self, body: bytes, log: list[str | None], *args: object) -> None:
        self.body, self.log = body, log
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/file")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.body[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/flaky" and not self.log else body)
        self.log.append(wanted)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bytes, list[str | None]]]:
    monkeypatch.setattr(download, "ALLOW_HTTP_LOOPBACK", True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    body, log = bytes(range(256)) * 40, []  # type: ignore[var-annotated]
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, body, log))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", body, log
    httpd.shutdown()
    httpd.server_close()


def test_cut_off_download_is_resumed(tmp_path: Path, server: tuple[str, bytes, list[str | None]]) -> None:
    address, body, log = server
    file = download.RemoteFile(f"{address}/flaky", f"sha256:{hashlib.sha256(body).hexdigest()}")
    seen: list[tuple[int, int | None, str]] = []
    path = download.download(file, tmp_path, lambda *args: seen.append(args))
    assert path.read_bytes() == body and log == [None, f"bytes={len(body) // 2}-"]
    assert seen[-1] == (len(body), len(body), "flaky") and not (tmp_path / "flaky.part").exists()


def test_left_over_part_of_an_earlier_run_is_resumed(
    tmp_path: Path, server: tuple[str, bytes, list[str | None]]
) -> None:
    address, body, log = server
    (tmp_path / "file.part").write_bytes(body[:1000])
    file = download.RemoteFile(f"{address}/file", f"sha256:{hashlib.sha256(body).hexdigest()}")
    assert download.download(file, tmp_path, base.silent).read_bytes() == body and log == ["bytes=1000-"]
    (tmp_path / "file").write_bytes(b"altered")
    assert download.download(file, tmp_path, base.silent).read_bytes() == body


def test_download_with_another_checksum_is_refused(tmp_path: Path, server: tuple[str, bytes, list[str | None]]) -> None:
    file = download.RemoteFile(f"{server[0]}/file", "md5:" + "0" * 32)
    with pytest.raises(DataUnavailable, match="checksum mismatch"):
        download.download(file, tmp_path, base.silent)
    assert not list(tmp_path.glob("file*"))


def test_only_https_is_used(tmp_path: Path, server: tuple[str, bytes, list[str | None]]) -> None:
    for url in ("http://example.invalid/file", "file:///etc/hostname", f"{server[0]}/elsewhere"):
        with pytest.raises(DataUnavailable, match="only https"):
            download.download(download.RemoteFile(url, "md5:0"), tmp_path, base.silent)


@pytest.mark.parametrize("member", ["../evil", "/evil"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_archives_cannot_leave_their_folder(tmp_path: Path, member: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr(member, b"x")
    else:
        with tarfile.open(path, "w:gz") as tar:
            if member == "/evil":  # Python strips the slash from names, so a link does the harm here
                info = tarfile.TarInfo("evil")
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
                tar.addfile(info)
            else:
                info = tarfile.TarInfo(member)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataUnavailable, match="would leave its folder"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "evil").exists() and not list((tmp_path / "out").iterdir())
    path.write_bytes(b"garbage")
    with pytest.raises(DataUnavailable, match="not a readable archive"):
        archives.unpack(path, tmp_path / "out")


def test_size_and_time_have_a_limit(
    tmp_path: Path, server: tuple[str, bytes, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = download.RemoteFile(f"{server[0]}/file", "md5:" + "0" * 32)
    with monkeypatch.context() as patch, pytest.raises(DataUnavailable, match="more than 10 bytes"):
        patch.setattr(download, "MOST_BYTES", 10)
        download.download(file, tmp_path, base.silent)
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch, pytest.raises(DataUnavailable, match="took more than"):
        patch.setattr(download, "MOST_SECONDS", -1.0)
        download.download(file, tmp_path, base.silent)


def test_a_client_that_fetches_too_much_or_too_long_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import subprocess, sys; open('much', 'wb').write(bytes(5000))\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "open('pid', 'w').write(str(child.pid)); child.wait()"
    )
    monkeypatch.setattr(packages, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(packages, "MOST_BYTES", 4000)
    with pytest.raises(DataUnavailable, match="more than 4,000 bytes"):
        packages._run([sys.executable, "-c", code], tmp_path)
    monkeypatch.setattr(packages, "TIMEOUT_SECONDS", 0)
    with pytest.raises(DataUnavailable, match="took more than 0 s"):
        packages._run([sys.executable, "-c", "import time; time.sleep(300)"], tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 100)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        archive.writestr("zeros", bytes(101))
    with pytest.raises(DataUnavailable, match="more than 100"):
        archives.unpack(tmp_path / "bomb.zip", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
