"""AI3607's recurrent network."""

from pydantic import FiniteFloat, validate_call
from torch import Tensor, nn

from mnist_imbalance.labels import NUM_LABELS


class RowLSTM(nn.Module):
    """An LSTM that reads an image row by row, and an MLP (AI3607, section 2).

    (N, 1, 28, 28) in [0, 1] → logits (N, 10). 44,042 parameters.

    Args:
        output_bias: Where every bias of the last layer starts; None leaves PyTorch's default,
            with which a label whose output starts below zero can be lost to the ReLU for good.
        output_relu: Put AI3607's ReLU after the last layer.
    """

    @validate_call
    def __init__(self, output_bias: FiniteFloat | None, output_relu: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=28, hidden_size=64, batch_first=True)
        output = nn.Linear(512, NUM_LABELS)
        if output_bias is not None:
            nn.init.constant_(output.bias, output_bias)
        self.head = nn.Sequential(
            nn.Linear(28, 512), nn.ReLU(), output, nn.ReLU() if output_relu else nn.Identity()
        )

    def feature(self, images: Tensor) -> Tensor:
        """The last hidden unit's output at each of the 28 rows, (N, 28)."""
        output, _ = self.lstm(images.squeeze(1))
        last_unit: Tensor = output[:, :, -1]
        return last_unit

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        logits: Tensor = self.head(self.feature(images))
        return logits
