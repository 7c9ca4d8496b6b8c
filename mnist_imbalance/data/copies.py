"""Copies of rare images, rotated and noisy, and transforms of single images, (C, H, W) uint8."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat
from torch import Tensor
from torchvision.transforms.v2 import Compose, InterpolationMode
from torchvision.transforms.v2.functional import pad, rotate

from mnist_imbalance.errors import ConfigError, naming

Transform = Callable[[Tensor], Tensor]  # of an image (C, H, W) uint8


class Copy(BaseModel, extra="forbid"):
    """The changes that make one copy of an image."""

    angle: FiniteFloat  # degrees, counter-clockwise
    noise: Annotated[float, Field(ge=0, le=1)]  # standard deviation, pixels in [0, 1]


def expand(
    images: Tensor, labels: Tensor, copied: Tensor, copies: Sequence[Copy], rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the ``copied`` images, (N,) bool, by their copies (AI3607, section 4).

    Rotation leaves black corners, and Gaussian noise comes after it and is clipped. The other
    images come first, then a block for each copy.
    """
    blocks = [images[~copied]]
    for copy in copies:
        block = rotate(images[copied], copy.angle, InterpolationMode.BILINEAR)
        if copy.noise:
            noise = torch.randn(block.shape, generator=rng) * (255 * copy.noise)
            block = (block + noise).round().clamp(0, 255).to(torch.uint8)
        blocks.append(block)
    return torch.cat(blocks), torch.cat([labels[~copied], *[labels[copied]] * len(copies)])


def crop_flip(images: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop padded images (N, C, H, W) to their size, each at its own place; flip half of them.

    The standard augmentation of He et al., 2016, for CIFAR, on the images' device.
    """
    count, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    places = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]
    numbers, rows, columns = (place.to(images.device) for place in places)
    padded: Tensor = pad(images, [padding] * 4)
    return padded[numbers, :, rows, columns].movedim(-1, 1)


def transform_each(
    images: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> Tensor:
    """Apply transforms in turn to each of some images (N, C, H, W), on the CPU.

    They draw from PyTorch's global generator, which has the state of ``generator`` meanwhile. A
    transform that fails, or changes an image's shape or type, is a `ConfigError`.
    """
    if not transforms:
        return images
    with torch.random.fork_rng(devices=[]), naming("data.transforms"):
        torch.set_rng_state(generator.get_state())
        transform = Compose(transforms)
        changed = torch.stack([transform(image) for image in images.cpu()])
        if (changed.shape, changed.dtype) != (images.shape, images.dtype):
            kind, found = (f"{tuple(of.shape[1:])} {of.dtype}" for of in (images, changed))
            raise ConfigError(f"data.transforms: must keep an image {kind}, got {found}")
    return changed.to(images.device)
