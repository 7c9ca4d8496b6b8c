"""Models that cannot be trained side by side with others."""

from torch import Tensor, nn


class Dropout(nn.Sequential):
    """Draws random numbers while it trains, and may break then."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 64), nn.Dropout(0.5), nn.Linear(64, 10))
        self.breaks = breaks

    def forward(self, images: Tensor) -> Tensor:
        if self.breaks and self.training:
            raise LookupError("unforeseen")
        for layer in self:
            images = layer(images)
        return images


class Averaged(nn.Sequential):
    """Averages its statistics over all steps, whose number it reads."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.BatchNorm1d(784, momentum=None), nn.Linear(784, 10))
