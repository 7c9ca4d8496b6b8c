"""A profile → images per label → which images; and the groups that are scored."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, validate_call
from torch import Tensor

from mnist_imbalance.data.seeds import generator
from mnist_imbalance.errors import ConfigError

Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Wanted = Sequence[NonNegativeInt] | PositiveInt | Literal["rare"]  # labels of the minority
# a fraction for the minority, one for each label, or images per label → how many are kept
Profile = float | list[float] | Callable[[list[int]], list[int]]


@validate_call
def exponential(available: Sequence[int], ratio: Ratio) -> list[int]:
    """Return counts that fall by the same factor from label to label, int(n · ratio^(−i/(K−1))).

    Cao et al., 2019, after Cui et al., 2019; n is the lowest number of images available of a label.
    """
    most, last = min(available), max(len(available) - 1, 1)
    return [int(most * ratio ** (-label / last)) for label in range(len(available))]


@validate_call
def exactly(available: Sequence[int], counts: Sequence[PositiveInt]) -> list[int]:
    """Return the given counts, one for each label."""
    return list(counts)


def rare_labels(wanted: Wanted, counts: Sequence[int], seed: int) -> list[int]:
    """Return the wanted labels, a number of them drawn by the seed, or those below the mean count.

    ``counts`` are the training images of each label.
    """
    if wanted == "rare":
        return [label for label, count in enumerate(counts) if count * len(counts) < sum(counts)]
    if isinstance(wanted, int):
        drawn = torch.randperm(len(counts), generator=generator("minority", seed))
        wanted = drawn[:wanted].tolist()
    return sorted(set(wanted))


def kept_counts(keep: Profile, minority: Sequence[int], available: list[int]) -> list[int]:
    """Return how many of its available images each label keeps: one at least, or a ConfigError."""
    if isinstance(keep, float):
        keep = [keep if label in minority else 1 for label in range(len(available))]
    counts: list[Any] = keep(list(available)) if callable(keep) else keep
    if len(counts) != len(available):
        raise ConfigError(f"data.keep: must give {len(available)} numbers, one for each label")
    if not callable(keep):
        counts = [round(part * images) for part, images in zip(keep, available, strict=True)]
    for label, (count, images) in enumerate(zip(counts, available, strict=True)):
        if not isinstance(count, int) or not 1 <= count <= images:
            left = f"{images} images of label {label} that data.val_* leaves"
            raise ConfigError(f"data.keep: must keep 1 to all of the {left}, not {count}")
    return counts


def name_group(labels: Sequence[int]) -> str:
    """Return the name of a group of labels, "0-4", "1,7" or "label 1"."""
    if len(labels) > 1 and list(labels) == list(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]}-{labels[-1]}"
    return f"label {labels[0]}" if len(labels) == 1 else ",".join(map(str, labels))


def label_groups(
    minority: Sequence[int], counts: Sequence[int], shots: tuple[int, int] | None = None
) -> dict[str, list[int]]:
    """Return the labels of the minority, the majority and "all"; the first group is the minority.

    With ``shots`` they are the labels that keep fewer than shots[0], between, and more than
    shots[1] images (Liu et al., 2019, "Large-scale long-tailed recognition in an open world").
    """
    labels = [*range(len(counts))]
    if shots:
        few, many = sorted(shots)
        groups = {
            "few": [label for label in labels if counts[label] < few],
            "medium": [label for label in labels if few <= counts[label] <= many],
            "many": [label for label in labels if counts[label] > many],
        }
    else:
        parts = [*minority], [label for label in labels if label not in minority]
        groups = {name_group(part): part for part in parts if len(part) < len(labels)}
    return {name: members for name, members in groups.items() if members} | {"all": labels}


def by_label(labels: Tensor) -> Sequence[Tensor]:
    """Return the indices of each label's images, in order."""
    return torch.split(labels.argsort(stable=True), labels.bincount().tolist())
