"""What images and labels there are, their shape and classes."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torchvision
from filelock import FileLock
from pydantic import PositiveInt, validate_call
from torch import Tensor
from torchvision.datasets import MNIST

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import new_folder

Batch = tuple[Tensor, Tensor]  # images and labels
# what torchvision raises over files that are missing or not whole
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError, LookupError, TypeError)


@dataclass(frozen=True)
class Images:
    """A data set as its makers divide it.

    Attributes:
        train: Images (N, C, H, W) uint8 and labels (N,) int64 from 0.
        test: The same, to be scored once.
        num_classes: Labels that there are.
    """

    train: Batch
    test: Batch
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of an image."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width

    def checksum(self) -> str:
        """Return the sha256, in hex, of all images and labels."""
        digest = hashlib.sha256()
        for tensor in (*self.train, *self.test):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def check(self) -> None:
        """Refuse labels that are not among the classes.

        Raises:
            ConfigError: There are some.
        """
        for _, labels in (self.train, self.test):
            if not 0 <= labels.min() <= labels.max() < self.num_classes <= 256:
                raise ConfigError(
                    f"data.source: labels from {labels.min()} to {labels.max()}, but "
                    f"{self.num_classes} classes; there must be as many, 256 at most"
                )


def unpack(kind: type[MNIST], folder: Path, raw: Path, train: bool) -> MNIST:
    """Let torchvision download and unpack what lacks, one process at a time."""
    lock = raw / ".lock"
    with new_folder(raw):
        try:
            with FileLock(lock):
                try:
                    return kind(folder, train)  # unpacked meanwhile by another process
                except UNREADABLE:
                    for archive in raw.glob("*-ubyte.gz"):
                        archive.with_suffix("").unlink(missing_ok=True)  # perhaps half-unpacked
                    return kind(folder, train, download=True)
        finally:
            with suppress(OSError):
                lock.unlink()


def load(folder: Path, train: bool, kind: type[MNIST] = MNIST) -> Batch:
    """Return images (N, 1, 28, 28) uint8 and labels (N,), downloaded where they lack.

    Args:
        folder: Holds ``MNIST/raw/`` with the four archives of the data set.
        train: The training images, or else the test images.
        kind: MNIST, or a data set of torchvision's that is laid like it, in a folder of its name.

    Raises:
        ConfigError: The archives are missing or damaged and cannot be downloaded.
    """
    try:
        mnist = kind(folder, train)
    except UNREADABLE:
        raw = folder.absolute() / kind.__name__ / "raw"
        try:
            mnist = unpack(kind, folder, raw, train)
        except (*UNREADABLE, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
            names = ", ".join(name for name, _ in kind.resources)
            raise ConfigError(
                f"data.dir: no whole {kind.__name__} archives in {raw}, and torchvision cannot "
                f"get them ({reason}); put there {names}"
            ) from error
    return mnist.data.unsqueeze(1), mnist.targets


def first_of_each(images: Tensor, labels: Tensor, first: int) -> Batch:
    """Return the first images of each label and their labels, in the order in which they stood."""
    chosen = torch.cat(
        [(labels == label).nonzero()[:first, 0] for label in range(int(labels.max()) + 1)]
    )
    chosen = chosen.sort().values
    return images[chosen], labels[chosen]


@validate_call
def read_torchvision(
    dir: Path, name: Literal["MNIST", "FashionMNIST", "KMNIST"], first: PositiveInt | None = None
) -> Images:
    """Return a data set of torchvision's that is laid like MNIST.

    Args:
        dir: Holds ``<name>/raw/``; torchvision downloads there what is missing.
        name: Of the data set.
        first: Keep this many images of each label, of the training and of the test set; None is
            all of them.

    Raises:
        ConfigError: The data set cannot be had.
    """
    kind = getattr(torchvision.datasets, name)
    train, test = (load(dir, train, kind) for train in (True, False))
    if first is not None:
        train, test = (first_of_each(*part, first) for part in (train, test))
    return Images(train, test, num_classes=len(kind.classes))
