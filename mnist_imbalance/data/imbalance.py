"""A profile → how many images each label keeps → which ones; the groups that are scored."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import torch
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from torch import Tensor

from mnist_imbalance.errors import ConfigError


def check_profile(keep: Any) -> Any:
    """Let a fraction, a list of them or a function pass."""
    fractions = [] if callable(keep) else keep if isinstance(keep, list) else [keep]
    if not all(type(part) in (int, float) and 0 < part <= 1 for part in fractions):
        raise PydanticCustomError(
            "keep",
            "Input should be a fraction above 0 and at most 1, a list of them, or a function",
        )
    return keep


# a fraction of the minority's images; one for each label; or from the images a label to those kept
Profile = Annotated[
    float | list[float] | Callable[[list[int]], list[int]], PlainValidator(check_profile)
]


def first_of_each(labels: Tensor, wanted: Iterable[int]) -> Tensor:
    """Return the index of the first image of each of some labels, in their order."""
    return torch.stack([(labels == label).nonzero()[0, 0] for label in wanted])


def count_labels(labels: Tensor, num_classes: int) -> list[int]:
    """Return the number of images of each label."""
    counts: list[int] = labels.bincount(minlength=num_classes).tolist()
    return counts


def kept_counts(keep: Profile, minority: Sequence[int], available: list[int]) -> list[int]:
    """Return how many images each label keeps.

    Args:
        keep: A fraction of the minority's images, a fraction for each label, or a function of
            the images that each label has.
        minority: The labels that lose images where ``keep`` is one fraction.
        available: Images of each label.

    Raises:
        ConfigError: A label would keep none, or more than it has.
    """
    if callable(keep):
        counts = keep(list(available))
    else:
        labels = range(len(available))
        fractions = (
            keep
            if isinstance(keep, list)
            else [keep if label in minority else 1.0 for label in labels]
        )
        if len(fractions) != len(available):
            raise ConfigError(f"data.keep: must hold {len(available)} fractions, one for a label")
        counts = [round(part * images) for part, images in zip(fractions, available, strict=True)]
    if not all(isinstance(count, int) for count in counts):
        raise ConfigError(f"data.keep: must give whole numbers of images, got {counts}")
    if len(counts) != len(available):
        raise ConfigError(f"data.keep: gives {len(counts)} counts for {len(available)} labels")
    for label, (count, images) in enumerate(zip(counts, available, strict=True)):
        if count < 1:
            given = f"{keep} " if isinstance(keep, float) else ""
            raise ConfigError(f"data.keep: {given}leaves no training image of label {label}")
        if count > images:
            raise ConfigError(f"data.keep: label {label} has {images} images, not {count}")
    return counts


def name_group(labels: Sequence[int]) -> str:
    """Return what a group of labels is called, "0-4" or "1,7"."""
    if len(labels) > 1 and list(labels) == list(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]}-{labels[-1]}"
    return ",".join(map(str, labels))


def scored_groups(minority: Sequence[int], num_classes: int) -> dict[str, list[int]]:
    """Return the labels of each group that accuracies are given for: minority, majority, "all"."""
    everything = list(range(num_classes))
    majority = [label for label in everything if label not in minority]
    apart = [labels for labels in (minority, majority) if labels and len(labels) < num_classes]
    return {name_group(labels): list(labels) for labels in apart} | {"all": everything}


def shot_groups(counts: Sequence[int], few: int, many: int) -> dict[str, list[int]]:
    """Return the labels with few, medium and many images, as far as there are such, and "all".

    Liu et al., 2019, "Large-scale long-tailed recognition in an open world", with 20 and 100.

    Args:
        counts: Training images of each label, without copies.
        few: Labels with fewer images have few.
        many: Labels with more images have many.

    Raises:
        ConfigError: ``few`` is above ``many``.
    """
    if few > many:
        raise ConfigError(f"data.shots: {few} must not be above {many}")
    labels = range(len(counts))
    groups = {
        "few": [label for label in labels if counts[label] < few],
        "medium": [label for label in labels if few <= counts[label] <= many],
        "many": [label for label in labels if counts[label] > many],
    }
    return {name: members for name, members in groups.items() if members} | {"all": [*labels]}


def hold_out(
    labels: Tensor, per_label: int, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a validation set with the same number of images of each label.

    Args:
        labels: (N,) of the whole training set.
        per_label: Images of each label to hold out.
        num_classes: Labels that there are.
        generator: Where the choice is drawn from.

    Returns:
        Indices of the training and of the validation images, each label's in random order.

    Raises:
        ConfigError: A label has no more than ``per_label`` images.
    """
    rarest = min(count_labels(labels, num_classes))
    if per_label >= rarest:
        raise ConfigError(
            f"data.val_per_label: must be below {rarest}, the images of the rarest label, "
            f"got {per_label}"
        )
    train, val = [], []
    for label in range(num_classes):
        of_label = (labels == label).nonzero().flatten()
        of_label = of_label[torch.randperm(len(of_label), generator=generator)]
        val.append(of_label[:per_label])
        train.append(of_label[per_label:])
    return torch.cat(train), torch.cat(val)


def subsample(indices: Tensor, labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the first images of each label.

    Args:
        indices: Into ``labels``, each label's in random order.
        labels: (N,) of the whole training set.
        counts: How many to keep of each label.
    """
    return torch.cat(
        [indices[labels[indices] == label][:count] for label, count in enumerate(counts)]
    )
