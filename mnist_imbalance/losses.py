"""Losses for imbalanced labels: modules that map logits (N, C) and labels (N,) to a scalar.

A loss that has a parameter named ``class_counts``, ``minority``, ``num_classes`` or ``image_shape``
is given the training data's. One that has a method ``start_epoch`` hears what fraction of training
is done.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, validate_call
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.errors import ConfigError

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Normalize = Literal["weight_sum", "count"]


def check_number(weights: Sequence[float], num_classes: int) -> None:
    """Refuse more or fewer weights than labels.

    Raises:
        ConfigError: There are.
    """
    if len(weights) != num_classes:
        raise ConfigError(
            f"loss.weights: there must be {num_classes}, one for each label, got {len(weights)}"
        )


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy in which every label has a weight (AI3607, section 5).

    Args:
        weights: Above 0, one for each label.
        normalize: Divide a batch's sum by the sum of its weights (``weight_sum``, PyTorch's
            mean) or by its number of images (``count``).
        num_classes: Labels that there are; None is as many as weights.

    Raises:
        ConfigError: There are more or fewer weights than labels.
    """

    @validate_call
    def __init__(
        self,
        weights: Sequence[Weight],
        normalize: Normalize = "weight_sum",
        num_classes: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        if num_classes is not None:
            check_number(weights, num_classes)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights))
        self.normalize = normalize

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) to a scalar."""
        if self.normalize == "weight_sum":
            return functional.cross_entropy(logits, labels, self.weights)
        return functional.cross_entropy(logits, labels, self.weights, reduction="sum") / len(labels)


class MinorityWeightedCrossEntropy(WeightedCrossEntropy):
    """Cross-entropy with one weight for the minority and 1 for the others (AI3607, section 5.2).

    Args:
        minority_weight: Above 0.
        minority: The labels that have it.
        num_classes: Labels that there are.
        normalize: As in `WeightedCrossEntropy`.
    """

    @validate_call
    def __init__(
        self,
        minority_weight: Weight,
        minority: Sequence[NonNegativeInt],
        num_classes: PositiveInt,
        normalize: Normalize = "weight_sum",
    ) -> None:
        labels = range(num_classes)
        weights = [minority_weight if label in minority else 1.0 for label in labels]
        super().__init__(weights, normalize)


NUMBERS = {"weights": 1.0, "scales": 1.0, "offsets": 0.0, "margins": 0.0, "smoothing": 0.0}


class AdjustedCrossEntropy(nn.Module):
    """One formula for most published losses: cross-entropy with numbers for each label.

    With p = softmax(Δ ⊙ z + ι − m_y·1_y), the loss of an image with logits z and label y is
    ℓ = w_y · (1 − p_y)^γ · ((1 − ε_y) · −log p_y + ε_y · mean over all labels of −log p).

    `mnist_imbalance.methods` has the published choices of the numbers. They are buffers, so that
    runs with different ones are one program to the batched launcher.

    Args:
        num_classes: Labels that there are, C.
        weights: w, (C,).
        scales: Δ, (C,).
        offsets: ι, (C,).
        margins: m, (C,).
        smoothing: ε, (C,).
        gamma: γ.
        normalize: Divide a batch's sum by its number of images (``count``) or by the sum of its
            weights (``weight_sum``).
        deferred: Fraction of training, in [0, 1), before which the numbers are those of plain
            cross-entropy.
        kept: Those numbers that hold from the beginning.
    """

    weights: Tensor
    scales: Tensor
    offsets: Tensor
    margins: Tensor
    smoothing: Tensor
    gamma: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        gamma: float = 0.0,
        normalize: Normalize = "count",
        deferred: float = 0.0,
        kept: Sequence[str] = (),
        **numbers: Tensor,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.deferred = deferred
        self.later = {"gamma": torch.tensor(float(gamma))}
        for name, neutral in NUMBERS.items():
            self.later[name] = numbers.pop(name, torch.full((num_classes,), neutral)).float()
        if numbers:
            raise TypeError(f"no numbers of the formula: {', '.join(numbers)}")
        for name, number in self.later.items():
            plain = torch.full_like(number, NUMBERS.get(name, 0.0))
            now = number if not deferred or name in kept else plain
            self.register_buffer(name, now.clone())

    def start_epoch(self, done: float) -> None:
        """Let the numbers hold once they were deferred for long enough."""
        if done >= self.deferred:
            for name, number in self.later.items():
                self.get_buffer(name).copy_(number)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) to a scalar."""
        margins = functional.one_hot(labels, logits.shape[1]) * self.margins
        log_p = (self.scales * logits + self.offsets - margins).log_softmax(dim=1)
        of_own = -log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        smoothing, weights = self.smoothing[labels], self.weights[labels]
        crossed = (1 - smoothing) * of_own - smoothing * log_p.mean(dim=1)
        wrong = (-torch.expm1(-of_own)).clamp(min=torch.finfo(log_p.dtype).tiny)
        total = (weights * wrong**self.gamma * crossed).sum()
        return total / (weights.sum() if self.normalize == "weight_sum" else len(labels))


class GroupDRO(nn.Module):
    """The sum of the labels' mean losses, each times a weight that grows with it.

    Sagawa et al., 2020, "Distributionally robust neural networks", labels being the groups: after
    every training batch q ∝ q · exp(step · ℓ), ℓ being the labels' mean losses in it.

    Args:
        num_classes: Labels that there are, C.
        step: Of the weights.
    """

    weights: Tensor

    @validate_call
    def __init__(self, num_classes: PositiveInt, step: Weight = 0.01) -> None:
        super().__init__()
        self.step = step
        self.register_buffer("weights", torch.full((num_classes,), 1 / num_classes))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) to a scalar."""
        losses = functional.cross_entropy(logits, labels, reduction="none")
        summed = torch.zeros_like(self.weights).index_add(0, labels, losses)
        means = summed / labels.bincount(minlength=len(self.weights)).clamp(min=1)
        if logits.requires_grad:
            grown = self.weights * (self.step * means.detach()).exp()
            self.weights.copy_(grown / grown.sum())
        return self.weights @ means
