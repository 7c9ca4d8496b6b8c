"""The LightningDataModule: a source → validation split → imbalance → copies → batches."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, validate_call
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mnist_imbalance.data.copies import Copy, Transform, expand, transform_each
from mnist_imbalance.data.imbalance import (
    Profile,
    count_labels,
    hold_out,
    kept_counts,
    scored_groups,
    shot_groups,
    subsample,
)
from mnist_imbalance.data.samplers import shuffle
from mnist_imbalance.data.seeds import Seed, generator
from mnist_imbalance.data.sources import Batch, Images, read_torchvision
from mnist_imbalance.errors import ConfigError, naming

MNIST = partial(read_torchvision, name="MNIST")
UNCHANGED = Copy(angle=0, noise=0)


def is_among(labels: Tensor, chosen: Sequence[int]) -> Tensor:
    """Return which labels (N,) are among the chosen ones, (N,) bool."""
    return torch.isin(labels, torch.tensor(chosen, device=labels.device))


def first_of_each(images: Tensor, labels: Tensor, chosen: Sequence[int]) -> Tensor:
    """Return the first image of each chosen label, in their order."""
    return torch.stack([images[labels == label][0] for label in chosen])


class Slices(Sampler[int]):
    """Batches that are slices of an epoch's images and labels, which are drawn at its start.

    It is sampler and dataset of its loader. Lightning sets a sampler's epoch, so that a resumed
    run draws the same order; without Lightning every pass is the next epoch.

    Args:
        draw: Epoch → its images and labels, in order.
        images: Number of images in an epoch.
        size: Images per batch.
        dim: The tensors' dimension to slice.
    """

    def __init__(self, draw: Callable[[int], Batch], images: int, size: int, dim: int = 0) -> None:
        self.draw = draw
        self.images = images
        self.size = size
        self.dim = dim
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.images // self.size)

    def __iter__(self) -> Iterator[int]:
        cut = (torch.split(tensor, self.size, self.dim) for tensor in self.draw(self.epoch))
        self.slices = list(zip(*cut, strict=True))
        self.epoch += 1
        yield from range(len(self.slices))

    def __getitem__(self, number: int) -> Batch:
        return self.slices[number]

    def loader(self) -> DataLoader[Any]:
        """Return the loader of these batches."""
        dataset: Any = self  # has the two methods that a DataLoader calls
        return DataLoader(dataset, batch_size=None, sampler=self)


class MNISTData(lightning.LightningDataModule):
    """A data set as tensors on the trainer's device, in batches that are slices of them.

    A batch is ``(images, labels)``: (N, C, H, W) float in [0, 1] and (N,) int64. Without arguments
    it is all of MNIST.

    Args:
        dir: Folder of the source's files.
        seed: Chooses validation images, kept images, and noise.
        order_seed: With the epoch, chooses the order of the training images; None is ``seed``.
        val_per_label: Training images of each label held out for validation.
        minority: The labels that lose images, or how many of them ``seed`` draws. They are scored
            apart from the others.
        keep: Fraction of the minority's other images that is kept, in (0, 1]; or a fraction for
            each label; or a function: images per label → how many are kept.
        shots: Score labels with fewer training images than the first number, with more than the
            second, and those between, instead of minority and majority.
        copies: How each copy of a kept image is changed; one copy at least.
        copied: The labels whose images are copied: ``minority``, or ``all``.
        fill: Repeat the list of copies until a copied label has about as many images as another
            on average; noise is drawn for each copy.
        redraw: Draw the copies' noise anew in every epoch.
        batch_size: Images per batch.
        source: ``dir`` → all images and labels.
        sampler: Labels → an epoch's indices, see `mnist_imbalance.data.samplers.Sampler`.
        transforms: Applied in turn to each training image (C, H, W) uint8, anew in every epoch;
            ``order_seed`` and the epoch seed their draws.

    Attributes (after `setup`):
        counts: Images of each label after each step.
        minority: The labels that lose images.
        num_classes: Number of labels.
        image_shape: Channels, height and width.
        class_counts: Training images of each label, copies included.
        groups: The labels of each scored group, by name.
        sha256: Checksum of all images and labels of the source.
    """

    @validate_call
    def __init__(
        self,
        dir: Path = Path("data"),
        seed: Seed = 0,
        order_seed: Seed | None = None,
        val_per_label: PositiveInt = 500,
        minority: Sequence[NonNegativeInt] | PositiveInt = (),
        keep: Profile = 1.0,
        shots: tuple[PositiveInt, PositiveInt] | None = None,
        copies: Annotated[Sequence[Copy], Field(min_length=1)] = (UNCHANGED,),
        copied: Literal["minority", "all"] = "minority",
        fill: bool = False,
        redraw: bool = False,
        batch_size: PositiveInt = 128,
        source: Callable[[Path], Images] = MNIST,
        sampler: Callable[..., Tensor] = shuffle,
        transforms: Sequence[Transform] = (),
    ) -> None:
        super().__init__()
        self.dir = dir
        self.seed = seed
        self.order_seed = seed if order_seed is None else order_seed
        self.val_per_label = val_per_label
        self.wanted = minority
        self.keep = keep
        self.shots = shots
        self.copies = copies
        self.copied = copied
        self.fill = fill
        self.redraw = redraw
        self.batch_size = batch_size
        self.source = source
        self.sampler = sampler
        self.transforms = transforms
        self.counts: dict[str, list[int]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load and prepare all splits, once; a value that cannot work is a `ConfigError`."""
        if self.counts:
            return
        with naming("data.source"):
            images = self.source(self.dir)
        pixels, labels = images.train
        images.check()
        self.num_classes = images.num_classes
        self.image_shape = images.shape
        self.minority = self._choose_minority()
        if unknown := [label for label in self.minority if label >= self.num_classes]:
            raise ConfigError(f"data.minority: there is no label {unknown[0]}")
        if not self.minority and isinstance(self.keep, int | float) and self.keep < 1:
            raise ConfigError("data.keep: no label could lose images; data.minority names some")
        if not self.minority and len(self.copies) > 1 and self.copied == "minority":
            raise ConfigError("data.copies: no label is copied; data.minority names some")
        self.sha256 = images.checksum()

        held_in, held_out = hold_out(
            labels, self.val_per_label, self.num_classes, generator("hold-out", self.seed)
        )
        available = count_labels(labels[held_in], self.num_classes)
        with naming("data.keep"):
            counts = kept_counts(self.keep, self.minority, available)
        self.groups = (
            shot_groups(counts, *self.shots)
            if self.shots
            else scored_groups(self.minority, self.num_classes)
        )
        kept = subsample(held_in, labels, counts)
        self.kept = pixels[kept], labels[kept]
        self.train, self._noise_of = self._expand(epoch=0), 0
        self.val = pixels[held_out], labels[held_out]
        self.test = images.test
        with naming("data.sampler"):
            first = self.train[0][self.order(0)[: self.batch_size]]
        self._transform(first, epoch=0)
        self.class_counts = count_labels(self.train[1], self.num_classes)
        self.counts = {
            "archive": count_labels(labels, self.num_classes),
            "held in": available,
            "subsampled": count_labels(labels[kept], self.num_classes),
            "expanded": self.class_counts,
            "validation": count_labels(labels[held_out], self.num_classes),
            "test": count_labels(images.test[1], self.num_classes),
        }

    def _choose_minority(self) -> list[int]:
        if not isinstance(self.wanted, int):
            return sorted(set(self.wanted))
        if self.wanted >= self.num_classes:
            raise ConfigError(
                f"data.minority: must be below {self.num_classes}, the labels there are"
            )
        drawn = torch.randperm(self.num_classes, generator=generator("minority", self.seed))
        return sorted(drawn[: self.wanted].tolist())

    def _expand(self, epoch: int) -> Batch:
        images, labels = self.kept
        copied = list(range(self.num_classes)) if self.copied == "all" else self.minority
        noise = generator("noise", self.seed, epoch)
        chosen = is_among(labels, copied)
        return expand(images, labels, chosen, [*self.copies] * self._repeats(chosen), noise)

    def _repeats(self, copied: Tensor) -> int:
        """Return how often the list of copies is repeated, given which images are copied."""
        labels = self.kept[1]
        if not self.fill or copied.all() or not copied.any():
            return 1
        others, own = (int(part.sum()) / len(labels[part].unique()) for part in (~copied, copied))
        return max(1, round(others / (own * len(self.copies))))

    def to(self, device: torch.device) -> None:
        """Move all splits to a device."""
        self.train, self.val, self.test = (
            (images.to(device), labels.to(device))
            for images, labels in (self.train, self.val, self.test)
        )

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's training images, in order, (M,) on the CPU."""
        _, labels = self.train
        draw = getattr(self.sampler, "func", self.sampler)
        extra = {"epoch": epoch} if "epoch" in signature(draw).parameters else {}
        chance = generator("order", self.order_seed, epoch)
        return self.sampler(labels.cpu(), generator=chance, **extra)

    def drawn(self, epoch: int) -> Batch:
        """Return all training images and labels, with an epoch's noise, before they are ordered."""
        noise_of = epoch if self.redraw else 0
        if noise_of != self._noise_of:
            device = self.train[1].device
            images, labels = self._expand(noise_of)
            self.train, self._noise_of = (images.to(device), labels.to(device)), noise_of
        return self.train

    def epoch(self, number: int) -> Batch:
        """Return the training images and labels of an epoch, in order."""
        images, labels = self.drawn(number)
        order = self.order(number).to(labels.device)
        return self._transform(images[order], number), labels[order]

    def _transform(self, images: Tensor, epoch: int) -> Tensor:
        if not self.transforms:
            return images
        chance = generator("transforms", self.order_seed, epoch)
        return transform_each(images, self.transforms, chance)

    def _on_the_trainers_device(self) -> None:
        if self.trainer:
            self.to(self.trainer.strategy.root_device)

    def _whole(self, part: Batch) -> DataLoader[Any]:
        return Slices(lambda epoch: part, len(part[1]), self.batch_size).loader()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, in an order of its own for each epoch."""
        self._on_the_trainers_device()
        return Slices(self.epoch, len(self.order(0)), self.batch_size).loader()

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the held-out training images."""
        self._on_the_trainers_device()
        return self._whole(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the whole test set."""
        self._on_the_trainers_device()
        return self._whole(self.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pixels to [0, 1], on the device."""
        images, labels = batch
        return images / 255, labels

    @property
    def shown(self) -> list[int]:
        """The labels of `sample`: the minority, or all labels if there is none."""
        return self.minority or list(range(self.num_classes))

    def sample(self) -> Tensor:
        """Return one training image of each label of `shown` in all its copies (AI3607, Figure 3).

        Its shape is (copies * labels, C, H, W), uint8, the labels of the first copy first.
        """
        images, labels = self.train
        shown = is_among(labels, self.shown)
        size = int(is_among(self.kept[1], self.shown).sum())
        copies = torch.stack(images[shown].split(size)[: len(self.copies)])
        of_each = labels[shown][:size]
        return torch.cat([first_of_each(block, of_each, self.shown) for block in copies])
