"""Where images come from: torchvision's data sets, scikit-learn's digits, folders of images."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from pydantic import PositiveInt, validate_call
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from mnist_imbalance.data.imbalance import by_label
from mnist_imbalance.errors import ConfigError, naming

Batch = tuple[Tensor, Tensor]  # images and labels


@dataclass(frozen=True)
class Images:
    """A data set in its official split, images (N, C, H, W) uint8 and labels (N,) int64 from 0."""

    train: Batch
    test: Batch
    num_classes: int

    def __post_init__(self) -> None:
        for _, labels in (self.train, self.test):
            if not 0 <= labels.min() <= labels.max() < self.num_classes <= 256:
                most = f"{self.num_classes - 1} (num_classes - 1), at most 255"  # of uint8
                raise ConfigError(f"data.source: labels must be from 0 to {most}")

    def checksum(self) -> str:
        """Return the sha256, in hex, of all images and labels."""
        digest = hashlib.sha256()
        for tensor in (*self.train, *self.test):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def load(dir: Path, name: str, **split: Any) -> Any:
    """Return a data set of torchvision's, which one process at a time downloads if it must."""
    kind = partial(getattr(datasets, name), dir, **split)
    with suppress(Exception):
        return kind()
    try:
        dir.mkdir(parents=True, exist_ok=True)
        with FileLock(dir / ".download.lock"):
            with suppress(Exception):
                return kind()  # downloaded by another process meanwhile
            for archive in dir.glob(f"{name}/raw/*-ubyte.gz"):
                archive.with_suffix("").unlink(missing_ok=True)  # perhaps half-unpacked
            return kind(download=True)
    except Exception as error:
        raise ConfigError(
            f"data.dir: {dir.absolute()} has no complete {name} in torchvision's layout, and the "
            f"download failed: {str(error).partition(':')[0]}"
        ) from error


@validate_call
def read_torchvision(dir: Path, name: str = "MNIST", first: PositiveInt | None = None) -> Images:
    """Return a data set of torchvision's, or the ``first`` images of each label alone.

    EMNIST is its balanced split, and QMNIST has the images of MNIST's test set.
    """
    parts = []
    for train in (True, False):
        split: dict[str, Any] = {"train": train}
        if name == "EMNIST":
            split["split"] = "balanced"
        if name == "QMNIST":
            split = {"what": "train" if train else "test10k"}
        data = load(dir, name, **split)
        images = torch.as_tensor(data.data, dtype=torch.uint8)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        images = images.transpose(2, 3) if name == "EMNIST" else images
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has more columns
        chosen = torch.cat([own[:first] for own in by_label(labels)]).sort().values
        parts.append((images[chosen].contiguous(), labels[chosen]))
    classes = len(getattr(data, "classes", ())) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], classes)


read = read_torchvision  # the name in hashes of EMNIST, QMNIST, USPS and CIFAR


def read_digits(dir: Path) -> Images:
    """Return scikit-learn's 1,797 digits, 8 × 8; the last fifth of each label is the test set.

    Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits". ``dir`` is not used.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    last = torch.cat([own[-(len(own) // 5) :] for own in by_label(labels)])
    in_test = torch.isin(torch.arange(len(labels)), last)
    train, test = ((images[part], labels[part]) for part in (~in_test, in_test))
    return Images(train, test, len(digits.target_names))


@validate_call
def read_folder(dir: Path, size: PositiveInt = 28, colours: Literal[1, 3] = 1) -> Images:
    """Return the images below ``train/<label>/`` and ``test/<label>/``, scaled to one size.

    Labels are numbered by their folders' names, in order. The shorter side becomes ``size`` pixels,
    and the longer one is cut off on both ends.
    """
    channels = v2.Grayscale() if colours == 1 else v2.RGB()
    steps = [v2.PILToTensor(), channels, v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    with naming("data.dir"):
        sets = [datasets.ImageFolder(dir / part, v2.Compose(steps)) for part in ("train", "test")]
    if sets[0].classes != sets[1].classes:
        raise ConfigError(f"data.dir: {dir / 'test'} has other labels than {dir / 'train'}")
    columns = (zip(*images, strict=True) for images in sets)
    train, test = ((torch.stack(images), torch.tensor(labels)) for images, labels in columns)
    return Images(train, test, len(sets[0].classes))
