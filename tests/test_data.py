"""The way from a source to batches: split, imbalance, copies, samplers, transforms."""

from typing import Any

import lightning
import pytest
import torch
from conftest import composed
from torch import Tensor, nn

from mnist_imbalance.__main__ import counts
from mnist_imbalance.config import build
from mnist_imbalance.data.copies import Copy, add_noise, expand
from mnist_imbalance.data.imbalance import (
    exactly,
    exponential,
    hold_out,
    kept_counts,
    name_group,
    scored_groups,
    shot_groups,
    zipf,
)
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency, progressive, under_sampled
from mnist_imbalance.data.seeds import generator
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.training.classifier import Classifier

DEBUG = "data/source=debug"
V2 = "torchvision.transforms.v2"
MAJORITY_COUNTS = [4921, 5418, 5765, 5351, 5449]
UNEQUAL = torch.arange(3).repeat_interleave(torch.tensor([100, 1_000, 10_000]))


def prepared(*overrides: str) -> MNISTData:
    data: MNISTData = build(composed(*overrides), "data")
    data.setup()
    return data


@pytest.mark.parametrize(
    ("name", "minority_counts"),
    [
        ("original", [5423, 6242, 5458, 5631, 5342]),
        ("imbalanced", [542, 624, 546, 563, 534]),
        ("augmented_40", [2168, 2496, 2184, 2252, 2136]),
        ("augmented_100", [5420, 6240, 5460, 5630, 5340]),
    ],
)
def test_images_of_each_label_in_ai3607s_sets(name: str, minority_counts: list[int]) -> None:
    data = prepared(f"data={name}")
    assert data.class_counts == minority_counts + MAJORITY_COUNTS
    assert data.counts["validation"] == [500] * 10
    assert data.counts["test"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    labels = torch.cat([labels for _, labels in data.train_dataloader()])
    assert labels.bincount().tolist() == data.class_counts


def test_counts_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["counts", "data=augmented_40"])
    counts()
    lines = capsys.readouterr().out.split("\n")
    rows = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert ["", "0", "5923", "5423", "542", "2168", "500", "980", ""] in rows
    assert ["", "all", "60000", "55000", "29713", "38140", "5000", "10000", ""] in rows


def test_the_split_depends_on_the_seed_and_loses_no_image() -> None:
    labels = torch.arange(1000) % 10
    first, same, other = (hold_out(labels, 5, 10, generator("test", seed)) for seed in (0, 0, 1))
    train, val = map(torch.cat, first)
    assert torch.equal(val, torch.cat(same[1]))
    assert not torch.equal(val, torch.cat(other[1]))
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1000))
    assert labels[val].bincount().tolist() == [5] * 10


def test_fewer_images_are_a_part_of_more() -> None:
    few, many = (prepared(DEBUG, f"data.keep={keep}").kept[0] for keep in (0.1, 0.5))
    known = {image.numpy().tobytes() for image in many}
    assert {image.numpy().tobytes() for image in few} < known


def test_seeds_give_independent_streams() -> None:
    assert torch.equal(*(torch.rand(3, generator=generator("test", 1, 2)) for _ in range(2)))
    keys = [("a", ()), ("a", (0,)), ("a", (0, 0)), ("a", (0, 1)), ("a", (1, 0)), ("b", (0,))]
    draws = {torch.rand(1, generator=generator(name, *seeds)).item() for name, seeds in keys}
    assert len(draws) == len(keys)


def test_data_seed_chooses_and_order_seed_orders() -> None:
    def pixels(*overrides: str) -> Tensor:
        return prepared(DEBUG, *overrides).epoch(0)[0]

    base, ordered, chosen = (pixels(), pixels("data.order_seed=1"), pixels("data.seed=1"))
    assert not torch.equal(base, ordered)
    sums, same = (images.sum(dim=(1, 2, 3)).sort().values for images in (base, ordered))
    assert torch.equal(sums, same)
    assert not torch.equal(base.sum(dim=0), chosen.sum(dim=0))


def test_a_seed_chooses_the_minority() -> None:
    def chosen(seed: int) -> list[int]:
        data = prepared(DEBUG, "data.minority=3", f"data.seed={seed}")
        assert [data.class_counts[label] for label in data.minority] == [8, 8, 8]
        assert len(data.groups) == 3
        return data.minority

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


# profiles and groups


@pytest.mark.parametrize(("ratio", "total"), [(100, 12_406), (50, 13_996), (10, 20_431)])
def test_long_tails_of_cao_2019_on_cifar_10(ratio: float, total: int) -> None:
    assert sum(exponential([5000] * 10, ratio)) == total


