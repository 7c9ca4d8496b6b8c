"""MNIST with a part of labels 0-4 taken away and, perhaps, given back by augmentation."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
from filelock import FileLock
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, validate_call
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST

from mnist_imbalance.augment import add_noise, rotate
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import new_folder
from mnist_imbalance.labels import MINORITY, NUM_LABELS
from mnist_imbalance.seeds import Seed, generator

Batch = tuple[Tensor, Tensor]
Copied = Literal["minority", "all"]
# what torchvision raises over files that are missing or not whole
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError, LookupError, TypeError)


class Copy(BaseModel, extra="forbid"):
    """What is done to one copy of every minority image."""

    angle: FiniteFloat  # degrees, counter-clockwise
    noise: Annotated[float, Field(ge=0, le=1)]  # standard deviation, pixels in [0, 1]


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


def load(folder: Path, train: bool, kind: type[MNIST] = MNIST) -> tuple[Tensor, Tensor]:
    """Read images (N, 1, 28, 28) uint8 and labels (N,), downloaded where they lack.

    Args:
        folder: Holds ``MNIST/raw/`` with the four archives of the data set.
        train: The 60,000 training images, or else the 10,000 test images.
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
            raise ConfigError(
                f"data.dir: no whole {kind.__name__} archives in {raw}, and torchvision cannot "
                f"get them ({reason}); the repository's MNIST comes back with `git checkout data`"
            ) from error
    return mnist.data.unsqueeze(1), mnist.targets


def checksum(*tensors: Tensor) -> str:
    """Return the sha256, in hex, of the tensors' values one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def count_labels(labels: Tensor) -> list[int]:
    """Count the images of each of the ten labels."""
    counts: list[int] = labels.bincount(minlength=NUM_LABELS).tolist()
    return counts


def is_minority(labels: Tensor) -> Tensor:
    """Tell which of the labels (N,) belong to the minority, (N,) bool."""
    return torch.isin(labels, torch.tensor(MINORITY, device=labels.device))


def hold_out(labels: Tensor, per_label: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a validation set with the same number of images of each label.

    Args:
        labels: (N,) of the whole training set.
        per_label: Images of each label to hold out.
        generator: Where the choice is drawn from.

    Returns:
        Indices of the training and of the validation images, each label's in random order.

    Raises:
        ConfigError: A label has no more than ``per_label`` images.
    """
    if per_label >= min(count_labels(labels)):
        raise ConfigError(
            f"data.val_per_label: must be below {min(count_labels(labels))}, "
            f"the images of the rarest label, got {per_label}"
        )
    train, val = [], []
    for label in range(NUM_LABELS):
        of_label = (labels == label).nonzero().flatten()
        of_label = of_label[torch.randperm(len(of_label), generator=generator)]
        val.append(of_label[:per_label])
        train.append(of_label[per_label:])
    return torch.cat(train), torch.cat(val)


def subsample(indices: Tensor, labels: Tensor, keep: float) -> Tensor:
    """Keep the first ``round(keep * n)`` of the n images of each minority label.

    Args:
        indices: Into ``labels``, each label's in random order.
        labels: (N,) of the whole training set.
        keep: Fraction in (0, 1].

    Raises:
        ConfigError: Nothing would be left of a label.
    """
    kept = []
    for label in range(NUM_LABELS):
        of_label = indices[labels[indices] == label]
        size = round(keep * len(of_label)) if label in MINORITY else len(of_label)
        if size == 0:
            raise ConfigError(f"data.keep: {keep} leaves no training image of label {label}")
        kept.append(of_label[:size])
    return torch.cat(kept)


def expand(
    images: Tensor,
    labels: Tensor,
    copies: Sequence[Copy],
    generator: torch.Generator,
    copied: Copied = "minority",
) -> tuple[Tensor, Tensor]:
    """Put every copied image in once per copy, augmented as the copy says (AI3607, section 4).

    Args:
        images: (N, 1, 28, 28) uint8.
        labels: (N,).
        copies: What is done to each copy; noise comes after rotation.
        generator: Where the noise is drawn from.
        copied: Whose images are copied, those of the minority or of all labels.

    Returns:
        Images and labels: what is not copied first, then one block for each copy.
    """
    chosen = (
        is_minority(labels) if copied == "minority" else torch.ones_like(labels, dtype=torch.bool)
    )
    blocks = [
        add_noise(rotate(images[chosen], copy.angle), copy.noise, generator) for copy in copies
    ]
    return (
        torch.cat([images[~chosen], *blocks]),
        torch.cat([labels[~chosen], *[labels[chosen]] * len(copies)]),
    )


