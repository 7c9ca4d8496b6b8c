"""A model that fails while it trains, with an error that cannot be sent between processes."""

from torch import Tensor, nn


class TwoPartsError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class Broken(nn.Linear):
    def __init__(self) -> None:
        super().__init__(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise TwoPartsError("out of", "order")
        logits: Tensor = super().forward(images.flatten(1))
        return logits