def test_a_long_tail_starts_from_the_rarest_label() -> None:
    assert exponential([500, 300, 400], 100) == [300, 30, 3]
    tail = zipf([5000] * 10, 100)
    assert (tail[0], tail[1], tail[-1]) == (5000, 1250, 50)
    assert tail == sorted(tail, reverse=True)
    assert exactly([10, 10], [3, 7]) == [3, 7]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (0.5, [5, 10, 8]),
        ([1.0, 0.25, 0.5], [10, 5, 4]),
        (lambda available: [min(available)] * 3, [8, 8, 8]),
    ],
)
def test_a_profile_is_a_fraction_a_list_of_them_or_a_function(keep: Any, kept: list[int]) -> None:
    assert kept_counts(keep, minority=[0, 1], available=[10, 20, 8]) == kept


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda available: [1, 3], "label 1 has 2 images, not 3"),
        (lambda available: [1], "gives 1 counts for 2 labels"),
        (lambda available: [0.5, 1], r"must give whole numbers of images, got \[0.5, 1\]"),
        ([0.5], "must hold 2 fractions, one for a label"),
        ([0.1, 1.0], "leaves no training image of label 0"),
    ],
)
def test_an_impossible_profile_is_refused(keep: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.keep: {message}$"):
        kept_counts(keep, minority=[], available=[2, 2])


def test_groups_are_named_by_their_labels() -> None:
    assert list(scored_groups([0, 1, 2, 3, 4], 10)) == ["0-4", "5-9", "all"]
    assert scored_groups([1], 3) == {"1": [1], "0,2": [0, 2], "all": [0, 1, 2]}
    assert name_group([3]) == "3"


def test_groups_of_a_long_tail() -> None:
    groups = {"few": [2], "medium": [1], "many": [0], "all": [0, 1, 2]}
    assert shot_groups([300, 100, 5], 20, 100) == groups
    assert shot_groups([300, 200], 20, 100) == {"many": [0, 1], "all": [0, 1]}
    with pytest.raises(ConfigError, match=r"^data\.shots: 30 must not be above 20$"):
        shot_groups([10], 30, 20)


# copies


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8, generator=generator("test", 0))


def copied(images: Tensor, *copies: Copy) -> Tensor:
    labels = torch.arange(len(images))
    return expand(images, labels, labels >= 0, copies, generator("test", 0))[0]


def test_rotation_is_counter_clockwise_with_black_corners(images: Tensor) -> None:
    assert torch.equal(copied(images, Copy(angle=0, noise=0)), images)
    quarter = torch.rot90(images, 1, dims=(2, 3))
    assert torch.equal(copied(images, Copy(angle=90, noise=0)), quarter)
    white = torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)
    rotated = copied(white, Copy(angle=15, noise=0))
    assert rotated[0, 0, 0, 0] == 0
    assert rotated[0, 0, 14, 14] == 255


def test_noise_has_its_deviation_and_is_clipped() -> None:
    grey = torch.full((100, 1, 28, 28), 128, dtype=torch.uint8)
    noisy = add_noise(grey, 0.1, generator("test", 0)) / 255
    assert noisy.mean().item() == pytest.approx(128 / 255, abs=0.002)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.01)
    black = add_noise(torch.zeros_like(grey), 0.1, generator("test", 0))
    assert 0.4 < (black == 0).float().mean() < 0.6  # the negative half; no wrap to white
    assert black.max() < 200
    assert not torch.equal(black[0], black[1])


def test_noise_comes_after_rotation_and_so_into_the_corners(images: Tensor) -> None:
    chosen = torch.tensor([True, False, False, False])
    copies = [Copy(angle=0, noise=0), Copy(angle=45, noise=0.1)]
    expanded, labels = expand(images, torch.arange(4), chosen, copies, generator("test", 0))
    assert labels.tolist() == [1, 2, 3, 0, 0]
    assert torch.equal(expanded[3], images[0])
    corner = expanded[4, 0, :4, :4]
    assert 2 <= (corner > 0).sum() <= 14  # rotation fills it with black, noise lifts half of it


def test_copies_are_augmented_images_of_the_kept_ones() -> None:
    data = prepared("data=augmented_40")
    original, noisy, left, right = data.sample().float()
    assert (noisy - original).std().item() == pytest.approx(0.07 * 255, rel=0.2)  # half is clipped
    assert not torch.equal(left, original)
    for rotated in (left, right):
        torch.testing.assert_close(rotated.sum(), original.sum(), rtol=0.02, atol=0)
    for image in original:
        assert (data.kept[0] == image).flatten(1).all(dim=1).any()


