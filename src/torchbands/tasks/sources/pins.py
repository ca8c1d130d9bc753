"""sha256 of the decoded arrays: uint8 images (N, C, H, W) and int64 labels, C order, little-endian.

They do not depend on the source: idx and CIFAR files of the canonical archives and of the packages decode to the same.
"""

from __future__ import annotations

PINS: dict[str, dict[str, str]] = {
    "fashion-mnist": {
        "train.images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train.labels": "e3245b63f7c40d1c8b652835f19744d970c1613b40ddac6bcfc87b9c46e16a0b",
        "test.images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test.labels": "d51d859896c55775b9e9e219b77ff03bcec1b6ac322f313544dc3f9e7bc94fae",
    },
    "mnist": {
        "train.images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train.labels": "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
        "test.images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test.labels": "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
    },
    "cifar10": {
        "train.images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "train.labels": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
        "test.images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "test.labels": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    },
    "digits": {
        "train.images": "1a5fd3b5c524e826767083c882fe4f8c91850d3568a78caadaa66eb3fe78f5b6",
        "train.labels": "cb6863cc760a900d01be551594691a090fd43e24c11ee63feaaf73315ad5e1d7",
        "test.images": "a422c8110b35908d8bc868469498d8bc67c5d5f4357631b3ded0ee283ca6a1e9",
        "test.labels": "58c508427633b2936fa428117304c0906777e34c1db2e8cfbc37b8531f38a22e",
    },
}
