"""Mixes, against what their papers say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.methods.losses import WeightedCrossEntropy
from mnist_imbalance.methods.mixes import CutMix, Mixup, Remix
from mnist_imbalance.training.classifier import Classifier

COUNTS = [300, 100, 99, 30]  # κ = 3: 0 has far more than all others, 1 and 2 than 3
FAR_MORE = {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)}
PAIRS = [(first, second) for first in range(4) for second in range(4)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def batch() -> tuple[Tensor, Tensor]:
    """64 images with 4 labels."""
    return torch.rand(64, 1, 28, 28), torch.randint(0, 4, (64,))


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4))


def test_mixup_of_zhang_2018() -> None:
    images, numbers = batch()[0], torch.arange(64)  # as labels: which image is mixed with which
    mixed, first, second, share = Mixup(alpha=1)(images, numbers)
    assert torch.equal(first, numbers)
    assert torch.equal(second.sort().values, numbers)
    assert (second != numbers).sum() > 50
    torch.testing.assert_close(mixed, share * images + (1 - share) * images[second])


def test_cutmix_of_yun_2019() -> None:
    images, numbers = batch()[0], torch.arange(64)
    shares = set()
    for _ in range(20):
        mixed, first, second, share = CutMix(alpha=1)(images, numbers)
        assert torch.equal(first, numbers)
        changed = (mixed != images).any(dim=(0, 1))  # (H, W), where any image has changed
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        if len(rows):
            box = (..., slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            assert torch.equal(mixed[box], images[second][box])
        assert changed.sum() == round((1 - share) * 28 * 28)
        shares.add(share)
    assert len(shares) > 10 and min(shares) >= 0 and max(shares) <= 1


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0])
def test_the_share_of_zhang_2018_is_beta_distributed(alpha: float) -> None:
    mix = Mixup(alpha)
    one = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    shares = torch.tensor([mix(*one)[3] for _ in range(4000)])
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


@pytest.mark.parametrize("tau", [0.5, 0.2])
def test_remix_of_chou_2020(tau: float) -> None:
    """Section 3, worked out by hand for every pair of labels."""
    images, labels = batch()
    mix = Remix(COUNTS, alpha=1, kappa=3, tau=tau)
    seen = set()
    for _ in range(40):
        state = torch.get_rng_state()
        mixed, first, second, share = mix(images, labels)
        torch.set_rng_state(state)
        same_images, own, others, same_share = Mixup(1)(images, labels)
        assert torch.equal(mixed, same_images) and share == same_share
        columns = (labels.tolist() for labels in (own, others, first, second))
        found = {((i, j), (k, m)) for i, j, k, m in zip(*columns, strict=True)}
        if share < tau:  # the first label's share is 0 where it is far more frequent
            expected = {(i, j): (j, j) if (i, j) in FAR_MORE else (i, j) for i, j in PAIRS}
        elif 1 - share < tau:  # it is 1 where the second is
            expected = {(i, j): (i, i) if (j, i) in FAR_MORE else (i, j) for i, j in PAIRS}
        else:
            expected = {pair: pair for pair in PAIRS}
        assert found <= expected.items()
        seen |= found
    assert {pair for pair, _ in seen} == set(PAIRS)


def test_remix_with_a_kappa_beyond_all_counts_is_mixup() -> None:
    images, labels = batch()
    state = torch.get_rng_state()
    beyond = Remix(COUNTS, alpha=1, kappa=1e9, tau=0.5)(images, labels)
    torch.set_rng_state(state)
    for found, expected in zip(beyond[:3], Mixup(1)(images, labels)[:3], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mix", [Mixup(1), Remix(COUNTS, alpha=1, kappa=3, tau=0.5)])
def test_the_loss_is_cross_entropy_with_both_labels_shares(mix: nn.Module) -> None:
    images, labels = batch()
    classifier = Classifier(linear(), mix=mix)
    state = torch.get_rng_state()
    loss = classifier.step((images, labels), "train")
    torch.set_rng_state(state)
    mixed, first, second, share = mix(images, labels)
    targets = [functional.one_hot(labels, 4).float() for labels in (first, second)]
    target = share * targets[0] + (1 - share) * targets[1]
    torch.testing.assert_close(loss, functional.cross_entropy(classifier(mixed), target))


def test_any_loss_is_shared_by_both_labels_and_only_training_images_are_mixed() -> None:
    def reverse(images: Tensor, labels: Tensor) -> Any:
        return images.flip(0), labels, labels.flip(0), 0.25

    images, labels = batch()
    weighted, model = WeightedCrossEntropy([6.0, 7.0, 1.0, 1.0]), linear()
    classifier = Classifier(model, weighted, mix=reverse)
    logits = model(images.flip(0))
    expected = 0.25 * weighted(logits, labels) + 0.75 * weighted(logits, labels.flip(0))
    assert torch.equal(classifier.step((images, labels), "train"), expected)
    for split in ("val", "test"):
        assert torch.equal(
            classifier.step((images, labels), split), weighted(model(images), labels)
        )
