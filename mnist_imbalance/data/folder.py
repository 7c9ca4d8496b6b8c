"""Images in folders, a folder a label."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt, validate_call
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from mnist_imbalance.data.source import Batch, Images
from mnist_imbalance.errors import ConfigError


@validate_call
def read_folder(dir: Path, size: PositiveInt = 28, colours: Literal[1, 3] = 1) -> Images:
    """Return the images below ``train/<label>/`` and ``test/<label>/``, scaled to one size.

    Args:
        dir: Holds ``train`` and ``test``; labels are numbered by their folders' names, in order.
        size: Height and width, in pixels; a longer side is cut off on both ends.
        colours: Channels: 1 is grey, 3 is red, green and blue.

    Raises:
        ConfigError: There are no images, or other labels in ``test``.
    """
    in_colours = v2.Grayscale() if colours == 1 else v2.RGB()
    look = v2.Compose(
        [v2.PILToTensor(), in_colours, v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    )

    def read(part: str) -> tuple[Batch, list[str]]:
        try:
            found = ImageFolder(str(dir / part), transform=look)
        except FileNotFoundError as error:
            raise ConfigError(f"data.dir: {' '.join(str(error).split())}") from error
        images, labels = zip(*found, strict=True)
        return (torch.stack(images), torch.tensor(labels)), found.classes

    (train, classes), (test, of_test) = read("train"), read("test")
    if classes != of_test:
        raise ConfigError(f"data.dir: {dir / 'test'} has other labels than {dir / 'train'}")
    return Images(train, test, num_classes=len(classes))
