"""Mixes: a training batch → a batch of mixed images, each with two labels.

A mix maps images (N, C, H, W) in [0, 1] and labels (N,) to mixed images, their first and second
labels (N,), and λ in [0, 1], the first labels' share of the loss. It draws from PyTorch's global
CPU generator, which is seeded for every epoch.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, validate_call
from torch import Tensor, nn
from torch.distributions import Beta

from mnist_imbalance.data.imbalance import Ratio

Mixed = tuple[Tensor, Tensor, Tensor, float]  # images, first labels, second labels, λ
Alpha = Annotated[FiniteFloat, Field(ge=0.01)]  # below, both draws of gamma may underflow
Share = Annotated[float, Field(ge=0, le=1)]


class Mixup(nn.Module):
    """Weighted means of pairs of images, λ x + (1 − λ) x', and of their labels' losses.

    Zhang et al., 2018, "mixup: Beyond empirical risk minimization": λ is drawn from
    Beta(alpha, alpha) once per batch, and the partners are the same batch in another order.
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


class Remix(Mixup):
    """Mixup in which a pair of a frequent and a rare label may have the rare label alone.

    Chou et al., 2020, "Remix: Rebalanced mixup", section 3: for an image of label i mixed with one
    of label j, which have n_i and n_j training images, the first label's share of the loss is
    0 if n_i / n_j ≥ κ and λ < τ; 1 if n_i / n_j ≤ 1 / κ and 1 − λ < τ; else λ, as in `Mixup`.
    """

    @validate_call
    def __init__(self, class_counts: Sequence[int], alpha: Alpha, kappa: Ratio, tau: Share) -> None:
        super().__init__(alpha)
        self.tau = tau
        counts = torch.tensor(class_counts, dtype=torch.float64)
        self.much_more = nn.Buffer(counts[:, None] >= kappa * counts, persistent=False)  # (K, K)

    def forward(self, images: Tensor, labels: Tensor) -> Mixed:
        """Mix images (N, C, H, W) and labels (N,)."""
        mixed, own, others, share = super().forward(images, labels)
        first = torch.where(self.much_more[own, others] & (share < self.tau), others, own)
        second = torch.where(self.much_more[others, own] & (1 - share < self.tau), own, others)
        return mixed, first, second, share
