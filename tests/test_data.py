"""The way from a source to batches: split, imbalance, copies, samplers, transforms."""

from functools import cache, partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from conftest import REPOSITORY, Command, composed
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from mnist_imbalance.__main__ import counts
from mnist_imbalance.config import build
from mnist_imbalance.data.copies import Copy, crop_flip, expand
from mnist_imbalance.data.imbalance import (
    exactly,
    exponential,
    kept_counts,
    label_groups,
    rare_labels,
)
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency, progressive, under_sampled
from mnist_imbalance.data.seeds import generator
from mnist_imbalance.data.sources import Images, read_torchvision
from mnist_imbalance.errors import ConfigError

V2 = "torchvision.transforms.v2"
FOUR = [Copy(angle=0, noise=0), Copy(angle=0, noise=0.1), Copy(angle=15, noise=0)]
FOUR.append(Copy(angle=-15, noise=0))
UNEQUAL = torch.arange(3).repeat_interleave(torch.tensor([100, 1_000, 10_000]))


@cache
def few() -> Images:
    return read_torchvision(REPOSITORY / "data", first=100)


def small(**keys: Any) -> MNISTData:
    """100 images of each label, 20 of them held out; labels 0-4 keep 8."""
    usual: dict[str, Any] = {"val_per_label": 20, "minority": range(5), "keep": 0.1}
    data = MNISTData(**(usual | {"source": lambda dir: few()} | keys))
    data.setup()
    return data


def by_size(images: Tensor) -> Tensor:
    return images.flatten(1).sum(dim=1).sort().values


def test_counts_are_printed(command: Command) -> None:
    printed = command(counts, "data=augmented_40", "data/source=debug")
    rows = [line.split() for line in printed.splitlines()]
    assert ["0", "100", "80", "8", "32", "20", "100"] in rows
    assert ["all", "1000", "800", "440", "560", "200", "1000"] in rows


def test_seeds() -> None:
    keys = [("a", ()), ("a", (0,)), ("a", (0, 0)), ("a", (0, 1)), ("a", (1, 0)), ("b", (0,))]
    draws = {torch.rand(1, generator=generator(name, *seeds)).item() for name, seeds in keys * 2}
    assert len(draws) == len(keys)
    base, same, ordered = small(), small(), small(order_seed=1)
    chosen, whole = small(seed=1), small(keep=1.0)
    assert all(map(torch.equal, (*base.epoch(0), base.val[0]), (*same.epoch(0), same.val[0])))
    assert not torch.equal(base.epoch(0)[0], ordered.epoch(0)[0])
    assert torch.equal(base.train[0], ordered.train[0])
    assert not torch.equal(base.val[0], chosen.val[0])
    together = torch.cat([whole.train[0], whole.val[0]])
    assert torch.equal(by_size(together), by_size(few().train[0]))  # no image is lost
    assert small(minority=3).minority != small(minority=3, seed=1).minority
    assert rare_labels("rare", [9, 2, 4], 0) == [1, 2]  # fewer than the mean


# profiles and groups


def test_profiles() -> None:
    for ratio, total in ((100, 12_406), (50, 13_996), (10, 20_431)):  # Cao 2019 on CIFAR-10
        assert sum(exponential([5000] * 10, ratio)) == total
    assert exponential([500, 300, 400], 100) == [300, 30, 3]
    assert exactly([10, 10], [3, 7]) == [3, 7]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (0.5, [5, 10, 8]),
        ([1.0, 0.25, 0.5], [10, 5, 4]),
        (lambda available: [min(available)] * 3, [8, 8, 8]),
        (lambda available: [1, 3, 9], "of the 8 images of label 2 .* leaves, not 9$"),
        (lambda available: [1], "must give 3 numbers, one for each label$"),
        (lambda available: [0.5, 1, 1], "of the 10 images of label 0 .* leaves, not 0.5$"),
        ([0.5], "must give 3 numbers, one for each label$"),
        ([0.01, 1.0, 1.0], "of the 10 images of label 0 .* leaves, not 0$"),
    ],
)
def test_a_profile_is_a_fraction_a_list_of_them_or_a_function(keep: Any, kept: Any) -> None:
    if isinstance(kept, str):
        with pytest.raises(ConfigError, match=rf"^data\.keep: .*{kept}"):
            kept_counts(keep, minority=[], available=[10, 20, 8])
    else:
        assert kept_counts(keep, minority=[0, 1], available=[10, 20, 8]) == kept


