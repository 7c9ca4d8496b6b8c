"""Data sets of torchvision's that are laid otherwise than MNIST."""

from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from pydantic import validate_call
from torch import Tensor

from mnist_imbalance.data.source import UNREADABLE, Batch, Images
from mnist_imbalance.errors import ConfigError


def parts_of(name: str, train: bool) -> dict[str, Any]:
    """Return what a data set's class is given for its training or its test images."""
    if name == "QMNIST":
        return {"what": "train" if train else "test10k"}
    return {"train": train} | ({"split": "balanced"} if name == "EMNIST" else {})


def as_batch(pixels: Any, labels: Any) -> Batch:
    """Return images (N, C, H, W) uint8 and labels (N,), however torchvision lays them.

    Args:
        pixels: (N, H, W), or (N, H, W, C) with colours.
        labels: N of them; of more columns the first counts.
    """
    images = torch.as_tensor(pixels, dtype=torch.uint8)
    images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
    whole: Tensor = torch.as_tensor(labels, dtype=torch.int64)
    return images.contiguous(), whole if whole.ndim == 1 else whole[:, 0].contiguous()


@validate_call
def read(dir: Path, name: Literal["EMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100"]) -> Images:
    """Return all images of a data set.

    Args:
        dir: Holds its files as torchvision lays them; what is missing is downloaded there.
        name: Of the data set. EMNIST is its balanced split; QMNIST's test images are MNIST's.

    Raises:
        ConfigError: The data set cannot be had.
    """
    kind = getattr(torchvision.datasets, name)
    parts = []
    for train in (True, False):
        try:
            part = kind(dir, **parts_of(name, train), download=True)
        except (*UNREADABLE, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
            raise ConfigError(
                f"data.dir: no whole {name} files below {dir.absolute()}, and torchvision cannot "
                f"get them ({reason}); put there what torchvision.datasets.{name} downloads"
            ) from error
        images, labels = as_batch(part.data, part.targets)
        parts.append((images.transpose(2, 3) if name == "EMNIST" else images, labels))
    classes = len(getattr(part, "classes", ())) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], num_classes=classes)
