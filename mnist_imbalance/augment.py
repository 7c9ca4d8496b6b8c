"""Augmentations of whole batches, (N, 1, 28, 28) uint8 to the same."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform


def rotate(images: Tensor, angle: float) -> Tensor:
    """Rotate around the centre, the corners filled with black (AI3607, section 4.1).

    Args:
        images: (N, 1, 28, 28) uint8.
        angle: Degrees, counter-clockwise.
    """
    rotated: Tensor = transform.rotate(images, angle, interpolation=InterpolationMode.BILINEAR)
    return rotated


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to every pixel and clip (AI3607, section 4.1).

    Args:
        images: (N, 1, 28, 28) uint8.
        sigma: Standard deviation on the scale where pixels lie in [0, 1].
        generator: Where the noise is drawn from; it moves on.
    """
    if sigma == 0:
        return images
    noise = torch.randn(images.shape, generator=generator) * (255 * sigma)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)
