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
    """Return counts n · (i + 1)^−a (Zipf's law), where a makes the last label's n / ratio."""
    most, labels = min(available), len(available)
    power = log(ratio) / log(labels) if labels > 1 else 0.0
    return [int(most * (label + 1) ** -power) for label in range(labels)]


@validate_call
def exactly(available: Sequence[int], counts: Sequence[PositiveInt]) -> list[int]:
    """Return the given counts, one for each label."""
    return list(counts)


def check_profile(keep: Any) -> Any:
    """Accept a fraction, a list of fractions or a function."""
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


def kept_counts(keep: Profile, minority: Sequence[int], available: list[int]) -> list[int]:
    """Return how many of its available images each label keeps: one at least, or a ConfigError."""
    classes = len(available)
    if callable(keep):
        counts = keep(list(available))
    else:
        alone = 1.0 if isinstance(keep, list) else keep
        step = [alone if label in minority else 1.0 for label in range(classes)]
        fractions = keep if isinstance(keep, list) else step
        if len(fractions) != classes:
            raise ConfigError(f"data.keep: must hold {classes} fractions, one for a label")
        counts = [round(part * images) for part, images in zip(fractions, available, strict=True)]
    if not all(isinstance(count, int) for count in counts):
        raise ConfigError(f"data.keep: must give whole numbers of images, got {counts}")
    if len(counts) != classes:
        raise ConfigError(f"data.keep: gives {len(counts)} counts for {classes} labels")
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


def by_label(labels: Tensor) -> Sequence[Tensor]:
    """Return the indices of each label's images, in order."""
    return torch.split(labels.argsort(stable=True), labels.bincount().tolist())


def hold_out(
    labels: Tensor, per_label: int, num_classes: int, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Return each label's indices of training images and of ``per_label`` validation images."""
    rarest = int(labels.bincount(minlength=num_classes).min())
    if per_label >= rarest:
        raise ConfigError(
            f"data.val_per_label: must be below {rarest}, the images of the rarest label, "
            f"got {per_label}"
        )
    drawn = [own[torch.randperm(len(own), generator=generator)] for own in by_label(labels)]
    return [own[per_label:] for own in drawn], [own[:per_label] for own in drawn]
