import pytest
import torch

from mnist_imbalance.data.copies import Copy, add_noise, expand, rotate
from mnist_imbalance.data.seeds import generator


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8, generator=generator("test", 0))


def test_rotation_by_0_is_the_identity(images: torch.Tensor) -> None:
    assert torch.equal(rotate(images, 0), images)


def test_rotation_is_counter_clockwise(images: torch.Tensor) -> None:
    assert torch.equal(rotate(images, 90), torch.rot90(images, 1, dims=(2, 3)))


def test_rotation_fills_the_corners_with_black() -> None:
    white = torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)
    rotated = rotate(white, 15)
    assert rotated[0, 0, 0, 0] == 0
    assert rotated[0, 0, 14, 14] == 255


def test_rotation_treats_each_image_alone(images: torch.Tensor) -> None:
    alone = torch.cat([rotate(image.unsqueeze(0), 7.5) for image in images])
    assert torch.equal(rotate(images, 7.5), alone)


def test_noise_has_the_deviation_asked_for() -> None:
    grey = torch.full((100, 1, 28, 28), 128, dtype=torch.uint8)
    noisy = add_noise(grey, 0.1, generator("test", 0)) / 255
    assert noisy.mean().item() == pytest.approx(128 / 255, abs=0.002)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.01)


def test_noise_is_clipped_and_differs_by_image() -> None:
    black = torch.zeros((2, 1, 28, 28), dtype=torch.uint8)
    noisy = add_noise(black, 0.1, generator("test", 0))
    assert 0.4 < (noisy == 0).float().mean() < 0.6  # the negative half; no wrap to white
    assert noisy.max() < 200
    assert not torch.equal(noisy[0], noisy[1])


def test_no_noise_is_the_identity(images: torch.Tensor) -> None:
    assert torch.equal(add_noise(images, 0, generator("test", 0)), images)


def test_noise_comes_after_rotation_and_so_into_the_corners(images: torch.Tensor) -> None:
    copied = torch.tensor([True, False, False, False])
    copies = [Copy(angle=0, noise=0), Copy(angle=45, noise=0.1)]
    expanded, labels = expand(images, torch.arange(4), copied, copies, generator("test", 0))
    assert labels.tolist() == [1, 2, 3, 0, 0]
    assert torch.equal(expanded[3], images[0])
    corner = expanded[4, 0, :4, :4]
    assert 2 <= (corner > 0).sum() <= 14  # rotation fills it with black, noise lifts half of it
