"""Mixes: what makes a training batch of mixed images, each with the labels of two.

A mix is given images (N, C, H, W) in [0, 1] and labels (N,), and returns as many mixed images,
their first and second labels (N,) and λ in [0, 1], the first labels' share of the loss. Like a
loss, it is given ``class_counts``, ``minority``, ``num_classes`` or ``image_shape`` if it has such
a parameter. What it draws comes from PyTorch's global generator on the CPU, which is seeded for
every epoch.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, validate_call
from torch import Tensor, nn
from torch.distributions import Beta

Mixed = tuple[Tensor, Tensor, Tensor, float]  # images, first labels, second labels, λ
Mix = Callable[[Tensor, Tensor], Mixed]
Alpha = Annotated[FiniteFloat, Field(ge=0.01)]  # below, both draws of gamma may underflow


class Mixup(nn.Module):
    """Weighted means of pairs of images, λ x + (1 − λ) x', and of their labels' losses.

    Zhang et al., 2018, "mixup: Beyond empirical risk minimization": λ is drawn from
    Beta(alpha, alpha), once a batch, and the partners are the same batch in another order.

    Args:
        alpha: 1 draws every λ alike; the less, the more batches are almost unmixed.
    """

    @validate_call
    def __init__(self, alpha: Alpha) -> None:
        super().__init__()
        self.shares = Beta(*torch.full((2,), alpha, dtype=torch.float64))

    def forward(self, images: Tensor, labels: Tensor) -> Mixed:
        """Mix images (N, C, H, W) and labels (N,)."""
        share = self.shares.sample().item()
        partner = torch.randperm(len(labels)).to(labels.device)
        return torch.lerp(images[partner], images, share), labels, labels[partner], share


class CutMix(Mixup):
    """A box of each image is another image's, λ being the part that is left of the first.

    Yun et al., 2019, "CutMix: Regularization strategy to train strong classifiers with localizable
    features": the box has the image's shape, a part 1 − λ of its area, and a centre drawn
    uniformly; what lies outside the image is cut off, and λ is what is left then.
    """

    def forward(self, images: Tensor, labels: Tensor) -> Mixed:
        """Mix images (N, C, H, W) and labels (N,)."""
        side = (1 - self.shares.sample().item()) ** 0.5
        partner = torch.randperm(len(labels)).to(labels.device)
        box = []
        for length in images.shape[2:]:
            centre, half = int(torch.randint(length, ())), int(length * side) // 2
            box.append(slice(max(centre - half, 0), min(centre + half, length)))
        mixed = images.clone()
        mixed[:, :, *box] = images[partner][:, :, *box]
        rows, columns = (part.stop - part.start for part in box)
        share = 1 - rows * columns / (images.shape[2] * images.shape[3])
        return mixed, labels, labels[partner], share


class Remix(nn.Module):
    """Mixup in which an image of a frequent and a rare label may have the rare label alone.

    Chou et al., 2020, "Remix: Rebalanced mixup", section 3: for an image of label i mixed with one
    of label j, which have n_i and n_j training images, the first label's share is

    - 0 if n_i / n_j ≥ κ and λ < τ: both labels are then j,
    - 1 if n_i / n_j ≤ 1 / κ and 1 − λ < τ: both labels are then i,
    - λ otherwise, as in `Mixup`, which a κ above all n_i / n_j leads back to.

    Args:
        class_counts: Training images of each label.
        alpha: As in `Mixup`.
        kappa: κ.
        tau: τ.
    """

    far_more: Tensor

    @validate_call
    def __init__(
        self,
        class_counts: Sequence[NonNegativeInt],
        alpha: Alpha,
        kappa: Annotated[FiniteFloat, Field(ge=1)],
        tau: Annotated[float, Field(ge=0, le=1)],
    ) -> None:
        super().__init__()
        self.mixup = Mixup(alpha)
        self.tau = tau
        counts = torch.tensor(class_counts, dtype=torch.float64)
        far_more = counts.unsqueeze(1) >= kappa * counts  # (C, C): of row's label, than column's
        self.register_buffer("far_more", far_more, persistent=False)

    def forward(self, images: Tensor, labels: Tensor) -> Mixed:
        """Mix images (N, C, H, W) and labels (N,)."""
        mixed, own, others, share = self.mixup(images, labels)
        first, second = own, others
        if share < self.tau:
            first = torch.where(self.far_more[own, others], others, own)
        if 1 - share < self.tau:
            second = torch.where(self.far_more[others, own], own, others)
        return mixed, first, second, share
