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
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits


class Normalized(nn.Sequential):
    """Keeps running statistics in buffers."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))


class FinalState(nn.Module):
    """Asks an LSTM for its final state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 16, batch_first=True)
        self.output = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(images.squeeze(1))
        logits: Tensor = self.output(hidden[-1])
        return logits


class TwoLayers(nn.Module):
    """Has an LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 16, num_layers=2, batch_first=True)
        self.output = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden, _ = self.lstm(images.squeeze(1))
        logits: Tensor = self.output(hidden[:, -1])
        return logits
