"""Where images come from: torchvision's data sets, scikit-learn's digits, folders of images."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from filelock import FileLock
from pydantic import PositiveInt, validate_call
from torch import Tensor
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import v2

from mnist_imbalance.errors import ConfigError

Batch = tuple[Tensor, Tensor]  # images and labels
# torchvision's errors about files that are missing or not whole
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError, LookupError, TypeError)


@dataclass(frozen=True)
class Images:
    """A data set in its official split.

    Attributes:
        train: Images (N, C, H, W) uint8 and labels (N,) int64 from 0.
        test: The same, to be scored once.
        num_classes: Number of labels.
    """

    train: Batch
    test: Batch
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width

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


@contextmanager
def downloading(dir: Path, name: str, files: str) -> Iterator[None]:
    """Let one process at a time download to a folder, and name the files if it fails.

    Raises:
        ConfigError: The files are missing or damaged and cannot be downloaded.
    """
    lock = dir / ".download.lock"
    try:
        dir.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield
    except (*UNREADABLE, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
        raise ConfigError(
            f"data.dir: no whole {name} files in {dir.absolute()}, and torchvision cannot get "
            f"them ({reason}); put there {files}"
        ) from error
    finally:
        lock.unlink(missing_ok=True)


def load(folder: Path, train: bool, kind: type[MNIST] = MNIST) -> Batch:
    """Return images (N, 1, 28, 28) uint8 and labels (N,) of MNIST or a set with its layout.

    Args:
        folder: Holds ``<name>/raw/`` with the four archives of the data set.
        train: The training images, or else the test images.
        kind: torchvision's class.
    """
    try:
        data = kind(folder, train)
    except UNREADABLE:
        raw = folder / kind.__name__ / "raw"
        with downloading(raw, kind.__name__, ", ".join(name for name, _ in kind.resources)):
            try:
                data = kind(folder, train)  # unpacked by another process meanwhile
            except UNREADABLE:
                for archive in raw.glob("*-ubyte.gz"):
                    archive.with_suffix("").unlink(missing_ok=True)  # perhaps half-unpacked
                data = kind(folder, train, download=True)
    return data.data.unsqueeze(1), data.targets


def first_images(images: Tensor, labels: Tensor, number: int) -> Batch:
    """Return the first images of each label and their labels, in the order of the data set."""
    chosen = torch.cat([(labels == label).nonzero()[:number, 0] for label in labels.unique()])
    chosen = chosen.sort().values
    return images[chosen], labels[chosen]


@validate_call
def read_torchvision(
    dir: Path, name: Literal["MNIST", "FashionMNIST", "KMNIST"], first: PositiveInt | None = None
) -> Images:
    """Return a data set that has MNIST's layout.

    Args:
        dir: Holds ``<name>/raw/``; torchvision downloads missing files there.
        name: torchvision's name.
        first: Keep this many images of each label in each split; None keeps all.
    """
    kind = getattr(torchvision.datasets, name)
    train, test = (load(dir, train, kind) for train in (True, False))
    if first is not None:
        train, test = (first_images(*part, first) for part in (train, test))
    return Images(train, test, num_classes=len(kind.classes))


@validate_call
def read(dir: Path, name: Literal["EMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100"]) -> Images:
    """Return a data set of torchvision's with another layout.

    Args:
        dir: Holds torchvision's files; it downloads missing ones there.
        name: torchvision's name. EMNIST is its balanced split; QMNIST's test images are MNIST's.
    """
    kind = getattr(torchvision.datasets, name)
    files = f"the files that torchvision.datasets.{name} downloads"
    parts = []
    for train in (True, False):
        which: dict[str, Any] = {"train": train}
        if name == "EMNIST":
            which["split"] = "balanced"
        if name == "QMNIST":
            which = {"what": "train" if train else "test10k"}
        with downloading(dir, name, files):
            data = kind(dir, **which, download=True)
        images = torch.as_tensor(data.data, dtype=torch.uint8)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        images = images.transpose(2, 3) if name == "EMNIST" else images
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has more columns
        parts.append((images.contiguous(), labels.contiguous()))
    classes = len(getattr(data, "classes", ())) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], classes)


def read_digits(dir: Path) -> Images:
    """Return scikit-learn's 1,797 digits, 8 × 8; the last fifth of each label is the test set.

    Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits". ``dir`` is not used.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        indices = (labels == label).nonzero().flatten()
        in_test[indices[-(len(indices) // 5) :]] = True
    train, test = ((images[part], labels[part]) for part in (~in_test, in_test))
    return Images(train, test, len(digits.target_names))


@validate_call
def read_folder(dir: Path, size: PositiveInt = 28, colours: Literal[1, 3] = 1) -> Images:
    """Return the images below ``train/<label>/`` and ``test/<label>/``, scaled to one size.

    Args:
        dir: Holds ``train`` and ``test``; labels are numbered by their folders' names, in order.
        size: Height and width, in pixels; a longer side is cut off on both ends.
        colours: Channels: 1 is grey, 3 is red, green and blue.

    Raises:
        ConfigError: There are no images, or ``test`` has other labels.
    """
    in_colours = v2.Grayscale() if colours == 1 else v2.RGB()
    steps = [v2.PILToTensor(), in_colours, v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    try:
        read = partial(ImageFolder, transform=v2.Compose(steps))
        train, test = (read(str(dir / split)) for split in ("train", "test"))
    except FileNotFoundError as error:
        raise ConfigError(f"data.dir: {' '.join(str(error).split())}") from error
    if train.classes != test.classes:
        raise ConfigError(f"data.dir: {dir / 'test'} has other labels than {dir / 'train'}")
    batches = []
    for split in (train, test):
        images, labels = zip(*split, strict=True)
        batches.append((torch.stack(images), torch.tensor(labels)))
    return Images(batches[0], batches[1], len(train.classes))
