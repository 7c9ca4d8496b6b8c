"""The LightningDataModule: a source → validation split → imbalance → copies → batches."""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
from pydantic import Field, PositiveInt, validate_call
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mnist_imbalance.data import imbalance
from mnist_imbalance.data.copies import Copy, Transform, expand, transform_each
from mnist_imbalance.data.imbalance import Profile, Wanted, by_label
from mnist_imbalance.data.samplers import shuffle
from mnist_imbalance.data.seeds import Seed, generator
from mnist_imbalance.data.sources import Batch, Images, read_torchvision, say
from mnist_imbalance.errors import ConfigError, naming

UNCHANGED = Copy(angle=0, noise=0)


class Slices(Sampler[Batch]):
    """Batches that are slices of an epoch's tensors, from a sampler that is its own data set.

    ``draw`` maps an epoch to its images and labels, in order; ``dim`` is the dimension to slice.
    Lightning sets a sampler's epoch, also when a run resumes; without it every pass is the next.
    """

    def __init__(self, draw: Callable[[int], Batch], images: int, size: int, dim: int = 0) -> None:
        self.draw, self.images, self.size, self.dim, self.epoch = draw, images, size, dim, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.images // self.size)

    def __iter__(self) -> Iterator[Batch]:
        parts = [tensor.split(self.size, self.dim) for tensor in self.draw(self.epoch)]
        self.epoch += 1
        yield from zip(*parts, strict=True)

    def __getitem__(self, batch: Batch) -> Batch:
        return batch

    def loader(self) -> DataLoader[Any]:
        """Return the loader of these batches."""
        return DataLoader(self, batch_size=None, sampler=self)  # type: ignore[arg-type]


