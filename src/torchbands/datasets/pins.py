"""sha256 of the decoded arrays: uint8 images (N, C, H, W) and int64 labels, C order, little-endian.

Of text: uint8 UTF-8 bytes, int64 ends of rows and labels. They do not depend on the source: idx and CIFAR files of the
canonical archives and of the packages decode to the same.
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
    "gtsrb": {
        "train.images": "dec67517e5974335ae9f580c15cd42f51c42b4a4e0283dbfa7d8f6d830d7ea1b",
        "train.labels": "5b59aea6300f650bf825e915be14ef2017a3cc6247159eec62cdaaabfd32475f",
        "test.images": "5def5be1e02493c98d202524db92af9886f30195a3bead425ec5574494b1c281",
        "test.labels": "b0a244769364bd6a5c3b6c25efee2833ea20a46d7fdcaa19f1f34a2117a94d93",
    },
    "sst2": {
        "dev.ends": "a0b4314faadb2dbe779a630edd6cc8b257e889fa1ee75ac61034b931353f04bf",
        "dev.labels": "82f36fcdb0357c5a5f99f931f25ab947d6ee5be65996096e82c89dcad9877a06",
        "dev.text": "f2fd72a6af0d6704690ba70dfbffd9e438dbc27c341b24c40e29cf336d4ec675",
        "test.ends": "556b96ec0604791eeddf453286f634549866ed0ba12b742cfc013c47fb05a1a0",
        "test.labels": "b598a6d02a0bbc3c7956f63bd18e4e8d6a9a4fad63461adae38e0fc4617ea990",
        "test.text": "d486a74e215b8d635c1f777cb5f40a2f59dc85c3b6e7ee2cbfb9117ef2c051ea",
        "train.ends": "4cd13a343a7be81c9676d8d0f8345b0037f4272a3ffd815723db27b9e235b132",
        "train.labels": "0ec84937ef885b27a83e5d88d94f917a2ec7b2a653f160937f4b4061f29f038b",
        "train.text": "276f0f3168515702f8f669f187044e7214906a3620490142858769273048fcb3",
    },
    "ag-news": {
        "dev.ends": "82f18e8a6eea78ad64ef9e280cc3f15ab2acba8ef8cd448324059218a5cf4fdd",
        "dev.labels": "4636a388a50ff8ed88bf6859d03ef6ae9538c492ded96f2c78963a5f444bbf34",
        "dev.text": "15a58d5c9b3fe6148b317c8d209384bb43bf9a5f3a11274f7c6dca9d9b7ffd56",
        "test.ends": "23424cb565ed74b8654279c4f763d0ccef6f3ab97fcdcd81bef02d9b80afa27c",
        "test.labels": "b426f470a58977a5af204df3bb28d647a4e4f7248a225ff1ee4e1817728180be",
        "test.text": "af040c980426acd37fc8db3e20a7ba49e4cab4cf0ccc24cc8d1f37f88062eeb6",
        "train.ends": "c8b2129e2d33b8bb8051ce25256c3fbf3b7e127fac93d522440a934d9d71184a",
        "train.labels": "841aa5a4b3b944e33bca10abc643c166b149cc8cb7de27c083db522c04bc98d2",
        "train.text": "be9e44c1aabca13e10a8b0478fe3f5ef22d5d1225349b00d68eb7a7ff71e367e",
    },
    "imdb": {
        "test.ends": "27bdcf95453afec61bea7a665e405799382f414277f692f749fa718122c9e365",
        "test.labels": "4e0d6bb0811c9d7edb662d510135a2801109e11de4430c35d8fcbf0017d8f04f",
        "test.text": "a1408ab868ae13290d25463ca44665a6ef8e4448903c4eaa766761e4f5df7d47",
        "train.ends": "6b0d043aa993e7ff632789210fe8e49dc132b10a277c62383f425bd99d9a428b",
        "train.labels": "e95a8f7f4cdb2ff82b1315887188f25ff9d898175e56074dd65a517d900e0516",
        "train.text": "b78219cf3e605eaaa630d1f826ba76f54197cff415daef529bb66a83f503f2e0",
    },
    "rotten-tomatoes": {
        "test.ends": "cb9ff8fe3e3e2e839aab399bdf2b6e956c18d9403273bb1f9954b9972dcd44b2",
        "test.labels": "f31288d1c16603a52b3f4a90f3b710a5a71d7cfce27d6b93b248a90ebbc1b7f3",
        "test.text": "c4b3ca076564ddd1dce4c2699e16a684c5e95da26c01073a750b6b738a5a3a47",
        "train.ends": "52b6cf99c02480f975bd5b7b960057654844b60249bbdd5d92b255cb2b496c1e",
        "train.labels": "437eb956c604cf81698a0d1204087177545a9e47983c6d10534c15fd2288097c",
        "train.text": "a522fefcbda47d06bbc6ef0780eb2661631996123abf508afc1bce89c5b6ed4b",
    },
    "bbc-news": {
        "test.ends": "9cf36204c722f4a14d857f7e004f4c5a22e659af5f8e74b05141948559594958",
        "test.labels": "934738607e071af3a959854fa42286c3cdc9a661561cd44bfed2b9e581935b51",
        "test.text": "46ed029c1660901a981035767f97a2357999eeeb2948520ee63cdf45bb42cca6",
        "train.ends": "69b5a5b75c73f315c562c5e7ff54caff4a5aa44476bcf4cbf88704ae1679e88d",
        "train.labels": "ef5448837168623e80d044a4a684d906b4f9df6426a4911702359c8c2ebc766c",
        "train.text": "701fe5f6251093c08a3226ace9a5e5585b8f174496946edd98719556c73e0f32",
    },
    "spam-mail": {
        "test.ends": "41b59b6f89fcc06de0690c05cf2cec7f1c8d4c8dba369872ad43a8ab67a68ddf",
        "test.labels": "d80ea7f60c59d8952349abc245eb341c3288644b9c0e18190d45f694796f3425",
        "test.text": "410781b0a7a8a0075e05abbd850fbddcec7de1c2d32fe7469f3ebe1ec747d2fa",
        "train.ends": "23ca46e12053c60488341fa954bb9c99d612f5053a9b52fce6006dde8782d928",
        "train.labels": "a158dda0458071fc13c76190d9d5a663da1f4259fe861b4ea466bc772928cb61",
        "train.text": "a08a085b99ed656d3b90831a121331f59b50037bf9e92ebdd7a40c4d91886cfe",
    },
}
