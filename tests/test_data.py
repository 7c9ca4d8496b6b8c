import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from conftest import REPOSITORY, composed
from mnist_imbalance.classifier import Classifier
from torch import nn
from torchvision.datasets import MNIST

from mnist_imbalance import counts
from mnist_imbalance.config import build
from mnist_imbalance.data.imbalance import (
    hold_out,
    kept_counts,
    name_group,
    scored_groups,
    subsample,
)
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.seeds import generator
from mnist_imbalance.data.sources import Images, load
from mnist_imbalance.errors import ConfigError

MAJORITY_COUNTS = [4921, 5418, 5765, 5351, 5449]
V2 = "torchvision.transforms.v2"
ARCHIVES = sorted((REPOSITORY / "data/MNIST/raw").glob("*.gz"))


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
def test_images_a_label(name: str, minority_counts: list[int]) -> None:
    data = prepared(f"data={name}")
    assert data.counts["expanded"] == minority_counts + MAJORITY_COUNTS
    assert data.counts["validation"] == [500] * 10
    assert data.counts["test"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    labels = torch.cat([labels for _, labels in data.train_dataloader()])
    assert labels.bincount().tolist() == data.counts["expanded"]


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return load(REPOSITORY / "data", train=True)[1]


def test_the_choice_depends_on_the_seed_alone(labels: torch.Tensor) -> None:
    first, second, other = (
        hold_out(labels, 500, 10, generator("test", seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_training_and_validation_images_are_disjoint_and_complete(labels: torch.Tensor) -> None:
    train, val = hold_out(labels, 500, 10, generator("test", 0))
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(60_000))


def test_a_smaller_part_is_kept_of_a_larger_one(labels: torch.Tensor) -> None:
    train, _ = hold_out(labels, 500, 10, generator("test", 0))
    few, many = (set(subsample(train, labels, [count] * 10).tolist()) for count in (50, 500))
    assert few < many < set(train.tolist())


def test_data_seed_chooses_and_order_seed_orders() -> None:
    def pixels(data: MNISTData) -> torch.Tensor:
        return torch.cat([images for images, _ in data.train_dataloader()])

    base, other_order, other_choice = (
        pixels(prepared(*overrides)) for overrides in ([], ["data.order_seed=1"], ["data.seed=1"])
    )
    sums, other_sums = (images.sum(dim=(1, 2, 3)).sort().values for images in (base, other_order))
    assert torch.equal(sums, other_sums)  # the same images ...
    assert not torch.equal(base, other_order)  # ... in another order
    assert not torch.equal(base.sum(dim=0), other_choice.sum(dim=0))


def test_copies_can_fill_up_to_the_other_labels() -> None:
    filled = prepared("data=augmented_100", "data.fill=true", "data.keep=0.01")
    assert filled.class_counts[:5] == [100 * count for count in filled.counts["subsampled"][:5]]
    noisy = filled.train[0][filled.train[1] == 0].unflatten(0, (100, -1))[5::10]
    assert not torch.equal(noisy[0], noisy[1])  # each copy's noise is its own
    assert len(filled.sample()) == 5 * 10
    plain, same = (prepared("data=augmented_100", f"data.fill={fill}") for fill in (False, True))
    assert torch.equal(plain.train[0], same.train[0])  # at 10 % the ten copies fill up already


def test_copies_are_augmented_images_of_the_kept_ones() -> None:
    data = prepared("data=augmented_40")
    original, noisy, left, right = data.sample().unflatten(0, (4, 5)).float()
    assert (noisy - original).std().item() == pytest.approx(0.07 * 255, rel=0.2)  # half is clipped
    assert not torch.equal(left, original)
    torch.testing.assert_close(left.sum(), original.sum(), rtol=0.02, atol=0)
    torch.testing.assert_close(right.sum(), original.sum(), rtol=0.02, atol=0)
    kept, _ = data.kept
    for image in original:
        assert (kept == image).flatten(1).all(dim=1).any()


def test_all_sets_move_to_a_device() -> None:
    data = prepared("data/source=debug")
    data.to(torch.device("meta"))
    assert all(tensor.is_meta for part in (data.train, data.val, data.test) for tensor in part)


@pytest.mark.parametrize("redraw", [True, False])
def test_noise_is_drawn_anew_if_asked_for(redraw: bool) -> None:
    data = prepared("data=augmented_40", f"data.redraw={redraw}")
    samples = []
    for epoch in (0, 1, 1):
        data.epoch(epoch)
        samples.append(data.sample().unflatten(0, (4, 5)))
    clean, noisy = 0, 1
    assert torch.equal(samples[0][clean], samples[1][clean])
    assert torch.equal(samples[0][noisy], samples[1][noisy]) is not redraw
    assert torch.equal(samples[1], samples[2])


def sorted_epoch(data: MNISTData, number: int) -> torch.Tensor:
    """The images of an epoch, in the order of the training set."""
    return data.epoch(number)[0][data.order(number).argsort()]


def test_transforms_are_drawn_for_every_image_and_epoch_from_their_own_seed() -> None:
    copied = ("data/source=debug", "data=duplicated_40")
    plain, transformed, other = (
        prepared(*copied, *overrides)
        for overrides in (
            [],
            ["data/transforms=affine"],
            ["data/transforms=affine", "data.order_seed=1"],
        )
    )
    first, second = (sorted_epoch(transformed, epoch) for epoch in (0, 1))
    assert torch.equal(first, sorted_epoch(transformed, 0))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(first, sorted_epoch(transformed, 0))
    assert torch.equal(torch.get_rng_state(), state)
    for epoch in (second, sorted_epoch(other, 0), sorted_epoch(plain, 0)):
        assert (epoch != first).flatten(1).any(dim=1).float().mean() > 0.9
    same, alike = plain.sample().chunk(4)[:2]
    assert torch.equal(same, alike)  # copies of one image, ...
    copies = first[transformed.train[1] < 5].chunk(4)
    assert not torch.equal(copies[0], copies[1])  # ... which are transformed each for itself
    assert torch.equal(transformed.epoch(1)[1], plain.epoch(1)[1])
    assert torch.equal(transformed.val[0], plain.val[0])
    assert torch.equal(transformed.train[0], plain.train[0])


def test_transforms_are_applied_one_after_the_other() -> None:
    flip = f"{{_target_: {V2}.RandomHorizontalFlip, p: 1}}"
    invert = f"{{_target_: {V2}.RandomInvert, p: 1}}"
    data = prepared("data/source=debug", f"data.transforms=[{flip},{invert}]")
    assert torch.equal(sorted_epoch(data, 0), 255 - data.train[0].flip(3))


class Orders(lightning.Callback):
    """Keeps the labels of each epoch, in the order in which they are trained on."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.labels.append([])

    def on_train_batch_start(self, trainer: object, module: object, batch: object, _: int) -> None:
        self.labels[-1] += batch[1].tolist()  # type: ignore[index]


def test_an_ordinary_trainer_shuffles_every_epoch_anew() -> None:
    orders = Orders()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[orders],
    )
    data = prepared("data/source=debug")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    classifier = Classifier(model, groups=data.groups)
    trainer.fit(classifier, datamodule=data)
    assert orders.labels == [data.epoch(number)[1].tolist() for number in range(3)]
    assert len({tuple(labels) for labels in orders.labels}) == 3
    [validated], [tested] = (
        reach(classifier, datamodule=data, verbose=False)
        for reach in (trainer.validate, trainer.test)
    )
    assert 0 <= validated["val/accuracy"] <= 1
    assert {"test/accuracy_0_4", "test/accuracy_5_9", "test/loss"} <= tested.keys()


def test_a_loader_alone_shuffles_every_pass_anew() -> None:
    data = prepared("data/source=debug")
    loader = data.train_dataloader()
    passes = [torch.cat([labels for _, labels in loader]).tolist() for _ in range(2)]
    assert passes == [data.epoch(number)[1].tolist() for number in range(2)]


def test_without_arguments_it_is_all_of_mnist() -> None:
    data = MNISTData()
    data.setup()
    assert sum(data.class_counts) == 55_000
    assert data.groups == {"all": list(range(10))}


def test_a_batch_is_a_slice_and_reaches_the_model_in_0_to_1() -> None:
    data = prepared("data.batch_size=100")
    images, labels = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8
    assert images.shape == (100, 1, 28, 28)
    assert images.untyped_storage().size() == 29_713 * 28 * 28  # a view, no copy
    scaled, same_labels = data.on_after_batch_transfer((images, labels), 0)
    assert same_labels is labels
    assert scaled.min() == 0
    assert scaled.max() == 1


def test_an_unpacking_that_was_killed_is_repaired(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in ARCHIVES:
        shutil.copy(archive, raw)
    images, _ = load(tmp_path, train=False)
    unpacked = raw / "t10k-images-idx3-ubyte"
    unpacked.write_bytes(unpacked.read_bytes()[:100_000])
    repaired, _ = load(tmp_path, train=False)
    assert torch.equal(images, repaired)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_missing_or_damaged_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [])  # no download, on any machine
    raw = tmp_path / "MNIST" / "raw"
    if damage == "damaged":
        raw.mkdir(parents=True)
        for archive in ARCHIVES:
            content = bytearray(archive.read_bytes())
            content[4000] ^= 255
            (raw / archive.name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"^data\.dir: no whole MNIST archives in .*raw"):
        load(tmp_path, train=True)
    left = {path.name for path in tmp_path.rglob("*")}
    archives = {archive.name for archive in ARCHIVES}
    assert left == ({"MNIST", "raw"} | archives if damage == "damaged" else set())


def test_unpacked_files_without_archives_are_never_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [])
    raw = tmp_path / "MNIST" / "raw"
    load(REPOSITORY / "data", train=True)
    shutil.copytree(REPOSITORY / "data/MNIST/raw", raw, ignore=shutil.ignore_patterns("*.gz"))
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"^data\.dir: no whole MNIST"):
        load(tmp_path, train=False)
    assert len(list(raw.glob("*-ubyte"))) == 4


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


def test_a_profile_that_gives_too_many_or_too_few() -> None:
    with pytest.raises(ConfigError, match=r"^data\.keep: label 1 has 2 images, not 3$"):
        kept_counts(lambda available: [1, 3], minority=[], available=[2, 2])
    with pytest.raises(ConfigError, match=r"^data\.keep: gives 1 counts for 2 labels$"):
        kept_counts(lambda available: [1], minority=[], available=[2, 2])
    with pytest.raises(ConfigError, match=r"^data\.keep: must hold 2 fractions"):
        kept_counts([0.5], minority=[], available=[2, 2])


def test_groups_are_named_by_their_labels() -> None:
    assert list(scored_groups([0, 1, 2, 3, 4], 10)) == ["0-4", "5-9", "all"]
    assert scored_groups([1], 3) == {"1": [1], "0,2": [0, 2], "all": [0, 1, 2]}
    assert name_group([3]) == "3"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.minority=[3,10]", r"data\.minority: there is no label 10"),
        ("data.keep=0.00005", r"data\.keep: 5e-05 leaves no training image of label 0"),
        ("data.val_per_label=5421", r"data\.val_per_label: must be below 5421"),
    ],
)
def test_labels_cannot_be_emptied(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(override)


def test_the_counts_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["counts", "data=augmented_40"])
    counts.main()
    rows = [
        [cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.split("\n")
    ]
    assert ["", "0", "5923", "5423", "542", "2168", "500", "980", ""] in rows
    assert ["", "all", "60000", "55000", "29713", "38140", "5000", "10000", ""] in rows


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.minority=[]"],
            r"data\.keep: no label could lose images; data\.minority names some",
        ),
        (
            ["data.minority=[]", "data.keep=1.0", "data/copies=noise_100"],
            r"data\.copies: no label is copied",
        ),
        (["data.source.name=CIFAR10"], r"data\.source\.name: Input should be 'MNIST', "),
        (["data.source.first=0"], r"data\.source\.first: .* greater than 0, got 0"),
        (["+data.sampler.foo=1"], r"data\.sampler: .*unexpected keyword argument 'foo'"),
        (["data.keep={_target_: builtins.len, _partial_: true}"], r"data\.keep: .*'int' object"),
        ([f"data.transforms=[{{_target_: {V2}.Resize, size: 5}}]"],
         r"data\.transforms: must keep an image \(1, 28, 28\) torch\.uint8, give \(1, 5, 5\) "),
        ([f"data.transforms=[{{_target_: {V2}.ToPILImage}}]"], r"data\.transforms: .*give Image$"),
        ([f"data.transforms=[{{_target_: {V2}.RandomRotation}}]"],
         r"data\.transforms: .* missing 1 required positional argument: 'degrees'"),
        ([f"data.transforms=[{{_target_: {V2}.NoSuch}}]"], r"data\.transforms: Error loading"),
        (["data.transforms=[RandomRotation]"], r"data\.transforms\.0: .* callable, got 'Ran"),
        (["data.transforms=[{_target_: builtins.len, _partial_: true}]"], r"data\.transforms: "),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_called_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        prepared("data/source=debug", *overrides)


def test_without_a_minority_a_sample_shows_all_labels() -> None:
    data = prepared("data/source=debug", "data.minority=[]", "data.keep=1.0")
    assert data.sample().shape == (10, 1, 28, 28)
    assert data.groups == {"all": list(range(10))}


def test_counts_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.keep: must give whole numbers of images"):
        kept_counts(lambda available: [0.5 * n for n in available], [], [4, 4])  # type: ignore[misc]


def test_labels_beyond_the_classes_are_refused() -> None:
    part = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 5])
    images = Images(part, part, num_classes=5)
    with pytest.raises(ConfigError, match=r"^data\.source: labels from 0 to 5, but 5 classes"):
        images.check()
