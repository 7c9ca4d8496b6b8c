"""Samplers: labels (N,) of the training images → the indices (M,) of an epoch's images, in order.

Only the epoch's ``generator`` is random, and M depends on the labels alone. A sampler with a
parameter ``epoch`` gets the epoch's number, from 0.
"""

from math import ceil

import torch
from pydantic import FiniteFloat, PositiveInt, validate_call
from torch import Generator, Tensor

from mnist_imbalance.data import seeds

checked = validate_call(config={"arbitrary_types_allowed": True})


def shuffle(labels: Tensor, *, generator: Generator) -> Tensor:
    """Return every image once, in random order."""
    return torch.randperm(len(labels), generator=generator)


def draw(probabilities: Tensor, labels: Tensor, images: int, generator: Generator) -> Tensor:
    """Draw indices with replacement, labels in proportion to ``probabilities``, (K,)."""
    weights = (probabilities / labels.bincount())[labels]
    return torch.multinomial(weights, images, replacement=True, generator=generator)


@checked
def by_frequency(
    labels: Tensor, *, power: FiniteFloat, images: PositiveInt | None = None, generator: Generator
) -> Tensor:
    """Draw ``images`` indices (by default one per training image), labels in proportion to n^power.

    Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition", where
    the power is q: 1 draws all images equally often, 0 all labels, ½ is square-root sampling.
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
    """Draw all images equally often in the first epoch, and all labels in the last.

    Kang et al., 2020: p = (1 − t) · n / N + t · 1 / K, t from 0 to 1. Training ends after
    ``epochs`` or ``steps``, whichever is earlier; -1 means no limit.
    """
    counts = labels.bincount()
    per_epoch = ceil(len(labels) / batch_size)
    last = min(end for end in (epochs, ceil(steps / per_epoch)) if end > 0) - 1
    done = min(epoch / last, 1) if last else 0
    present = counts > 0
    probabilities = (1 - done) * counts / len(labels) + done * present / present.sum()
    return draw(probabilities, labels, len(labels), generator)


@checked
def under_sampled(labels: Tensor, *, seed: seeds.Seed, generator: Generator) -> Tensor:
    """Return equally many images per label, those of the rarest, repeated to fill an epoch.

    ``seed`` chooses the images, the generator orders them.
    """
    fewest = int(labels.bincount().min())
    drawn = torch.randperm(len(labels), generator=seeds.generator("under-sampling", seed))
    kept = torch.cat([drawn[labels[drawn] == label][:fewest] for label in labels.unique()])
    passes = ceil(len(labels) / len(kept))
    order = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(passes)]
    return torch.cat(order)[: len(labels)]