def test_copies_can_fill_up_to_the_other_labels() -> None:
    filled = prepared("data=augmented_100", "data.fill=true", "data.keep=0.01")
    assert filled.class_counts[:5] == [100 * count for count in filled.counts["subsampled"][:5]]
    noisy = filled.train[0][filled.train[1] == 0].unflatten(0, (100, -1))[5::10]
    assert not torch.equal(noisy[0], noisy[1])  # each copy's noise is its own
    assert filled.sample().shape == (10, 5, 1, 28, 28)
    plain, same = (prepared("data=augmented_100", f"data.fill={fill}") for fill in (False, True))
    assert torch.equal(plain.train[0], same.train[0])  # at 10 % the ten copies fill up already


@pytest.mark.parametrize("redraw", [True, False])
def test_noise_is_drawn_once_or_in_every_epoch(redraw: bool) -> None:
    data = prepared(DEBUG, "data=augmented_40", f"data.redraw={redraw}")
    samples = []
    for epoch in (0, 1, 1):
        data.epoch(epoch)
        samples.append(data.sample())
    clean, noisy = 0, 1
    assert torch.equal(samples[0][clean], samples[1][clean])
    assert torch.equal(samples[0][noisy], samples[1][noisy]) is not redraw
    assert torch.equal(samples[1], samples[2])


def test_without_a_minority_a_sample_has_all_labels() -> None:
    data = prepared(DEBUG, "data.minority=[]", "data.keep=1.0")
    assert data.sample().shape == (1, 10, 1, 28, 28)
    assert data.groups == {"all": list(range(10))}


# transforms


def sorted_epoch(data: MNISTData, number: int) -> Tensor:
    """The images of an epoch, in the order of the training set."""
    return data.epoch(number)[0][data.order(number).argsort()]


def test_transforms_are_drawn_for_every_image_and_epoch_from_their_own_seed() -> None:
    affine = ("data=duplicated_40", DEBUG, "data/transforms=affine")
    plain, transformed, other = (
        prepared(*affine[:2]),
        prepared(*affine),
        prepared(*affine, "data.order_seed=1"),
    )
    first, second = (sorted_epoch(transformed, epoch) for epoch in (0, 1))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(first, sorted_epoch(transformed, 0))
    assert torch.equal(torch.get_rng_state(), state)
    for epoch in (second, sorted_epoch(other, 0), sorted_epoch(plain, 0)):
        assert (epoch != first).flatten(1).any(dim=1).float().mean() > 0.9
    copies = first[transformed.train[1] < 5].chunk(4)
    assert not torch.equal(copies[0], copies[1])  # copies of one image, each transformed for itself
    assert torch.equal(transformed.epoch(1)[1], plain.epoch(1)[1])
    assert torch.equal(transformed.val[0], plain.val[0])
    assert torch.equal(transformed.train[0], plain.train[0])


def test_transforms_are_applied_one_after_the_other() -> None:
    flip = f"{{_target_: {V2}.RandomHorizontalFlip, p: 1}}"
    invert = f"{{_target_: {V2}.RandomInvert, p: 1}}"
    data = prepared(DEBUG, f"data.transforms=[{flip},{invert}]")
    assert torch.equal(sorted_epoch(data, 0), 255 - data.train[0].flip(3))


# samplers


def shares(indices: Tensor) -> list[float]:
    return (UNEQUAL[indices].bincount(minlength=3) / len(indices)).tolist()


@pytest.mark.parametrize(
    ("power", "expected"),
    [(0, [1 / 3] * 3), (0.5, [0.0706, 0.2233, 0.7061]), (1, [0.0090, 0.0901, 0.9009])],
)
def test_sampling_by_frequency_of_kang_2020(power: float, expected: list[float]) -> None:
    drawn = by_frequency(UNEQUAL, power=power, images=50_000, generator=generator("test"))
    assert shares(drawn) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("ends", [{"epochs": 11}, {"epochs": 28, "steps": 1050}])
@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, [0.0090, 0.0901, 0.9009]), (5, [0.1712, 0.2117, 0.6171]), (10, [1 / 3] * 3)],
)
def test_progressive_sampling_of_kang_2020_ends_balanced(
    epoch: int, expected: list[float], ends: dict[str, int]
) -> None:
    chance = generator("test")
    drawn = progressive(UNEQUAL, epoch=epoch, generator=chance, batch_size=111, **ends)
    assert len(drawn) == len(UNEQUAL)
    assert shares(drawn) == pytest.approx(expected, abs=0.02)


def test_under_sampling_keeps_the_same_few_of_every_label() -> None:
    def kept(seed: int, order: int) -> Tensor:
        return under_sampled(UNEQUAL, seed=seed, generator=generator("test", order))

    first = kept(3, 0)
    assert torch.equal(first, kept(3, 0))
    assert len(first) == len(UNEQUAL) and len(first.unique()) == 300
    assert shares(first) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert set(first.tolist()) == set(kept(3, 9).tolist())
    assert set(first.tolist()) != set(kept(4, 0).tolist())


