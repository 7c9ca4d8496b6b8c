"""Copies of rare images, rotated and noisy, and transforms of single images, (C, H, W) uint8."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from mnist_imbalance.errors import ConfigError, naming

Transform = Callable[[Tensor], Tensor]  # of an image (C, H, W) uint8


class Copy(BaseModel, extra="forbid"):
    """The changes that make one copy of an image."""

    angle: FiniteFloat  # degrees, counter-clockwise
    noise: Annotated[float, Field(ge=0, le=1)]  # standard deviation, pixels in [0, 1]


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to images (N, C, H, W) uint8 and clip (AI3607, section 4.1).

    ``sigma`` is the standard deviation for pixels in [0, 1].
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
    """Replace the ``copied`` images, (N,) bool, by their copies (AI3607, section 4).

    Rotation leaves black corners, and noise comes after it. The other images come first, then a
    block for each copy.
    """
    blocks = []
    for copy in copies:
        rotated = rotate(images[copied], copy.angle, InterpolationMode.BILINEAR)
        blocks.append(add_noise(rotated, copy.noise, generator))
    return (
        torch.cat([images[~copied], *blocks]),
        torch.cat([labels[~copied], *[labels[copied]] * len(copies)]),
    )


def transform_each(
    images: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> Tensor:
    """Apply transforms in turn to each of some images (N, C, H, W), on the CPU.

    The transforms draw from PyTorch's global generator, which has the state of ``generator``
    meanwhile and is left as it was. A transform that fails, or changes an image's shape or type,
    is a `ConfigError`.
    """
    if not transforms:
        return images
    changed, expected = [], f"{tuple(images.shape[1:])} {images.dtype}"
    with torch.random.fork_rng(devices=[]), naming("data.transforms"):
        torch.set_rng_state(generator.get_state())
        for image in images.cpu():
            for transform in transforms:
                image = transform(image)
            found = f"{tuple(getattr(image, 'shape', ()))} {getattr(image, 'dtype', type(image))}"
            if found != expected:
                raise ConfigError(
                    f"data.transforms: must keep an image {expected}, one gives {found}"
                )
            changed.append(image)
    return torch.stack(changed).to(images.device)
