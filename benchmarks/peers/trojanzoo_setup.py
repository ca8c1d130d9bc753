"""trojanzoo's own objects around an exchange folder: data set, model, mark, attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers import torchvision_stub
from benchmarks.peers.exchange import Exchange, parts

torchvision_stub.install()

from trojanvision.attacks import BadNet  # noqa: E402
from trojanvision.datasets import ImageSet  # noqa: E402
from trojanvision.marks import Watermark  # noqa: E402
from trojanvision.models import ImageModel, _ImageModel  # noqa: E402
from trojanzoo.utils.data import TensorListDataset  # noqa: E402

Rows = tuple[torch.Tensor, torch.Tensor]


class Tensors(ImageSet):  # type: ignore[misc]
    """trojanzoo's data set over tensors already in memory."""

    name, num_classes, data_shape = "exchange", 10, [1, 28, 28]

    def __init__(self, train: Rows, valid: Rows, **settings: Any) -> None:
        self.rows = {"train": train, "valid": valid}
        super().__init__(num_workers=0, **settings)

    def _get_org_dataset(self, mode: str, **_: Any) -> Any:
        images, labels = self.rows[mode]
        return TensorListDataset(images, labels.tolist())


def prepared(exchange: Exchange, train: Rows, valid: Rows, batch: int) -> tuple[Any, dict[str, Any]]:
    """The attack that planted the victim's backdoor, and what every defense is constructed from."""
    victim = exchange.description["victim"]
    Tensors.num_classes, Tensors.data_shape = victim["classes"], [victim["channels"], victim["size"], victim["size"]]
    dataset = Tensors(train, valid, batch_size=batch, valid_batch_size=batch)
    network = _ImageModel(num_classes=victim["classes"])
    network.features, head = parts(exchange.network)
    network.pool, network.classifier = nn.Identity(), nn.Sequential(head)
    model = ImageModel(name="victim", model=network, dataset=dataset, modify_first_layer_channel=False)
    images = exchange.floats("test_images", slice(0, 64))
    torch.testing.assert_close(model(images), exchange.network(images))
    attack = BadNet(
        mark=watermark(exchange.attack, Tensors.data_shape),
        target_class=exchange.attack["target"],
        poison_percent=exchange.attack["poison_rate"],
        dataset=dataset,
        model=model,
    )
    return attack, {"attack": attack, "original": True, "dataset": dataset, "model": model}


def watermark(attack: dict[str, Any], shape: list[int]) -> Any:
    height, width = attack["patch"]
    mark = torch.cat([torch.full((shape[0], height, width), attack["value"] / 255), torch.ones(1, height, width)])
    made = Watermark(
        mark_path=np.ones((1, height, width), np.float32), data_shape=shape, mark_height=height, mark_width=width
    )
    made.load_mark(mark, already_processed=True)
    made.mark_path = "exchange.npy"  # it goes into file names
    made.mark_height_offset, made.mark_width_offset = attack["top"], attack["left"]
    return made


def some(exchange: Exchange, count: int = 1000) -> Rows:
    return exchange.floats("test_images", slice(-count, None)), exchange.data["test_labels"][-count:]


class Recorded(TensorListDataset):  # type: ignore[misc]
    """Rows that note the order in which they are read."""

    def __init__(self, rows: Rows, first: int, order: list[int]) -> None:
        super().__init__(rows[0], rows[1].tolist())
        self.first, self.order = first, order

    def __getitem__(self, index: int) -> Any:
        self.order.append(self.first + index)
        return super().__getitem__(index)