def test_a_sampler_gets_the_number_of_the_epoch() -> None:
    data = prepared(DEBUG, "data/sampler=progressive", "trainer.max_epochs=4")
    first, last = (data.epoch(epoch)[1].bincount().tolist() for epoch in (0, 3))
    assert sum(first) == sum(last) == sum(data.class_counts)
    assert max(first[:5]) < min(first[5:])
    assert sum(last[:5]) > 2 * sum(first[:5])


# batches


class Orders(lightning.Callback):
    """Keeps the labels of each epoch, in the order in which they are trained on."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.labels.append([])

    def on_train_batch_start(self, trainer: object, module: object, batch: Any, _: int) -> None:
        self.labels[-1] += batch[1].tolist()


def test_an_ordinary_trainer_shuffles_every_epoch_anew() -> None:
    orders = Orders()
    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    off |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=3, callbacks=[orders], **off)
    data = prepared(DEBUG)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), groups=data.groups)
    trainer.fit(classifier, datamodule=data)
    assert orders.labels == [data.epoch(number)[1].tolist() for number in range(3)]
    assert len({tuple(labels) for labels in orders.labels}) == 3
    [validated] = trainer.validate(classifier, datamodule=data, verbose=False)
    [tested] = trainer.test(classifier, datamodule=data, verbose=False)
    assert 0 <= validated["val/accuracy"] <= 1
    assert {"test/accuracy_0_4", "test/accuracy_5_9", "test/loss"} <= tested.keys()


def test_a_loader_alone_shuffles_every_pass_anew() -> None:
    data = prepared(DEBUG)
    loader = data.train_dataloader()
    passes = [torch.cat([labels for _, labels in loader]).tolist() for _ in range(2)]
    assert passes == [data.epoch(number)[1].tolist() for number in range(2)]


def test_without_arguments_it_is_all_of_mnist() -> None:
    data = MNISTData()
    data.setup()
    assert sum(data.class_counts) == 55_000
    assert data.groups == {"all": list(range(10))}
    data.to(torch.device("meta"))
    assert all(tensor.is_meta for part in (data.train, data.val, data.test) for tensor in part)


def test_a_batch_is_a_slice_and_reaches_the_model_in_0_to_1() -> None:
    data = prepared("data.batch_size=100")
    images, labels = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8
    assert images.shape == (100, 1, 28, 28)
    assert images.untyped_storage().size() == 29_713 * 28 * 28  # a view, no copy
    scaled, same_labels = data.on_after_batch_transfer((images, labels), 0)
    assert same_labels is labels
    assert scaled.min() == 0 and scaled.max() == 1


COUNTS = f"data/profile=counts data.keep.counts={[*range(10, 19), 81]}".replace(", ", ",")
MISTAKES = {  # overrides, and how their error begins
    "data.minority=[3,10]": r"data\.minority: there is no label 10",
    "data.minority=10": r"data\.minority: must be below 10",
    "data.keep=0.001": r"data\.keep: 0\.001 leaves no training image of label 0",
    COUNTS: r"data\.keep: label 9 has 80 images, not 81$",
    "data.val_per_label=100": r"data\.val_per_label: must be below 100",
    "data.minority=[]": r"data\.keep: no label could lose images; data\.minority names some",
    "data.minority=[] data.keep=1.0 data/copies=noise_100": r"data\.copies: no label is copied",
    "data.source.name=CIFAR10": r"data\.source\.name: Input should be 'MNIST', ",
    "data.source.first=0": r"data\.source\.first: .* greater than 0, got 0",
    "+data.sampler.foo=1": r"data\.sampler: .*unexpected keyword argument 'foo'",
    "data.keep={_target_:builtins.len,_partial_:true}": r"data\.keep: .*'int' object",
    f"data.transforms=[{{_target_:{V2}.Resize,size:5}}]": (
        r"data\.transforms: must keep an image \(1, 28, 28\) torch\.uint8, one gives \(1, 5, 5\) "
    ),
    f"data.transforms=[{{_target_:{V2}.ToPILImage}}]": r"data\.transforms: .*gives .*Image'?>?$",
    f"data.transforms=[{{_target_:{V2}.RandomRotation}}]": r"data\.transforms: .*'degrees'",
    f"data.transforms=[{{_target_:{V2}.NoSuch}}]": r"data\.transforms: Error loading",
    "data.transforms=[RandomRotation]": r"data\.transforms\.0: .* callable, got 'Ran",
    "data.transforms=[{_target_:builtins.len,_partial_:true}]": r"data\.transforms: ",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_named(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        prepared(DEBUG, *overrides.split())
