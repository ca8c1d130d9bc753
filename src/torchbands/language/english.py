"""A ready trigram model of English, fitted once on the IMDB training reviews and kept in the data cache."""

from __future__ import annotations

from functools import lru_cache

from torchbands.datasets import load_text
from torchbands.datasets.cache import cache_root

from .ngram import NGram


@lru_cache(maxsize=1)
def english() -> NGram:
    """The model; the first call fetches the reviews and takes some seconds. Raises what fetching them raises."""
    folder = cache_root() / "language" / "imdb-trigram-1"
    if (folder / "ngram.json").is_file():
        return NGram.load(folder)
    texts, _ = load_text("imdb", "train")
    made = NGram.fit(texts, source="25,000 IMDB training reviews")
    made.save(folder)
    return made
