"""The residual network for small colour images."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveInt, validate_call
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.config import Positive
from mnist_imbalance.models import Head, last_linear


def convolution(channels: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Return a convolution without bias, and batch normalization."""
    conv = nn.Conv2d(channels, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions beside a shortcut, (N, C, H, W) → (N, outputs, H / stride, W / stride)."""

    def __init__(self, channels: int, outputs: int, shortcut: str) -> None:
        super().__init__()
        self.stride, self.more = 1 + (outputs > channels), outputs - channels
        self.first = convolution(channels, outputs, self.stride)
        self.second = convolution(outputs, outputs)
        projects = shortcut == "B" and self.more > 0
        self.projection = convolution(channels, outputs, self.stride, size=1) if projects else None

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features."""
        kept = images[:, :, :: self.stride, :: self.stride]
        if self.projection:
            kept = self.projection(images)
        elif self.more:
            kept = functional.pad(kept, (0, 0, 0, 0, self.more // 2, self.more // 2))
        changed: Tensor = self.second(self.first(images).relu())
        return (changed + kept).relu()


class ResNet(nn.Sequential):
    """He et al., 2016, "Deep residual learning for image recognition", section 4.2 (CIFAR).

    Images (N, C, H, W) in [0, 1] → logits (N, K); depth 32 and width 16 have 464,154 parameters for
    three colours and ten labels. Shortcut A pads with zeros, as He et al. do; B projects.
    """

    @validate_call
    def __init__(
        self,
        num_classes: PositiveInt,
        image_shape: Sequence[PositiveInt] = (3, 32, 32),
        depth: Literal[8, 14, 20, 32] = 8,  # of the layers with weights; 6 n + 2
        width: PositiveInt = 16,  # channels of the first third of the blocks
        shortcut: Literal["A", "B"] = "A",
        head: Head = "linear",
        scale: Positive = 30,  # of the cosines
    ) -> None:
        widths = [width] * (depth // 6) + [2 * width] * (depth // 6) + [4 * width] * (depth // 6)
        blocks = [Block(*channels, shortcut) for channels in pairwise([width, *widths])]
        super().__init__(
            convolution(image_shape[0], width),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            last_linear(head, 4 * width, num_classes, scale),
        )
        self.to(memory_format=torch.channels_last)
