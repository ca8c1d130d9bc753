"""Every file of the hostile corpus: nothing runs, nothing hangs, nothing crashes, and each has a clear line."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pytest

from torchbands.core.errors import BandsError
from torchbands.modalities.image import Image
from torchbands.scanner.opening import Limits, open_suspect

_SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "hostile.py")
assert _SPEC is not None and _SPEC.loader is not None
hostile = importlib.util.module_from_spec(_SPEC)
sys.modules["hostile"] = hostile
_SPEC.loader.exec_module(hostile)

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the corpus has pipes and links"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("corpus")
    hostile.build(folder, slow=False)
    return folder


@pytest.fixture(autouse=True)
def own_temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left there was left by the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_corpus_is_large() -> None:
    assert len(hostile.CASES) >= 200
    assert len({c.name for c in hostile.CASES}) == len(hostile.CASES)


#: Pickles whose refusal must hold when pickles are allowed, too: one of each kind, for time.
_AGAIN = ("eval.pt", "stack_global_computed.pkl", "hidden_second_pickle_in_zip.pt", "legacy_with_code.th")


_EVERY = [pytest.param(c, marks=[pytest.mark.slow] if c.slow else []) for c in hostile.CASES]


@pytest.mark.parametrize("case", _EVERY, ids=lambda c: ascii(c.name))
def test_hostile(case: hostile.Case, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _survives(case, corpus, monkeypatch, allow_pickle=False)


@pytest.mark.parametrize("case", [c for c in hostile.CASES if c.name in _AGAIN], ids=lambda c: c.name)
def test_hostile_where_pickles_are_allowed(case: hostile.Case, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fickling")
    _survives(case, corpus, monkeypatch, allow_pickle=True)


def _survives(case: hostile.Case, corpus: Path, monkeypatch: pytest.MonkeyPatch, *, allow_pickle: bool) -> None:
    path = corpus / case.name
    if case.slow:
        case.make(path, corpus / hostile.MARKER)
    started = _children()
    if path.is_dir():
        monkeypatch.chdir(path)
        monkeypatch.setattr(sys, "path", ["", *sys.path])  # as `python -m` or a notebook has it
    loop = case.name == "endless_loop.onnx"
    limits = Limits(seconds=3 if loop else 30, megabytes=1024)
    arch, modality = '{"name": "resnet", "params": {"depth": 8}}', Image(channels=3, size=32)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        suspect = open_suspect(path, arch=arch, modality=modality, allow_pickle=allow_pickle, limits=limits)
    except BandsError as error:
        assert case.expect == "error", error
        _clear(error.message)
    else:
        assert suspect.model is None
        assert case.expect in {a.rule for a in suspect.alerts}, suspect.alerts
        assert not case.level or case.level in {a.level for a in suspect.alerts}, suspect.alerts
        for alert in suspect.alerts:
            _clear(alert.message)
            _clear(f"subject {alert.subject}")
        _clear(f"path {suspect.subject().path}")
    assert not (corpus / hostile.MARKER).exists(), "a payload was executed"
    assert time.monotonic() - start < limits.seconds + 180
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1024, f"{grown:.0f} MB"
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest: libraries and the limit
    assert child < 1024 + 1500, f"a child took {child:.0f} MB"
    assert _children() <= started, "a child was left behind"
    assert not list(Path(tempfile.gettempdir()).glob("torchbands-*")), "a copy of the suspect was left behind"


def _children() -> set[int]:
    """This process's children that run, where the system says so."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state not in "ZX":
            found.add(int(stat.parent.name))
    return found


def _clear(line: str) -> None:
    """One line, not too long, without control characters or markup of the suspect."""
    assert 5 < len(line) < 1500
    assert line.isprintable(), ascii(line)
    assert "<" not in line and "[bold" not in line and "\u202e" not in line


def test_a_factory_beside_the_suspect_is_not_imported(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = corpus / "hf_shadowing_modules"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as `python -m` or a notebook has it
    before = list(sys.path)
    with pytest.raises(BandsError, match="lies beside the suspect, and nothing is imported|cannot import"):
        (folder / "w.safetensors").write_bytes((corpus / "wrong_shapes.safetensors").read_bytes())
        open_suspect(folder / "w.safetensors", arch="mynet:Net", modality=Image())
    assert sys.path == before
    assert not (corpus / hostile.MARKER).exists()


def test_markup_of_names_is_escaped_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "[red]<b>\n\x1b[31m.bin"
    with pytest.raises(BandsError) as caught:
        open_suspect(path)
    assert caught.value.message.isprintable() and "<b>" not in caught.value.message
