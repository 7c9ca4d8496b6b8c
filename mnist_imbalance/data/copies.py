"""Copies of rare images, rotated and noisy, and transforms of single images, (C, H, W) uint8."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from mnist_imbalance.errors import ConfigError, naming

Transform = Callable[[Tensor], Tensor]  # of an image (C, H, W) uint8


class Copy(BaseModel, extra="forbid"):
    """How one copy of every copied image is changed."""

    angle: FiniteFloat  # degrees, counter-clockwise
    noise: Annotated[float, Field(ge=0, le=1)]  # standard deviation, pixels in [0, 1]


def rotate(images: Tensor, angle: float) -> Tensor:
    """Rotate images (N, C, H, W) counter-clockwise, with black corners (AI3607, section 4.1)."""
    rotated: Tensor = transform.rotate(images, angle, interpolation=InterpolationMode.BILINEAR)
    return rotated


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to images (N, C, H, W) uint8 and clip (AI3607, section 4.1).

    Args:
        images: The images.
        sigma: Standard deviation for pixels in [0, 1].
        generator: Of the noise.
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
    """Replace every copied image by its copies (AI3607, section 4).

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,).
        copied: (N,) bool.
        copies: How each copy is changed; noise comes after rotation.
        generator: Of the noise.

    Returns:
        Images and labels: those that are not copied first, then a block for each copy.
    """
    blocks = [
        add_noise(rotate(images[copied], copy.angle), copy.noise, generator) for copy in copies
    ]
    return (
        torch.cat([images[~copied], *blocks]),
        torch.cat([labels[~copied], *[labels[copied]] * len(copies)]),
    )


def transform_each(
    images: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> Tensor:
    """Apply transforms, one after the other, to each of some images (N, C, H, W), on the CPU.

    The transforms draw from PyTorch's global generator, which has the state of ``generator``
    meanwhile and is left as it was.

    Raises:
        ConfigError: A transform fails, or changes an image's shape or type.
    """
    changed = []
    with torch.random.fork_rng(devices=[]), naming("data.transforms"):
        torch.set_rng_state(generator.get_state())
        for image in images.cpu():
            for transform in transforms:
                image = transform(image)
            found = f"{tuple(getattr(image, 'shape', ()))} {getattr(image, 'dtype', type(image))}"
            if found != f"{tuple(images.shape[1:])} {images.dtype}":
                expected = f"{tuple(images.shape[1:])} {images.dtype}"
                raise ConfigError(
                    f"data.transforms: must keep an image {expected}, one gives {found}"
                )
            changed.append(image)
    return torch.stack(changed).to(images.device)
