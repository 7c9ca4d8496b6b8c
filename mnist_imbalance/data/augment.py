"""Augmentations of whole batches, (N, C, H, W) uint8 to the same."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform


class Copy(BaseModel, extra="forbid"):
    """What is done to one copy of every image that is copied."""

    angle: FiniteFloat  # degrees, counter-clockwise
    noise: Annotated[float, Field(ge=0, le=1)]  # standard deviation, pixels in [0, 1]


def rotate(images: Tensor, angle: float) -> Tensor:
    """Rotate around the centre, the corners filled with black (AI3607, section 4.1).

    Args:
        images: (N, C, H, W) uint8.
        angle: Degrees, counter-clockwise.
    """
    rotated: Tensor = transform.rotate(images, angle, interpolation=InterpolationMode.BILINEAR)
    return rotated


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to every pixel and clip (AI3607, section 4.1).

    Args:
        images: (N, C, H, W) uint8.
        sigma: Standard deviation on the scale where pixels lie in [0, 1].
        generator: Where the noise is drawn from; it moves on.
    """
    if sigma == 0:
        return images
    noise = torch.randn(images.shape, generator=generator) * (255 * sigma)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def expand(
    images: Tensor,
    labels: Tensor,
    copied: Tensor,
    copies: Sequence[Copy],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Put every copied image in once per copy, augmented as the copy says (AI3607, section 4).

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,).
        copied: (N,) bool, which of them are copied.
        copies: What is done to each copy; noise comes after rotation.
        generator: Where the noise is drawn from.

    Returns:
        Images and labels: what is not copied first, then one block for each copy.
    """
    blocks = [
        add_noise(rotate(images[copied], copy.angle), copy.noise, generator) for copy in copies
    ]
    return (
        torch.cat([images[~copied], *blocks]),
        torch.cat([labels[~copied], *[labels[copied]] * len(copies)]),
    )
