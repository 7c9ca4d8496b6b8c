"""The images that the report reads without torch, beside those that training makes."""

import gzip
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from conftest import REPOSITORY

from mnist_imbalance.config import build, compose_with
from mnist_imbalance.data.copies import add_noise, rotate
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.report.images import copy_of, read_images

RAW = REPOSITORY / "data" / "MNIST" / "raw"


def test_the_images_are_those_of_training() -> None:
    images = read_images([])
    data = build(compose_with(["data=augmented_100"]), "data")
    data.setup()
    test, labels = data.test
    assert (images.test == test.squeeze(1).numpy()).all()
    assert (images.labels == labels.numpy()).all()
    assert images.samples.shape == (10, 5, 28, 28)
    assert list(images.rare) == data.minority


@pytest.mark.parametrize("angle", [-15, 7.5])
def test_copies_are_rotated_as_in_training(angle: float) -> None:
    image = read_images([]).test[0]
    [[theirs]] = rotate(torch.tensor(image)[None, None], angle).numpy()
    ours = copy_of(image, angle, 0, numpy.random.default_rng(0))
    assert numpy.abs(ours.astype(int) - theirs).max() <= 2


def test_copies_are_as_noisy_as_in_training() -> None:
    grey = numpy.full((28, 28), 127, numpy.uint8)
    ours = copy_of(grey, 0, 0.1, numpy.random.default_rng(0))
    theirs = add_noise(torch.tensor(grey), 0.1, torch.Generator().manual_seed(0)).numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.1)


def test_unpacked_archives_are_read_too_and_damaged_ones_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(RAW, raw, ignore=shutil.ignore_patterns(".lock"))
    there = [f"data.dir={tmp_path}"]
    for packed in raw.glob("t10k*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert (read_images(there).test == read_images([]).test).all()
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01")
    with pytest.raises(ConfigError, match=r"data\.dir: the archives in .* cannot be read"):
        read_images(there)
    with pytest.raises(ConfigError, match=r"data\.source: the images are not those of whole"):
        read_images(["data/source=debug"])
