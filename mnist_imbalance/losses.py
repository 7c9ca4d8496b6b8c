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
        if num_classes not in (None, len(weights)):
            raise ConfigError(
                f"loss.weights: there must be {num_classes}, one for each label, got {len(weights)}"
            )
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
