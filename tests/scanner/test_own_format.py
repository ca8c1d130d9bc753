"""Files in a format of one kind's own: its modality reads them, for scans and for guards."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from torchbands.core import kinds
from torchbands.core.errors import InputError
from torchbands.core.modality import FileRows, Modality
from torchbands.modalities.observation import Observation
from torchbands.scanner.input_rows import read_inputs
from torchbands.scanner.reading import read_rows

LABELS = ("left", "right", "right", "left", "", "right")


class Pulses(Observation):
    """Two numbers a row, in files called *.pulse; those of a model of another length are filled up."""

    labels: ClassVar[tuple[str, ...]] = LABELS

    @classmethod
    def reads(cls, path: Path) -> bool:
        return path.suffix == ".pulse"

    @classmethod
    def read(cls, path: Path, like: Modality | None = None) -> FileRows:
        width = like.shape[0] if isinstance(like, Pulses) else 2
        rows = torch.zeros(len(LABELS), width)
        rows[:, :2] = torch.arange(2.0 * len(LABELS)).view(-1, 2)
        return FileRows(rows, cls(shape=(width,)), cls.labels, notes=("pulses",))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    known = kinds.kinds()
    monkeypatch.setattr(kinds, "kinds", lambda: [*known, Pulses])
    (tmp_path / "some.pulse").write_bytes(b"?")
    return str(tmp_path / "some.pulse")


def test_its_modality_reads_it_and_rows_without_a_label_are_left_out(file: str) -> None:
    rows = read_rows(file)
    assert isinstance(rows.modality, Pulses) and rows.class_names == ("left", "right")
    assert rows.data.y.tolist() == [0, 1, 1, 0, 1] and rows.ids == ("0", "1", "2", "3", "5")
    assert rows.data.x.tolist()[-1] == [10, 11] and rows.notes == ("pulses", "1 rows without a label were left out")  # type: ignore[union-attr]


def test_rows_are_brought_to_what_the_model_reads(file: str) -> None:
    assert read_rows(file, like=Pulses(shape=(3,))).data.x.shape == (5, 3)  # type: ignore[union-attr]
    assert read_rows(file, like=Observation(shape=(3,))).data.x.shape == (5, 2)  # type: ignore[union-attr]


def test_a_guard_reads_it_with_labels_or_without(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for labels in (LABELS, ()):
        monkeypatch.setattr(Pulses, "labels", labels)
        inputs = read_inputs(file, Pulses(shape=(3,)), 2)
        assert inputs.data.x.shape == (6, 3) and inputs.data.y.tolist() == [0] * 6  # type: ignore[union-attr]


def test_a_scan_of_rows_without_labels_is_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pulses, "labels", ())
    with pytest.raises(InputError, match="without labels"):
        read_rows(file)
    monkeypatch.setattr(Pulses, "labels", LABELS[:3])
    with pytest.raises(InputError, match="6 samples but 3 labels"):
        read_rows(file)


def test_a_model_of_another_kind_does_not_read_it(file: str) -> None:
    with pytest.raises(InputError, match="does not read"):
        read_inputs(file, Observation(shape=(3,)), 2)


def test_a_folder_may_be_of_such_a_format_too(file: str) -> None:
    folder = Path(file).with_name("many.pulse")
    folder.mkdir()
    assert len(read_rows(str(folder))) == 5 and len(read_inputs(str(folder), Pulses(shape=(2,)), 2)) == 6


def test_a_file_that_no_kind_knows_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "some.pulse").write_bytes(b"?")
    with pytest.raises(InputError, match="a kind that is not read"):
        read_rows(str(tmp_path / "some.pulse"))
