"""Losses for imbalanced labels: modules that map logits (N, 10) and labels (N,) to a scalar."""

from typing import Annotated, Literal

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.labels import MAJORITY, MINORITY, NUM_LABELS

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Normalize = Literal["weight_sum", "count"]


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy in which every label has a weight (AI3607, section 5).

    Args:
        weights: Ten weights above 0.
        normalize: Divide a batch's sum by the sum of its weights (``weight_sum``, PyTorch's
            mean) or by its number of images (``count``).
    """

    @validate_call
    def __init__(
        self,
        weights: Annotated[list[Weight], Field(min_length=NUM_LABELS, max_length=NUM_LABELS)],
        normalize: Normalize,
    ) -> None:
        super().__init__()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights))
        self.normalize = normalize

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, 10) and labels (N,) to a scalar."""
        if self.normalize == "weight_sum":
            return functional.cross_entropy(logits, labels, self.weights)
        return functional.cross_entropy(logits, labels, self.weights, reduction="sum") / len(labels)


class MinorityWeightedCrossEntropy(WeightedCrossEntropy):
    """Cross-entropy with one weight for labels 0-4 and 1 for labels 5-9 (AI3607, section 5.2).

    Args:
        minority_weight: Above 0.
        normalize: As in `WeightedCrossEntropy`.
    """

    @validate_call
    def __init__(self, minority_weight: Weight, normalize: Normalize) -> None:
        super().__init__([minority_weight] * len(MINORITY) + [1.0] * len(MAJORITY), normalize)
