"""Parquet, Arrow and Feather files, as pandas and Hugging Face datasets write them. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchbands.core.errors import InputError, MissingExtra

from .table import MOST_BYTES, Cells

#: Columns that hold images, by the names that data sets use; where features are described, whatever is an image.
IMAGES = ("image", "img", "picture", "pixel_values")
#: Bytes that a batch may take by what the file says of itself, rows of one, and cells of a whole file.
_BATCH, _MOST_ROWS, MOST_CELLS = 64 << 20, 4096, 20_000_000
#: Columns that pandas keeps its index in.
_INDEX = ("__index_level_0__", "Unnamed: 0")


@dataclass(frozen=True)
class Frame:
    """Columns of equal length.

    Attributes:
        columns: name -> values, None where one is missing.
        classes: names of the classes of columns whose whole numbers stand for them, in that order.
        images: the column of encoded images, where there is one.
        notes: what was left out.
    """

    columns: dict[str, list[Any]]
    classes: dict[str, tuple[str, ...]]
    images: str | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def cells(self) -> Cells:
        """As the cells of a CSV file with a heading; columns of anything but texts and numbers are left out."""
        kept = {name: values for name, values in self.columns.items() if all(map(_is_plain, values))}
        notes = list(self.notes)
        if out := [name for name in self.columns if name not in kept]:
            notes.append(f"columns that are not texts or numbers are left out: {', '.join(out[:5])}")
        columns = [[_cell(v, self.classes.get(name, ())) for v in values] for name, values in kept.items()]
        rows = [list(kept), *map(list, zip(*columns))]
        return Cells(rows, list(range(1, len(rows) + 1)), tuple(notes), self.classes)


def read_frame(files: Sequence[Path]) -> Frame:
    """The rows of all files, one after another.

    Raises InputError for what is damaged, too large or of another form than the first file; MissingExtra without
    pyarrow.
    """
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("pyarrow", "parquet") from None
    columns: dict[str, list[Any]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    images: str | None = None
    held = rows = 0
    for number, path in enumerate(files):
        try:
            schema, batches = _opened(path)
            if number and set(schema.names) != set(columns) | set(_INDEX) & set(schema.names):
                raise InputError(f"{path} has other columns than {files[0]}: {', '.join(schema.names[:8])}")
            if not number:
                columns = {name: [] for name in schema.names if name not in _INDEX}
                classes, images = _features(schema, files[0].parent)
            for batch in batches:
                held, rows = held + batch.nbytes, rows + batch.num_rows
                if held > MOST_BYTES or len(columns) * rows > MOST_CELLS:
                    raise InputError(
                        f"{path} has more than {MOST_BYTES:,} bytes or {MOST_CELLS:,} cells",
                        hint="save numbers as .npz, or fewer rows",
                    )
                for name, values in columns.items():
                    values.extend(batch.column(name).to_pylist())
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            said = str(error).splitlines()
            raise InputError(f"{path} cannot be read: {said[0][:200] if said else type(error).__name__}") from None
    return Frame(columns, classes, images)


def _opened(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema of a file, and its rows in batches of a size that its own header makes small."""
    import pyarrow.parquet as parquet
    from pyarrow import ipc

    if not path.is_file():
        raise InputError(f"{path} is not a regular file")
    if path.suffix.lower() == ".parquet":
        file = parquet.ParquetFile(path)
        about = file.metadata
        widest = max((about.row_group(g).total_byte_size for g in range(about.num_row_groups)), default=0)
        rows = max(1, min(_MOST_ROWS, _BATCH * max(1, about.num_rows) // max(1, widest)))
        return file.schema_arrow, file.iter_batches(batch_size=rows)
    with path.open("rb") as raw:
        whole = raw.read(6) == b"ARROW1"
    if not whole:
        stream = ipc.open_stream(path.open("rb"))
        return stream.schema, iter(stream)
    table = ipc.open_file(path.open("rb"))
    return table.schema, (table.get_batch(i) for i in range(table.num_record_batches))


def _features(schema: Any, folder: Path) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Names of classes, and the column of images, as Hugging Face datasets describe them; else by the column's name."""
    import pyarrow

    about = (schema.metadata or {}).get(b"huggingface")
    found: Any = {}
    try:
        found = json.loads(about)["info"]["features"] if about else _described(folder)
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        found = {}
    found = found if isinstance(found, dict) else {}
    classes: dict[str, tuple[str, ...]] = {}
    images = None
    for name, feature in found.items():
        kind = feature.get("_type") if isinstance(feature, dict) else None
        if kind == "ClassLabel" and isinstance(feature.get("names"), list):
            classes[name] = tuple(map(str, feature["names"]))
        elif kind == "Image" and images is None:
            images = name
    if images is None:
        of_bytes = {
            f.name for f in schema if pyarrow.types.is_binary(f.type) or pyarrow.types.is_struct(f.type)
        }  # bytes, or bytes and path
        images = next((name for name in schema.names if name in of_bytes and name.lower() in IMAGES), None)
    return classes, images if images in schema.names else None


def _described(folder: Path) -> Any:
    path = folder / "dataset_info.json"
    if not path.is_file() or path.stat().st_size > 1 << 24:
        return {}
    return json.loads(path.read_text("utf-8")).get("features", {})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _cell(value: Any, names: Sequence[str]) -> str:
    if value is None:
        return ""
    if names and isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else "" if value == -1 else str(value)  # -1 is no label there
    return str(int(value)) if isinstance(value, bool) else str(value)
