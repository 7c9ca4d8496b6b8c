"""Imbalance profiles: the images that each label has → how many of them it keeps.

A profile is laid on the rarest label's number of images, so that every label has enough for it.
"""

from collections.abc import Sequence
from math import log
from typing import Annotated

from pydantic import Field, PositiveInt, validate_call

Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]


@validate_call
def exponential(available: Sequence[int], ratio: Ratio) -> list[int]:
    """Return counts that fall by the same factor from label to label.

    Cao et al., 2019, after Cui et al., 2019: int(n · ratio^(−i / (C − 1))) of label i.

    Args:
        available: Images of each label, (C,).
        ratio: Of the most frequent label to the rarest one.
    """
    most, last = min(available), max(len(available) - 1, 1)
    return [int(most * ratio ** (-label / last)) for label in range(len(available))]


@validate_call
def zipf(available: Sequence[int], ratio: Ratio) -> list[int]:
    """Return counts that fall by a power of the label's rank, n · (i + 1)^−a (Zipf's law).

    The power a is chosen so that the last label has n / ratio.

    Args:
        available: Images of each label, (C,).
        ratio: Of the most frequent label to the rarest one.
    """
    most, labels = min(available), len(available)
    power = log(ratio) / log(labels) if labels > 1 else 0.0
    return [int(most * (label + 1) ** -power) for label in range(labels)]


@validate_call
def exactly(available: Sequence[int], counts: Sequence[PositiveInt]) -> list[int]:
    """Return the counts that are asked for, one for each label."""
    return list(counts)
