"""An epoch → the indices of its training images, in order."""

from typing import Any, Protocol

import torch
from pydantic import FiniteFloat, PositiveInt, validate_call
from torch import Tensor

from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.data.seeds import generator as derived


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
def progressive(
    labels: Tensor,
    *,
    epochs: int,
    epoch: int,
    generator: Any,
    steps: int = -1,
    batch_size: PositiveInt = 1,
) -> Tensor:
    """Return draws that go from images alike in the first epoch to labels alike in the last.

    Kang et al., 2020: p = (1 − t) · n / N + t · 1 / C, t from 0 to 1.

    Args:
        labels: (N,) of the training images.
        epochs: After which training ends, or -1.
        epoch: From 0.
        generator: Of this epoch.
        steps: After which training ends if that is earlier, or -1.
        batch_size: Images a step.
    """
    counts = labels.bincount()
    per_epoch = -(-len(labels) // batch_size)
    lengths = [epochs, -(-steps // per_epoch)] if steps > 0 else [epochs]
    last = min(length for length in lengths if length > 0) - 1
    done = min(epoch / last, 1) if last else 0
    there = counts > 0
    chances = (1 - done) * counts / len(labels) + done * there / there.sum()
    return drawn(chances, labels, len(labels), generator)


@validate_call(config={"arbitrary_types_allowed": True})
def under_sampled(labels: Tensor, *, seed: Seed, generator: Any) -> Tensor:
    """Return the same few images of every label, repeated until there are as many as all images.

    Args:
        labels: (N,) of the training images.
        seed: Chooses, of every label, as many images as the rarest has.
        generator: Of this epoch's order.
    """
    counts = labels.bincount()
    fewest = int(counts[counts > 0].min())
    drawn = torch.randperm(len(labels), generator=derived("under-sampling", seed))
    kept = torch.cat([drawn[labels[drawn] == label][:fewest] for label in labels.unique()])
    passes = -(-len(labels) // len(kept))
    order = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(passes)]
    return torch.cat(order)[: len(labels)]