def batches(of: Batch, size: int, dim: int = 0) -> DataLoader[Batch]:
    """Cut images and labels into slices along a dimension."""
    slices = (torch.split(tensor, size, dim) for tensor in of)
    made: Any = list(zip(*slices, strict=True))  # all that a DataLoader asks of a dataset
    return DataLoader(made, batch_size=None)


class MNISTData(lightning.LightningDataModule):
    """MNIST in memory: held out, subsampled and expanded, in batches that are slices.

    A batch is ``(images, labels)``: (N, 1, 28, 28) float in [0, 1] and (N,) int64. The tensors
    live on the trainer's device. The Trainer must be made with
    ``reload_dataloaders_every_n_epochs=1``, since an epoch's order is drawn with its loader.

    Args:
        dir: Holds ``MNIST/raw/``; torchvision downloads there what is missing.
        seed: Chooses the images that are held out and kept, and the noise.
        order_seed: With the epoch, chooses the order of the training images.
        val_per_label: Training images of each label held out for validation.
        keep: Fraction of the remaining images of labels 0-4 that is kept, in (0, 1].
        copies: What is done to each copy of a kept image of labels 0-4; one copy at least.
        copied: The labels whose images are copied: ``minority``, or ``all``.
        redraw: Draw the copies' noise anew for every epoch.
        batch_size: Images a batch.

    Attributes:
        kind: What is loaded; a subclass may name FashionMNIST or KMNIST instead.
    """

    kind: type[MNIST] = MNIST

    @validate_call
    def __init__(
        self,
        dir: Path,
        seed: Seed,
        order_seed: Seed,
        val_per_label: PositiveInt,
        keep: Annotated[float, Field(gt=0, le=1)],
        copies: Annotated[list[Copy], Field(min_length=1)],
        redraw: bool,
        batch_size: PositiveInt,
        copied: Copied = "minority",
    ) -> None:
        super().__init__()
        self.dir = dir
        self.seed = seed
        self.order_seed = order_seed
        self.val_per_label = val_per_label
        self.keep = keep
        self.copies = copies
        self.copied = copied
        self.redraw = redraw
        self.batch_size = batch_size
        self.counts: dict[str, list[int]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load and prepare all sets, once; ``counts`` then tells the images of each label by step.

        Raises:
            ConfigError: The data set cannot be had, or a label would be left without images.
        """
        if self.counts:
            return
        images, labels = load(self.dir, train=True, kind=self.kind)
        test = load(self.dir, train=False, kind=self.kind)
        self.sha256 = checksum(images, labels, *test)
        held_in, held_out = hold_out(labels, self.val_per_label, generator("hold-out", self.seed))
        kept = subsample(held_in, labels, self.keep)
        self.kept = images[kept], labels[kept]
        expanded = self._expand(epoch=0)
        self.train, self.val, self.test = (
            self._to_device(*part)
            for part in (expanded, (images[held_out], labels[held_out]), test)
        )
        self.counts = {
            "archive": count_labels(labels),
            "held in": count_labels(labels[held_in]),
            "subsampled": count_labels(labels[kept]),
            "expanded": count_labels(expanded[1]),
            "validation": count_labels(labels[held_out]),
            "test": count_labels(test[1]),
        }

    def _expand(self, epoch: int) -> Batch:
        noise = generator("noise", self.seed, epoch)
        return expand(*self.kept, self.copies, noise, self.copied)

    def _to_device(self, images: Tensor, labels: Tensor) -> Batch:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return images.to(device), labels.to(device)

    def ordered(self) -> Batch:
        """All training images and labels, in the order of the epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        if self.redraw and epoch > 0:
            self.train = self._to_device(*self._expand(epoch))
        images, labels = self.train
        order = torch.randperm(len(labels), generator=generator("order", self.order_seed, epoch))
        order = order.to(labels.device)
        return images[order], labels[order]

    def train_dataloader(self) -> DataLoader[Batch]:
        """One epoch's batches, in an order of its own."""
        return batches(self.ordered(), self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out training images."""
        return batches(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The whole test set, as MNIST has it."""
        return batches(self.test, self.batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pixels to [0, 1], on the device."""
        images, labels = batch
        return images / 255, labels

    def sample(self) -> Tensor:
        """One training image of each minority label in all its copies (AI3607, Figure 3).

        Returns:
            (copies * 5, 1, 28, 28) uint8: copy by copy, labels 0-4 in each.
        """
        images, labels = self.train
        minority = is_minority(labels)
        copies = torch.stack(images[minority].chunk(len(self.copies)))
        of_each = labels[minority].chunk(len(self.copies))[0]
        first = torch.stack([(of_each == label).nonzero()[0, 0] for label in MINORITY])
        return copies[:, first].flatten(0, 1)
