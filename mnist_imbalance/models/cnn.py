"""The convolutional network to compare with."""

from torch import nn

from mnist_imbalance.labels import NUM_LABELS


class LeNet5(nn.Sequential):
    """LeNet-5 with ReLU and max-pooling (LeCun et al., 1998; report, section 6).

    (N, 1, 28, 28) in [0, 1] → logits (N, 10). 61,706 parameters.
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, NUM_LABELS),
        )
