"""The parts of a data set that lies in folders named after them: train and val, as well as train and test."""

from __future__ import annotations

from pathlib import Path

#: Names of folders for rows to learn from and for rows to be judged by, the first that is there is taken.
LEARN, JUDGE = ("train", "training"), ("test", "testing", "val", "valid", "validation", "eval", "dev")

#: Names of files that list the images of their folder with labels.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def parts(root: Path) -> dict[str, Path]:
    """Part name to its folder, those to learn from first; empty where `root` is one part itself.

    A folder is a part where it has such a name and holds folders, but no files beside them that could be samples of a
    class of that name; or where it holds a file that lists and labels its images. Where only rows to be judged by are
    there, every folder must be such a part.
    """
    folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))]
    named = {p.name.lower(): p for p in folders if p.name.lower() in (*LEARN, *JUDGE) and _holds_folders(p)}
    found = {name: named[name] for name in (*LEARN, *JUDGE) if name in named}
    if any(name in found for name in LEARN) and (len(found) > 1 or len(found) == len(folders)):
        return found
    return found if found and len(found) == len(folders) else {}


def chosen(found: dict[str, Path], test: bool) -> str:
    """The name of the part for rows to be judged by (`test`) or to learn from; the other kind where there is none."""
    order = (*JUDGE, *LEARN) if test else (*LEARN, *JUDGE)
    return next(name for name in order if name in found)


def _holds_folders(path: Path) -> bool:
    inside = [p for p in path.iterdir() if not p.name.startswith(".")]
    if any(p.name in METADATA for p in inside):
        return True  # samples that a file beside them labels
    folders = [p for p in inside if p.is_dir()]
    return bool(folders) and not any(p.is_file() and p.suffix.lower() in _SAMPLES for p in inside)


_SAMPLES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
