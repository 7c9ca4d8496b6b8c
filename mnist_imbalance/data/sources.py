"""Where images come from: torchvision's data sets, scikit-learn's digits, folders of images."""

import hashlib
from collections.abc import Callable
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
from mnist_imbalance.errors import ConfigError

Batch = tuple[Tensor, Tensor]  # images and labels
# torchvision's errors about files that are missing or not whole
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError, LookupError, TypeError, OSError)


@dataclass(frozen=True)
class Images:
    """A data set in its official split, images (N, C, H, W) uint8 and labels (N,) int64 from 0."""

    train: Batch
    test: Batch
    num_classes: int

    def checksum(self) -> str:
        """Return the sha256, in hex, of all images and labels."""
        digest = hashlib.sha256()
        for tensor in (*self.train, *self.test):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def check(self) -> None:
        """Refuse labels that are not among the classes, with a `ConfigError`."""
        for _, labels in (self.train, self.test):
            if not 0 <= labels.min() <= labels.max() < self.num_classes <= 256:
                raise ConfigError(
                    f"data.source: labels from {labels.min()} to {labels.max()}, but "
                    f"{self.num_classes} classes; there must be as many, 256 at most"
                )


def download(kind: Callable[..., Any], name: str, folder: Path, files: str) -> Any:
    """Return a data set of torchvision's, of which one process at a time downloads missing files.

    Raises:
        ConfigError: The files in the folder are missing or damaged and cannot be downloaded.
    """
    with suppress(*UNREADABLE):
        return kind()
    lock = folder / ".download.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            with suppress(*UNREADABLE):
                return kind()  # downloaded by another process meanwhile
            for archive in folder.glob("*-ubyte.gz"):
                archive.with_suffix("").unlink(missing_ok=True)  # perhaps half-unpacked
            return kind(download=True)
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
        raise ConfigError(
            f"data.dir: no whole {name} files in {folder.absolute()}, and torchvision cannot get "
            f"them ({reason}); put there {files}"
        ) from error
    finally:
        with suppress(OSError):
            lock.unlink()


def read_split(dir: Path, name: str, folder: Path, files: str) -> Images:
    """Return a data set of torchvision's, whose files are in a folder."""
    parts = []
    for train in (True, False):
        split: dict[str, Any] = {"train": train}
        if name == "EMNIST":
            split["split"] = "balanced"
        if name == "QMNIST":
            split = {"what": "train" if train else "test10k"}
        data = download(partial(getattr(datasets, name), dir, **split), name, folder, files)
        images = torch.as_tensor(data.data, dtype=torch.uint8)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        images = images.transpose(2, 3) if name == "EMNIST" else images
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has more columns
        parts.append((images.contiguous(), labels.contiguous()))
    classes = len(getattr(data, "classes", ())) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], classes)


def first_images(images: Tensor, labels: Tensor, number: int) -> Batch:
    """Return the first images of each label and their labels, in the order of the data set."""
    chosen = torch.cat([own[:number] for own in by_label(labels)]).sort().values
    return images[chosen], labels[chosen]


@validate_call
def read_torchvision(
    dir: Path, name: Literal["MNIST", "FashionMNIST", "KMNIST"], first: PositiveInt | None = None
) -> Images:
    """Return a data set that has MNIST's layout, or the ``first`` images of each label alone."""
    archives = ", ".join(archive for archive, _ in getattr(datasets, name).resources)
    images = read_split(dir, name, dir / name / "raw", archives)
    if first is None:
        return images
    train, test = (first_images(*part, first) for part in (images.train, images.test))
    return Images(train, test, images.num_classes)


@validate_call
def read(dir: Path, name: Literal["EMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100"]) -> Images:
    """Return EMNIST's balanced split, QMNIST with MNIST's test images, or another data set."""
    return read_split(dir, name, dir, f"the files that torchvision.datasets.{name} downloads")


def read_digits(dir: Path) -> Images:
    """Return scikit-learn's 1,797 digits, 8 × 8; the last fifth of each label is the test set.

    Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits". ``dir`` is not used.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    in_test[torch.cat([own[-(len(own) // 5) :] for own in by_label(labels)])] = True
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
    try:
        read = partial(datasets.ImageFolder, transform=v2.Compose(steps))
        train, test = (read(str(dir / split)) for split in ("train", "test"))
    except FileNotFoundError as error:
        raise ConfigError(f"data.dir: {' '.join(str(error).split())}") from error
    if train.classes != test.classes:
        raise ConfigError(f"data.dir: {dir / 'test'} has other labels than {dir / 'train'}")
    parts = [zip(*split, strict=True) for split in (train, test)]
    batches = [(torch.stack(images), torch.tensor(labels)) for images, labels in parts]
    return Images(batches[0], batches[1], len(train.classes))
