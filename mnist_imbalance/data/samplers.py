"""An epoch → the indices of its training images, in order."""

from typing import Protocol

import torch
from torch import Tensor


class Sampler(Protocol):
    """What draws an epoch."""

    def __call__(self, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return an epoch's indices into the training images.

        Args:
            labels: (N,) of the training images, on the CPU.
            generator: Of this epoch; all chance must come from it.

        Returns:
            (M,) int64. M may depend on the labels, not on chance.
        """


def shuffle(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return every image once, in random order."""
    return torch.randperm(len(labels), generator=generator)
