"""Every file of the ordinary corpus is opened, or ends as `unsupported` with a next step: none is a finding."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from in_process import InProcess
from torchbands.core.errors import Unsupported
from torchbands.modalities.image import Image
from torchbands.scanner.opening import checkpoint, open_suspect
from torchbands.scanner.reading import read_rows

_SPEC = importlib.util.spec_from_file_location("ordinary", Path(__file__).parents[1] / "ordinary.py")
assert _SPEC is not None and _SPEC.loader is not None
ordinary = importlib.util.module_from_spec(_SPEC)
sys.modules["ordinary"] = ordinary
_SPEC.loader.exec_module(ordinary)

pytestmark = pytest.mark.timeout(400)
_EVERY = [pytest.param(c, marks=[pytest.mark.slow] if c.slow else []) for c in ordinary.CASES]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "ordinary_nets.py").write_text(ordinary.CODE)
    return folder


def test_the_corpus_is_large() -> None:
    assert len(ordinary.CASES) >= 60
    assert len({c.name for c in ordinary.CASES}) == len(ordinary.CASES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _EVERY, ids=lambda c: c.name)
def test_ordinary(case: ordinary.Case, tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in case.needs:
        pytest.importorskip(needed)
    monkeypatch.setattr(checkpoint, "Child", InProcess)
    monkeypatch.syspath_prepend(str(code))
    path = tmp_path / case.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.make(path)
    try:
        opened, alerts = _read(case, path)
    except Unsupported as error:
        assert not case.opens, error
        assert error.hint, error
    else:
        assert case.opens and opened, alerts
        assert {alert.level for alert in alerts} <= {"low"}, alerts


def _read(case: ordinary.Case, path: Path) -> tuple[bool, tuple[Any, ...]]:
    if case.kind == "data":
        return len(read_rows(str(path))) > 0, ()
    image = None if path.is_dir() else Image(channels=3, size=16)
    suspect = open_suspect(path, arch=ordinary.ARCH, modality=image)
    return suspect.model is not None, suspect.alerts