def test_groups() -> None:
    assert list(label_groups([0, 1, 2, 3, 4], [1] * 10)) == ["0-4", "5-9", "all"]
    assert label_groups([1], [1] * 3) == {"label 1": [1], "0,2": [0, 2], "all": [0, 1, 2]}
    shots = {"few": [2], "medium": [1], "many": [0], "all": [0, 1, 2]}
    assert label_groups([], [300, 100, 5], (20, 100)) == shots
    assert label_groups([], [300, 200], (20, 100)) == {"many": [0, 1], "all": [0, 1]}
    assert small(minority=[3, 10], keep=1.0).groups == {"all": [*range(10)]}


# copies


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8, generator=generator("test", 0))


def copied(images: Tensor, angle: float = 0, noise: float = 0) -> Tensor:
    labels, copy = torch.arange(len(images)), Copy(angle=angle, noise=noise)
    return expand(images, labels, labels >= 0, [copy], generator("test", 0))[0]


def test_rotation_is_counter_clockwise_with_black_corners(images: Tensor) -> None:
    assert torch.equal(copied(images), images)
    assert torch.equal(copied(images, angle=90), torch.rot90(images, 1, dims=(2, 3)))
    rotated = copied(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), angle=15)
    assert rotated[0, 0, 0, 0] == 0 and rotated[0, 0, 14, 14] == 255


def test_noise_has_its_deviation_and_comes_after_rotation(images: Tensor) -> None:
    grey = torch.full((100, 1, 28, 28), 128, dtype=torch.uint8)
    noisy = copied(grey, noise=0.1) / 255
    assert noisy.mean().item() == pytest.approx(128 / 255, abs=0.002)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.01)
    black = copied(torch.zeros_like(grey), noise=0.1)
    assert 0.4 < (black == 0).float().mean() < 0.6  # the negative half; no wrap to white
    assert black.max() < 200
    assert not torch.equal(black[0], black[1])
    chosen = torch.tensor([True, False, False, False])
    copies = [Copy(angle=0, noise=0), Copy(angle=45, noise=0.1)]
    expanded, labels = expand(images, torch.arange(4), chosen, copies, generator("test", 0))
    assert labels.tolist() == [1, 2, 3, 0, 0]
    assert torch.equal(expanded[3], images[0])
    corner = expanded[4, 0, :4, :4]
    assert 2 <= (corner > 0).sum() <= 14  # rotation fills it with black, noise lifts half of it


