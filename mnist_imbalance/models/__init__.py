"""Models, and what they share: the last layer, features (N, F) → logits (N, K)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Head = Literal["linear", "cosine"]


class CosineLinear(nn.Linear):
    """The cosines of the features and each label's weights, times a scale (Cao et al., 2019)."""

    def __init__(self, features: int, num_classes: int, scale: float = 30) -> None:
        super().__init__(features, num_classes, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, K)."""
        weight = functional.normalize(self.weight)
        return self.scale * functional.linear(functional.normalize(features), weight)


def last_linear(head: Head, features: int, num_classes: int, scale: float) -> nn.Linear:
    """Return the last layer of a kind."""
    if head == "cosine":
        return CosineLinear(features, num_classes, scale)
    return nn.Linear(features, num_classes)
