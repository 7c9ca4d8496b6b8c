"""A profile → images per label → which images; and the groups that are scored."""

from collections.abc import Callable, Sequence
from math import log
from typing import Annotated, Any

import torch
from pydantic import Field, PlainValidator, PositiveInt, validate_call
from pydantic_core import PydanticCustomError
from torch import Tensor

from mnist_imbalance.errors import ConfigError

Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]


@validate_call
def exponential(available: Sequence[int], ratio: Ratio) -> list[int]:
    """Return counts that fall by the same factor from label to label, int(n · ratio^(−i/(C−1))).

    Cao et al., 2019, after Cui et al., 2019; n is the number of images of the rarest label.
    """
    most, last = min(available), max(len(available) - 1, 1)
    return [int(most * ratio ** (-label / last)) for label in range(len(available))]


@validate_call
def zipf(available: Sequence[int], ratio: Ratio) -> list[int]:
    """Return counts that fall by a power of the label's rank, n · (i + 1)^−a (Zipf's law).

    The power a is chosen so that the last label has n / ratio.
    """
    most, labels = min(available), len(available)
    power = log(ratio) / log(labels) if labels > 1 else 0.0
    return [int(most * (label + 1) ** -power) for label in range(labels)]


@validate_call
def exactly(available: Sequence[int], counts: Sequence[PositiveInt]) -> list[int]:
    """Return the given counts, one for each label."""
    return list(counts)


def check_profile(keep: Any) -> Any:
    """Let a fraction, a list of fractions or a function pass."""
    fractions = [] if callable(keep) else keep if isinstance(keep, list) else [keep]
    if not all(type(part) in (int, float) and 0 < part <= 1 for part in fractions):
        raise PydanticCustomError(
            "keep",
            "Input should be a fraction above 0 and at most 1, a list of them, or a function",
        )
    return keep


# a fraction for the minority, one for each label, or images per label → how many are kept
Profile = Annotated[
    float | list[float] | Callable[[list[int]], list[int]], PlainValidator(check_profile)
]


def count_labels(labels: Tensor, num_classes: int) -> list[int]:
    """Return the number of images of each label."""
    counts: list[int] = labels.bincount(minlength=num_classes).tolist()
    return counts


def kept_counts(keep: Profile, minority: Sequence[int], available: list[int]) -> list[int]:
    """Return how many of its available images each label keeps.

    Raises:
        ConfigError: A label would keep none, or more than it has.
    """
    if callable(keep):
        counts = keep(list(available))
    else:
        fractions = (
            keep
            if isinstance(keep, list)
            else [keep if label in minority else 1.0 for label in range(len(available))]
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
    """Return the name of a group of labels, "0-4" or "1,7"."""
    if len(labels) > 1 and list(labels) == list(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]}-{labels[-1]}"
    return ",".join(map(str, labels))


def scored_groups(minority: Sequence[int], num_classes: int) -> dict[str, list[int]]:
    """Return the labels of the minority, the majority and "all"."""
    everything = list(range(num_classes))
    majority = [label for label in everything if label not in minority]
    parts = [labels for labels in (minority, majority) if 0 < len(labels) < num_classes]
    return {name_group(labels): list(labels) for labels in parts} | {"all": everything}


def shot_groups(counts: Sequence[int], few: int, many: int) -> dict[str, list[int]]:
    """Return the labels with fewer than ``few`` images, more than ``many``, and between; and "all".

    Liu et al., 2019, "Large-scale long-tailed recognition in an open world", with 20 and 100.
    ``counts`` are images of each label without copies.
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
    """Draw a validation set with ``per_label`` images of each label.

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
        indices = (labels == label).nonzero().flatten()
        indices = indices[torch.randperm(len(indices), generator=generator)]
        val.append(indices[:per_label])
        train.append(indices[per_label:])
    return torch.cat(train), torch.cat(val)


def subsample(indices: Tensor, labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the first ``counts`` indices of each label."""
    return torch.cat(
        [indices[labels[indices] == label][:count] for label, count in enumerate(counts)]
    )