class MNISTData(lightning.LightningDataModule):
    """A data set as tensors on the trainer's device, in batches that are slices of them.

    A batch is ``(images, labels)``: (N, C, H, W) float in [0, 1] and (N,) int64. Without arguments
    it is MNIST, 500 training images per label held out. The attributes are there after `setup`.
    """

    counts: dict[str, list[int]]  # images of each label after each step
    class_counts: list[int]  # training images of each label, copies included
    minority: list[int]  # the labels that lose images
    groups: dict[str, list[int]]  # the labels of each group that is scored
    num_classes: int
    class_names: list[str]  # empty where labels have no names
    image_shape: tuple[int, ...]  # channels, height and width
    sha256: str  # of all images and labels of the source

    @validate_call
    def __init__(
        self,
        dir: Path = Path("data"),  # of the source's files
        seed: Seed = 0,  # chooses validation images, kept images, and noise
        order_seed: Seed | None = None,  # of order and transforms, with the epoch; None is seed
        val_per_label: PositiveInt = 500,  # training images held out for validation
        val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None,  # of each label, instead
        minority: Wanted = (),  # see `rare_labels`
        keep: Profile = 1.0,  # fraction of the minority's other images, or more: see Profile
        shots: tuple[PositiveInt, PositiveInt] | None = None,  # see `label_groups`
        copies: Annotated[Sequence[Copy], Field(min_length=1)] = (UNCHANGED,),  # of a kept image
        copied: Literal["minority", "all"] = "minority",  # labels
        fill: bool = False,  # repeat copies until copied labels have about as many as others
        redraw: bool = False,  # the copies' noise in every epoch
        batch_size: PositiveInt = 128,
        source: Callable[[Path], Images] = read_torchvision,
        sampler: Callable[..., Tensor] = shuffle,
        augment: Callable[..., Tensor] | None = None,  # of all training images, in each epoch
        transforms: Sequence[Transform] = (),  # of each training image in each epoch, in turn
    ) -> None:
        super().__init__()
        self.dir, self.source, self.seed = dir, source, seed
        self.order_seed = seed if order_seed is None else order_seed
        self.val_per_label, self.val_fraction = val_per_label, val_fraction
        self.wanted, self.keep, self.shots = minority, keep, shots
        self.copies, self.copied, self.fill, self.redraw = copies, copied, fill, redraw
        self.batch_size, self.sampler = batch_size, sampler
        self.augment, self.transforms = augment, transforms
        self.counts = {}

    def setup(self, stage: str | None = None) -> None:
        """Load and prepare all splits, once; a value that cannot work is a `ConfigError`."""
        if self.counts:
            return
        with naming("data.source"):
            images = self.source(self.dir)
        pixels, labels = images.train
        size = self.num_classes = images.num_classes
        self.class_names = images.class_names or []
        self.image_shape = tuple(pixels.shape[1:])
        if empty := int((pixels == pixels[..., :1, :1]).flatten(1).all(1).sum()):
            say(f"data: {empty} of {len(pixels)} training images have a single colour")
        if (pixels == pixels[0]).all():
            say("data: all training images are equal")
        self.sha256 = images.checksum()
        train, val = self._hold_out(images)
        available = [*map(len, train)]
        with naming("data.keep"):
            profile = imbalance.kept_counts(self.keep, (), available)
            self.minority = imbalance.rare_labels(self.wanted, profile, self.seed)
            unknown = [label for label in self.minority if label >= size]
            changed = isinstance(self.keep, float) and self.keep < 1
            changed |= len(self.copies) > 1 and self.copied == "minority"
            if changed and (unknown or not self.minority):
                wanted = f"labels from 0 to {size - 1}, which lose images or are copied"
                raise ConfigError(f"data.minority: must be {wanted}, is {self.minority}")
            if unknown:
                say(f"data.minority: is none, for there are no labels {unknown}")
                self.minority = []
            kept = imbalance.kept_counts(self.keep, self.minority, available)
        self.groups = imbalance.label_groups(self.minority, kept, self.shots)
        chosen = torch.cat([own[:count] for own, count in zip(train, kept, strict=True)])
        self.kept = pixels[chosen], labels[chosen]
        self.train = self._expand(epoch=0)
        chosen = torch.cat(val)
        self.val, self.test = images.val or (pixels[chosen], labels[chosen]), images.test
        with naming("data.sampler"):
            first = self.train[0][self.order(0)[: self.batch_size]]
        self.change(first, generator("transforms", self.order_seed, 0))
        steps = {
            "archive": labels,
            "training split": labels[torch.cat(train)],
            "subsampled": self.kept[1],
            "with copies": self.train[1],
            "validation": self.val[1],
            "test": self.test[1],
        }
        self.counts = {name: own.bincount(minlength=size).tolist() for name, own in steps.items()}
        self.class_counts = self.counts["with copies"]
        if not any(self.counts["validation"]):
            raise ConfigError("data.val_fraction: holds out no image")
        for name in ("validation", "test"):
            if none := [label for label, count in enumerate(self.counts[name]) if not count]:
                say(f"data: no {name} images of labels {none}; means leave them out")

    def _hold_out(self, images: Images) -> tuple[list[Tensor], list[Tensor]]:
        """Return the indices of each label's training and validation images, in random order."""
        labels, rng = images.train[1], generator("hold-out", self.seed)
        drawn = [own[torch.randperm(len(own), generator=rng)] for own in by_label(labels)]
        held = torch.zeros(len(labels), dtype=torch.bool)
        for own in drawn if images.val is None else ():
            size = round(self.val_fraction * len(own)) if self.val_fraction else self.val_per_label
            if images.groups is None:
                held[own[:size]] = True
                continue
            for group in [*dict.fromkeys(images.groups[own].tolist())][:-1]:  # one is left
                if held[own].sum() < size:
                    held |= images.groups == group
        return [own[~held[own]] for own in drawn], [own[held[own]] for own in drawn]

    def _expand(self, epoch: int) -> Batch:
        """Return the kept images and their copies, with an epoch's noise."""
        images, labels = self.kept
        copied = torch.isin(labels, torch.tensor(self.minority)) | (self.copied == "all")
        copies = [*self.copies]
        if self.fill and copied.any() and not copied.all():
            others, own = (
                int(part.sum()) / len(labels[part].unique()) for part in (~copied, copied)
            )
            copies *= max(1, round(others / (own * len(copies))))
        return expand(images, labels, copied, copies, generator("noise", self.seed, epoch))

    def to(self, device: torch.device) -> None:
        """Move all splits to a device."""
        self.train, self.val, self.test = (
            (images.to(device), labels.to(device))
            for images, labels in (self.train, self.val, self.test)
        )

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's training images, in order, (M,) on the CPU."""
        extra = {"epoch": epoch} if "epoch" in signature(self.sampler).parameters else {}
        rng = generator("order", self.order_seed, epoch)
        return self.sampler(self.train[1].cpu(), generator=rng, **extra)

    def drawn(self, epoch: int) -> Batch:
        """Return all training images and labels, with an epoch's noise, before they are ordered."""
        if self.redraw:
            device, (images, labels) = self.train[1].device, self._expand(epoch)
            self.train = images.to(device), labels.to(device)
        return self.train

    def epoch(self, number: int) -> Batch:
        """Return the training images and labels of an epoch, in order."""
        images, labels = self.drawn(number)
        order = self.order(number).to(labels.device)
        rng = generator("transforms", self.order_seed, number)
        return self.change(images[order], rng), labels[order]

    def change(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Augment some training images, and transform each."""
        if self.augment:
            with naming("data.augment"):
                images = self.augment(images, generator=rng)
        return transform_each(images, self.transforms, rng)

    def _loader(self, draw: Callable[[int], Batch], images: int) -> DataLoader[Any]:
        if self.trainer:
            self.to(self.trainer.strategy.root_device)
        return Slices(draw, images, self.batch_size).loader()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, in an order of its own for each epoch."""
        return self._loader(self.epoch, len(self.order(0)))

    def _scored(self, split: Literal["val", "test"]) -> Batch:
        limit = getattr(self.trainer, f"limit_{split}_batches", 1.0)
        images, labels = getattr(self, split)
        if isinstance(limit, int) or limit < 1:  # labels take turns: the first batches hold all
            turns = torch.cat([torch.arange(count) for count in labels.bincount().tolist()])
            order = labels.argsort(stable=True).cpu()[turns.argsort(stable=True)]
            images, labels = images[order], labels[order]
        return images, labels

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the held-out training images."""
        return self._loader(lambda epoch: self._scored("val"), len(self.val[1]))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the whole test set."""
        return self._loader(lambda epoch: self._scored("test"), len(self.test[1]))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pixels to [0, 1], on the device."""
        images, labels = batch
        return images / 255, labels
