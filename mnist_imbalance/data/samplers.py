"""An epoch → the indices of its training images, in order."""

from typing import Any, Protocol

import torch
from pydantic import FiniteFloat, PositiveInt, validate_call
from torch import Tensor


class Sampler(Protocol):
    """What draws an epoch."""

    def __call__(self, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return an epoch's indices into the training images.

        A sampler with a parameter ``epoch`` is given its number, from 0.

        Args:
            labels: (N,) of the training images, on the CPU.
            generator: Of this epoch; all chance must come from it.

        Returns:
            (M,) int64. M may depend on the labels, not on chance.
        """


def shuffle(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return every image once, in random order."""
    return torch.randperm(len(labels), generator=generator)


def drawn(chances: Tensor, labels: Tensor, images: int, generator: torch.Generator) -> Tensor:
    """Return indices drawn with replacement.

    Args:
        chances: Of each label, (C,), to a factor.
        labels: (N,) of the training images.
        images: Draws.
        generator: Where they are drawn from.
    """
    of_image = (chances / labels.bincount(minlength=len(chances)).clamp(min=1))[labels]
    return torch.multinomial(of_image, images, replacement=True, generator=generator)


@validate_call(config={"arbitrary_types_allowed": True})
def by_frequency(
    labels: Tensor,
    *,
    power: FiniteFloat,
    images: PositiveInt | None = None,
    generator: Any,
) -> Tensor:
    """Return draws in which a label's chance is proportional to a power of its images.

    Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition": 1
    draws images alike, ½ is square-root sampling, 0 draws labels alike.

    Args:
        labels: (N,) of the training images.
        power: q of Kang et al.
        images: Draws in an epoch; None is as many as there are images.
        generator: Of this epoch.
    """
    return drawn(labels.bincount() ** power, labels, images or len(labels), generator)


@validate_call(config={"arbitrary_types_allowed": True})
def progressive(labels: Tensor, *, epochs: PositiveInt, epoch: int, generator: Any) -> Tensor:
    """Return draws that go from images alike to labels alike over the epochs.

    Kang et al., 2020: p = (1 − t/T) · n / N + t/T · 1 / C.

    Args:
        labels: (N,) of the training images.
        epochs: T.
        epoch: t, from 0.
        generator: Of this epoch.
    """
    counts = labels.bincount()
    done = min(epoch / epochs, 1)
    there = counts > 0
    chances = (1 - done) * counts / len(labels) + done * there / there.sum()
    return drawn(chances, labels, len(labels), generator)
