"""Mixes, against what their papers say, and with every loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from mnist_imbalance.classifier import Classifier
from mnist_imbalance.runs import RunFolder
from torch import nn
from torch.nn import functional

from mnist_imbalance.data.sources import load
from mnist_imbalance.methods.losses import WeightedCrossEntropy
from mnist_imbalance.methods.mixes import CutMix, Mixup, Remix

COUNTS = [300, 100, 99, 30]  # κ = 3: 0 has far more than all others, 1 and 2 than 3
FAR_MORE = {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)}
PAIRS = [(first, second) for first in range(4) for second in range(4)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """64 of MNIST's test images with 4 labels."""
    images, labels = load(REPOSITORY / "data", train=False)
    return images[:64] / 255, labels[:64] % 4


def test_mixup_of_zhang_2018() -> None:
    images, _ = digits()
    numbers = torch.arange(64)  # as labels: which image is mixed with which
    mixed, first, second, share = Mixup(alpha=1)(images, numbers)
    assert torch.equal(first, numbers)
    assert torch.equal(second.sort().values, numbers)
    assert (second != numbers).sum() > 50
    torch.testing.assert_close(mixed, share * images + (1 - share) * images[second])


def test_cutmix_of_yun_2019() -> None:
    images, _ = digits()
    numbers = torch.arange(64)
    parts = set()
    for _ in range(20):
        mixed, first, second, share = CutMix(alpha=1)(images, numbers)
        assert torch.equal(first, numbers)
        boxed = (mixed != images).any(dim=(0, 1))  # (H, W), where any image has changed
        rows, columns = boxed.any(dim=1).nonzero(), boxed.any(dim=0).nonzero()
        if len(rows):
            box = (..., slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            assert torch.equal(mixed[box], images[second][box])
            assert boxed.sum() <= round((1 - share) * 28 * 28)
        parts.add(share)
    assert len(parts) > 10 and min(parts) >= 0 and max(parts) <= 1


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
    images, labels = digits()
    mix = Remix(COUNTS, alpha=1, kappa=3, tau=tau)
    seen = set()
    for _ in range(40):
        state = torch.get_rng_state()
        mixed, first, second, share = mix(images, labels)
        torch.set_rng_state(state)
        same_images, own, others, same_share = Mixup(1)(images, labels)
        assert torch.equal(mixed, same_images) and share == same_share
        found = set(zip(*(each.tolist() for each in (own, others, first, second)), strict=True))
        if share < tau:  # the first label's share is 0 where it is far more frequent
            kind = "low"
            expected = {(i, j): (j, j) if (i, j) in FAR_MORE else (i, j) for i, j in PAIRS}
        elif 1 - share < tau:  # it is 1 where the second is
            kind = "high"
            expected = {(i, j): (i, i) if (j, i) in FAR_MORE else (i, j) for i, j in PAIRS}
        else:
            kind = "between"
            expected = {pair: pair for pair in PAIRS}
        assert {((i, j), (k, m)) for i, j, k, m in found} <= expected.items()
        seen |= {(kind, i, j) for i, j, *_ in found}
    assert len(seen) == len(PAIRS) * (2 if tau == 0.5 else 3)


@pytest.mark.parametrize("mix", [Mixup(1), Remix(COUNTS, alpha=1, kappa=3, tau=0.5)])
def test_the_loss_is_cross_entropy_with_both_labels_shares(mix: nn.Module) -> None:
    images, labels = digits()
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 4)), mix=mix)
    state = torch.get_rng_state()
    loss = classifier.step((images, labels), "train")
    torch.set_rng_state(state)
    mixed, first, second, share = mix(images, labels)
    targets = [functional.one_hot(each, 4).float() for each in (first, second)]
    target = share * targets[0] + (1 - share) * targets[1]
    torch.testing.assert_close(loss, functional.cross_entropy(classifier(mixed), target))


def test_any_loss_is_that_of_the_first_and_the_second_labels_and_nothing_else_is_mixed() -> None:
    def reverse(images: torch.Tensor, labels: torch.Tensor) -> Any:
        return images.flip(0), labels, labels.flip(0), 0.25

    images, labels = digits()
    weighted = WeightedCrossEntropy([6.0, 7.0, 1.0, 1.0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 4))
    classifier = Classifier(model, weighted, mix=reverse)
    logits = model(images.flip(0))
    expected = 0.25 * weighted(logits, labels) + 0.75 * weighted(logits, labels.flip(0))
    assert torch.equal(classifier.step((images, labels), "train"), expected)
    unmixed = weighted(model(images), labels)
    for stage in ("val", "test"):
        assert torch.equal(classifier.step((images, labels), stage), unmixed)


SHORT = ("data/source=debug", "trainer=cpu", "trainer.max_epochs=2", "optimizer=adam")


def test_remix_with_a_kappa_beyond_all_counts_trains_as_mixup_to_the_bit(
    train_here: Callable[..., Path], tmp_path: Path
) -> None:
    def trained(name: str, *mix: str) -> tuple[dict[str, torch.Tensor], Any]:
        folder = train_here(*SHORT, *mix)
        result = RunFolder(folder).result()
        assert result is not None
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        (tmp_path / "runs").rename(tmp_path / name)
        return state, (result.train, result.val, result.test)

    mixup, beyond, remix, plain = (
        trained(name, *mix)
        for name, mix in {
            "mixup": ["mix=mixup"],
            "beyond": ["mix=remix", "mix.kappa=1e9"],
            "remix": ["mix=remix"],
            "plain": [],
        }.items()
    )
    torch.testing.assert_close(mixup[0], beyond[0], rtol=0, atol=0)
    assert mixup[1] == beyond[1]
    assert mixup[0].keys() == remix[0].keys() == plain[0].keys()
    assert len({each[1][1].loss for each in (mixup, remix, plain)}) == 3


@pytest.mark.parametrize("loss", ["weighted", "per_label", "focal", "ldam_drw"])
def test_a_mix_works_with_every_kind_of_loss(train_here: Callable[..., Path], loss: str) -> None:
    cosine = ("model.head=cosine", "model.output_bias=null", "model.output_relu=false")
    head = cosine if loss == "ldam_drw" else ()
    folder = train_here(*SHORT, f"loss={loss}", "mix=remix", "mix.alpha=0.5", *head)
    result = RunFolder(folder).result()
    assert result is not None
    assert f"{loss}, data/source=debug, mix=remix, mix.alpha=0.5" in result.condition
    assert sum(map(sum, result.train.confusion)) == sum(result.train_counts)


def test_a_mix_that_cannot_be_called_is_named_before_training(
    train_here: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"^error: mix: "):
        train_here(*SHORT, "+mix._target_=torch.add", "+mix._partial_=true")
    assert not list(tmp_path.rglob("config.yaml"))
