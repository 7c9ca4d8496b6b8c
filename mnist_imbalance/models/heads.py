"""The last layer of a classifier: features (N, F) → logits (N, K)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Head = Literal["linear", "cosine"]


class CosineLinear(nn.Linear):
    """The cosines between the features and each label's weights, in [-1, 1] (Cao et al., 2019).

    Args:
        features: F.
        num_classes: K.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, num_classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, K)."""
        return functional.linear(functional.normalize(features), functional.normalize(self.weight))
