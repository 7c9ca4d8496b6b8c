"""Transforms of single training images, drawn anew for every epoch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mnist_imbalance.errors import ConfigError, naming

Transform = Callable[[Tensor], Tensor]  # of an image (C, H, W) uint8


def describe(image: object) -> str:
    """Return shape and type of what should be an image."""
    if isinstance(image, Tensor):
        return f"{tuple(image.shape)} {image.dtype}"
    return type(image).__name__


def transform_each(
    images: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> Tensor:
    """Apply transforms, one after the other, to each image by itself, on the CPU.

    Args:
        images: (N, C, H, W) uint8.
        transforms: Of one image, such as those of torchvision.transforms.v2; what they draw comes
            from PyTorch's global generator on the CPU, which is left as it was.
        generator: Whose numbers that generator draws meanwhile.

    Returns:
        (N, C, H, W) uint8, on the images' device.

    Raises:
        ConfigError: A transform cannot be applied, or changes an image's shape or type.
    """
    changed = []
    with torch.random.fork_rng(devices=[]), naming("data.transforms"):
        torch.set_rng_state(generator.get_state())
        wanted = describe(images[0])
        for image in images.cpu():
            for transform in transforms:
                image = transform(image)
            if describe(image) != wanted:
                raise ConfigError(
                    f"data.transforms: must keep an image {wanted}, give {describe(image)}"
                )
            changed.append(image)
    return torch.stack(changed).to(images.device)
