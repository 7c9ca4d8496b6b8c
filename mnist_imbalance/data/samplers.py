"""Samplers: labels (N,) of the training images → the indices (M,) of an epoch's images, in order.

All chance comes from the epoch's ``generator``, and M depends on the labels alone. A sampler with a
parameter ``epoch`` gets the epoch's number, from 0.
"""

from math import ceil

import torch
from pydantic import FiniteFloat, PositiveInt, validate_call
from torch import Generator, Tensor

from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.data.seeds import generator as derived

checked = validate_call(config={"arbitrary_types_allowed": True})


def shuffle(labels: Tensor, *, generator: Generator) -> Tensor:
    """Return every image once, in random order."""
    return torch.randperm(len(labels), generator=generator)


def draw(chances: Tensor, labels: Tensor, images: int, generator: Generator) -> Tensor:
    """Draw indices with replacement, each label with its chance, (C,), up to a common factor."""
    weights = (chances / labels.bincount(minlength=len(chances)).clamp(min=1))[labels]
    return torch.multinomial(weights, images, replacement=True, generator=generator)


@checked
def by_frequency(
    labels: Tensor, *, power: FiniteFloat, images: PositiveInt | None = None, generator: Generator
) -> Tensor:
    """Draw labels in proportion to a power of their images, ``images`` times or once an image.

    Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition", where
    the power is q: 1 draws images alike, ½ is square-root sampling, 0 draws labels alike.
    """
    return draw(labels.bincount() ** power, labels, images or len(labels), generator)


@checked
def progressive(
    labels: Tensor,
    *,
    epochs: int,
    epoch: int,
    generator: Generator,
    steps: int = -1,
    batch_size: int = 1,
) -> Tensor:
    """Draw images alike in the first epoch, and labels alike in the last.

    Kang et al., 2020: p = (1 − t) · n / N + t · 1 / C, t from 0 to 1. Training ends after
    ``epochs`` or ``steps``, whichever is earlier; -1 is no end.
    """
    counts = labels.bincount()
    per_epoch = ceil(len(labels) / batch_size)
    last = min(end for end in (epochs, ceil(steps / per_epoch)) if end > 0) - 1
    done = min(epoch / last, 1) if last else 0
    present = counts > 0
    chances = (1 - done) * counts / len(labels) + done * present / present.sum()
    return draw(chances, labels, len(labels), generator)


@checked
def under_sampled(labels: Tensor, *, seed: Seed, generator: Generator) -> Tensor:
    """Return as many images of every label as the rarest has, repeated to a whole epoch.

    ``seed`` chooses the images, the generator orders them.
    """
    counts = labels.bincount()
    fewest = int(counts[counts > 0].min())
    drawn = torch.randperm(len(labels), generator=derived("under-sampling", seed))
    kept = torch.cat([drawn[labels[drawn] == label][:fewest] for label in labels.unique()])
    passes = ceil(len(labels) / len(kept))
    order = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(passes)]
    return torch.cat(order)[: len(labels)]
