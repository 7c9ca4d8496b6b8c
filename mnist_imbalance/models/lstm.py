"""AI3607's recurrent network."""

from collections.abc import Sequence
from typing import Literal

from pydantic import FiniteFloat, PositiveInt, validate_call
from torch import Tensor, nn

from mnist_imbalance.config import Positive
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.models import Head, last_linear


class RowLSTM(nn.Module):
    """An LSTM that reads an image row by row, and an MLP (AI3607, section 2).

    (N, C, H, W) in [0, 1] → logits (N, K); the channels of a row are read side by side. 44,042
    parameters for images of 28 × 28 and ten labels. With PyTorch's default bias a label whose
    output starts below zero can be lost to the ReLU for good.
    """

    @validate_call
    def __init__(
        self,
        num_classes: PositiveInt,
        image_shape: Sequence[PositiveInt] = (1, 28, 28),
        hidden_size: PositiveInt = 64,
        feature: Literal["last_unit", "last_step"] = "last_unit",  # of all steps, or all units
        output_bias: FiniteFloat | None = 5.0,  # at the start; None is PyTorch's default
        output_relu: bool = True,  # AI3607's, after the last layer
        head: Head = "linear",
        scale: Positive = 30,  # of the cosines
    ) -> None:
        super().__init__()
        if head == "cosine" and (output_relu or output_bias is not None):
            raise ConfigError("model.head: cosine needs output_bias=null output_relu=false")
        channels, rows, columns = image_shape
        self.feature = feature
        self.lstm = nn.LSTM(channels * columns, hidden_size, batch_first=True)
        output = last_linear(head, 512, num_classes, scale)
        if output_bias is not None:
            nn.init.constant_(output.bias, output_bias)
        self.head = nn.Sequential(
            nn.Linear(rows if feature == "last_unit" else hidden_size, 512),
            nn.ReLU(),
            output,
            nn.ReLU() if output_relu else nn.Identity(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        output, _ = self.lstm(images.transpose(1, 2).flatten(2))
        # AI3607 takes the last of the hidden units at each step, not all units at the last step
        taken = output[:, :, -1] if self.feature == "last_unit" else output[:, -1]
        logits: Tensor = self.head(taken)
        return logits
