"""The images that the report shows and the test labels, read from the archives without torch."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError

Pixels = NDArray[numpy.uint8]


@dataclass(frozen=True)
class Images:
    """What the report shows of a data set.

    Attributes:
        test: (N, H, W).
        labels: (N,) of these.
        copies: What is done to each copy of an image, its ``angle`` and ``noise``.
        samples: (copies, labels, H, W), a training image of each rare label in all its copies.
        rare: These labels.
    """

    test: Pixels
    labels: Pixels
    copies: Sequence[dict[str, float]]
    samples: Pixels
    rare: Sequence[int]


def read_idx(archive: Path, first: int = -1) -> Pixels:
    """Return what an archive of MNIST's kind holds, packed or not, or its first entries."""
    path = archive if archive.exists() else archive.with_name(f"{archive.name}.gz")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        dimensions = file.read(4)[3]
        count, *shape = numpy.frombuffer(file.read(4 * dimensions), ">i4").tolist()
        count = count if first < 0 else min(first, count)
        size = count * int(numpy.prod(shape))
        return numpy.frombuffer(file.read(size), numpy.uint8).reshape(count, *shape)


def copy_of(image: Pixels, angle: float, noise: float, random: numpy.random.Generator) -> Pixels:
    """Return a copy as the augmentation makes it, see `mnist_imbalance.data.copies`.

    Args:
        image: (H, W).
        angle: Degrees, counter-clockwise.
        noise: Standard deviation on the scale where pixels lie in [0, 1].
        random: Where the noise is drawn from.
    """
    rotated = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR)
    drawn = numpy.asarray(rotated) + random.normal(scale=255 * noise, size=image.shape)
    return drawn.round().clip(0, 255).astype(numpy.uint8)


def read_images(overrides: Sequence[str]) -> Images:
    """Read the images of a study.

    Args:
        overrides: Of every run of the study.

    Raises:
        ConfigError: They are not in archives of MNIST's kind, or these cannot be read.
    """
    of_data = [override for override in overrides if override.lstrip("+~").startswith("data")]
    config = compose_with(["data=augmented_100", *of_data]).data
    data: Any = OmegaConf.to_container(config, resolve=False)
    if "name" not in data["source"] or data["source"].get("first"):
        raise ConfigError("data.source: the images are not those of whole archives")
    raw = Path(data["dir"], data["source"]["name"], "raw")
    rare, copies = data["minority"], data["copies"]
    try:
        test, labels = (read_idx(raw / f"t10k-{part}") for part in PARTS)
        of_training = read_idx(raw / f"train-{PARTS[1]}")
        first = [int((of_training == label).argmax()) for label in rare]
        images = read_idx(raw / f"train-{PARTS[0]}", max(first, default=0) + 1)[first]
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise ConfigError(f"data.dir: the archives in {raw} cannot be read ({error})") from error
    random = numpy.random.default_rng(0)
    samples = [[copy_of(image, random=random, **copy) for image in images] for copy in copies]
    return Images(test, labels, copies, numpy.array(samples), rare)


PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")