def test_transforms_are_drawn_for_every_image_and_epoch_from_their_own_seed() -> None:
    affine = build(composed("data/transforms=affine"), "data").transforms
    plain, transformed = (small(copies=FOUR[:1] * 4, transforms=steps) for steps in ((), affine))
    order, state = transformed.order(0).argsort(), torch.get_rng_state()
    first, again = (transformed.epoch(0)[0][order] for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    second = transformed.epoch(1)[0][transformed.order(1).argsort()]
    for epoch in (second, plain.train[0]):
        assert (epoch != first).flatten(1).any(dim=1).float().mean() > 0.9
    copies = first[transformed.train[1] < 5].chunk(4)
    assert not torch.equal(copies[0], copies[1])  # copies of one image, each transformed for itself
    assert torch.equal(transformed.epoch(1)[1], plain.epoch(1)[1])
    assert torch.equal(transformed.val[0], plain.val[0])


def test_crops_and_flips_stay_within_the_padded_image() -> None:
    images = torch.arange(1, 193, dtype=torch.uint8).view(1, 3, 8, 8).repeat(400, 1, 1, 1)
    both = partial(crop_flip, images, padding=2, flip=True)
    found = both(generator=generator("test"))
    assert found.dtype == torch.uint8 and torch.equal(found, both(generator=generator("test")))
    padded = functional.pad(images[0], [2] * 4)
    places = [padded[:, top : top + 8, left : left + 8] for top in range(5) for left in range(5)]
    known = {place.numpy().tobytes() for place in places}
    mirrored = {place.flip(2).numpy().tobytes() for place in places}
    own = [image.numpy().tobytes() for image in found]
    assert {*own} <= known | mirrored and len({*own}) == 50
    assert 0.4 < sum(image in mirrored for image in own) / 400 < 0.6
    data = small(augment=partial(crop_flip, padding=2, flip=False))
    first, again, second = (data.epoch(number)[0] for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first[data.order(0).argsort()], second[data.order(1).argsort()])


# samplers


def shares(indices: Tensor) -> list[float]:
    return (UNEQUAL[indices].bincount(minlength=3) / len(indices)).tolist()


def test_sampling_of_kang_2020() -> None:
    own, alike, rng = [0.0090, 0.0901, 0.9009], [1 / 3] * 3, generator("test")
    for power, expected in ((0, alike), (0.5, [0.0706, 0.2233, 0.7061]), (1, own)):
        drawn = by_frequency(UNEQUAL, power=power, images=50_000, generator=rng)
        assert shares(drawn) == pytest.approx(expected, abs=0.01)
    for ends in ({"epochs": 11}, {"epochs": 28, "steps": 1050}, {"epochs": -1, "steps": 1050}):
        for epoch, expected in ((0, own), (5, [0.1712, 0.2117, 0.6171]), (10, alike)):
            drawn = progressive(UNEQUAL, epoch=epoch, generator=rng, batch_size=111, **ends)
            assert len(drawn) == len(UNEQUAL)
            assert shares(drawn) == pytest.approx(expected, abs=0.02)


def test_under_sampling_keeps_the_same_few_of_every_label() -> None:
    def kept(seed: int, order: int) -> Tensor:
        return under_sampled(UNEQUAL, seed=seed, generator=generator("test", order))

    first = kept(3, 0)
    assert torch.equal(first, kept(3, 0))
    assert len(first) == len(UNEQUAL) and len(first.unique()) == 300
    assert shares(first) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert set(first.tolist()) == set(kept(3, 9).tolist()) != set(kept(4, 0).tolist())


def test_without_arguments_it_is_all_of_mnist_in_slices() -> None:
    data = MNISTData()
    data.setup()
    assert sum(data.class_counts) == 55_000
    assert data.groups == {"all": list(range(10))}
    images, _ = next(iter(data.train_dataloader()))
    assert (images.dtype, images.shape) == (torch.uint8, (128, 1, 28, 28))
    assert images.untyped_storage().size() == 55_000 * 28 * 28  # a view, no copy
    for limit, first in ((1, [*range(10)]), (0.5, [*range(10)]), (1.0, [0] * 10)):
        data.trainer = Mock(limit_val_batches=limit, **{"strategy.root_device": "cpu"})
        assert next(iter(data.val_dataloader()))[1][:10].tolist() == first
    data.to(torch.device("meta"))
    assert all(tensor.is_meta for part in (data.train, data.val, data.test) for tensor in part)


BELOW = "of the 80 images of label"
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"minority": [3, 10]}, r"minority: must be labels from 0 to 9, .*, is \[3, 10\]$"),
    ({"minority": []}, r"minority: must be labels .* which lose images or are copied, is \[\]$"),
    ({"minority": [], "keep": 1, "copies": FOUR}, r"minority: must be labels"),
    ({"keep": 0.001}, rf"keep: must keep 1 to all {BELOW} 0 .*, not 0$"),
    ({"keep": lambda available: [81] * 10}, rf"keep: must keep 1 to all {BELOW} 0 .*, not 81$"),
    ({"keep": len}, r"keep: .*'int'"),
    ({"val_fraction": 0.001}, r"val_fraction: holds out no image$"),
    ({"augment": partial(crop_flip, padding=-1, flip=True)}, r"augment: "),
    ({"val_per_label": 100}, r"keep: .* 0 images of label 0 that data\.val_\* leaves"),
    ({"source": partial(read_torchvision, name="Nist")}, r"source: .* no attribute 'Nist'"),
    ({"sampler": lambda labels: labels}, r"sampler: .*unexpected keyword argument 'generator'"),
    ({"transforms": [v2.Resize(5)]}, r"transforms: must keep an image .*, got \(1, 5, 5\) "),
    ({"transforms": [v2.ToPILImage()]}, r"transforms: .* Image$"),
]


@pytest.mark.parametrize(("keys", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_mistake_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{message}"):
        small(**keys)
