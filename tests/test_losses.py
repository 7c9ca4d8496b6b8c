"""Losses, against numbers worked out from their papers' formulas."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import composed
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from mnist_imbalance.config import build
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.losses import (
    AdjustedCrossEntropy,
    GroupDRO,
    MinorityWeightedCrossEntropy,
    WeightedCrossEntropy,
    class_balanced,
    focal,
    inverse_frequency,
    label_aware_smoothing,
    ldam,
    vs,
)
from mnist_imbalance.models.heads import CosineLinear

Batch = tuple[Tensor, Tensor]
ONE_PERCENT = [54, 62, 55, 56, 53, 4921, 5418, 5765, 5351, 5449]
IMBALANCED = [542, 624, 546, 563, 534, 4921, 5418, 5765, 5351, 5449]
ONE_IMAGE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])


def built(method: str, *overrides: str) -> Any:
    """Return a choice of ``conf/loss`` for the set of which 1 % of the rare labels is kept."""
    config = composed(f"loss={method}", *overrides)
    known = {"class_counts": ONE_PERCENT, "num_classes": 10, "head": config.model.head}
    return build(config, "loss", known)


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    return torch.randn(64, 10, generator=random), torch.randint(0, 10, (64,), generator=random)


# AI3607's weights


def test_both_normalizations_against_a_batch_worked_by_hand(batch: Batch) -> None:
    # Label 0 has probability 1/2, label 9 has 1/4, and they weigh 3 and 1.
    logits = torch.full((2, 10), -torch.inf)
    logits[0, [0, 1]] = 0
    logits[1, [6, 7, 8, 9]] = 0
    labels = torch.tensor([0, 9])
    weights = [3.0] + [1.0] * 9
    summed = 3 * math.log(2) + 1 * math.log(4)
    by_weight, by_count = (
        WeightedCrossEntropy(weights, divisor)(logits, labels).item()
        for divisor in ("weight_sum", "count")
    )
    assert by_weight == pytest.approx(summed / 4)
    assert by_count == pytest.approx(summed / 2)
    plain = functional.cross_entropy(*batch)
    torch.testing.assert_close(WeightedCrossEntropy([3.0] * 10)(*batch), plain)
    torch.testing.assert_close(WeightedCrossEntropy([3.0] * 10, "count")(*batch), 3 * plain)


def test_minority_weight_goes_to_the_minority_and_is_saved() -> None:
    loss = MinorityWeightedCrossEntropy(7, minority=[0, 3], num_classes=4)
    assert loss.weights.tolist() == [7, 1, 1, 7]
    assert list(loss.state_dict()) == ["weights"]
    assert not list(loss.parameters())


@pytest.mark.parametrize("number", [9, 11])
def test_there_is_a_weight_for_each_label(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"^loss\.weights: there must be 10, .* got {number}$"):
        WeightedCrossEntropy([1.0] * number, num_classes=10)


@pytest.mark.parametrize("weight", [0.0, math.inf])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValidationError, match="weights"):
        WeightedCrossEntropy(weights=[1.0] * 9 + [weight])


# the formula


def test_focal_of_lin_2017() -> None:
    assert focal(3)(*ONE_IMAGE).item() == pytest.approx(0.045678, abs=1e-6)
    weighted = focal(3, weights=[7, 1, 1])(*ONE_IMAGE).item()
    assert weighted == pytest.approx(0.319745, abs=1e-6)  # within p it would be 2.533708


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (
            class_balanced(IMBALANCED).weights,  # Cui 2019
            [1.8253, 1.5919, 1.8123, 1.7591, 1.8519, 0.2478, 0.2302, 0.2198, 0.2324, 0.2292],
        ),
        (
            ldam(IMBALANCED, "cosine", scale=1).margins,  # Cao 2019
            [0.4981, 0.4809, 0.4972, 0.4934, 0.5, 0.2870, 0.2802, 0.2758, 0.2810, 0.2798],
        ),
        (
            vs(IMBALANCED).scales,  # Kini 2021
            [0.4920, 0.5132, 0.4931, 0.4976, 0.4898, 0.9536, 0.9815, 1, 0.9779, 0.9832],
        ),
    ],
)
def test_numbers_of_the_imbalanced_set(number: Tensor, expected: Sequence[float]) -> None:
    assert number.tolist() == pytest.approx(expected, abs=6e-5)


def test_balanced_softmax_of_ren_2020_and_logit_adjustment_of_menon_2021() -> None:
    adjusted = vs([10, 100, 1000], gamma=0, tau=1)(*ONE_IMAGE).item()
    assert adjusted == pytest.approx(2.902098, abs=1e-6)
    more = vs([70, 700, 7000], gamma=0, tau=1)(*ONE_IMAGE).item()
    assert more == pytest.approx(adjusted, abs=1e-6)
    with pytest.raises(ValidationError, match="class_counts"):
        vs(class_counts=[0, 100, 1000])


def test_ldam_of_cao_2019(batch: Batch) -> None:
    features, labels = batch
    logits = CosineLinear(10, 10)(features)  # of a model: 30 cosines
    without_margin = ldam(IMBALANCED, "cosine", max_margin=0)(logits, labels)
    torch.testing.assert_close(without_margin, functional.cross_entropy(logits, labels))
    own = functional.one_hot(labels, 10) * ldam(IMBALANCED, "cosine", scale=1).margins
    expected = functional.cross_entropy(30 * (logits / 30 - own), labels)
    torch.testing.assert_close(ldam(IMBALANCED, "cosine")(logits, labels), expected)


def test_the_last_fifth_of_ldam_drw_has_the_loss_of_its_authors(batch: Batch) -> None:
    logits, labels = 30 * batch[0].tanh(), batch[1]
    loss = built("ldam_drw", "model.head=cosine")
    loss.start_epoch(0.8)
    weights = (1 - 0.9999) / (1 - 0.9999 ** torch.tensor(ONE_PERCENT, dtype=torch.float64))
    weights = (weights / weights.sum() * 10).float()
    margins = 1 / torch.tensor(ONE_PERCENT) ** 0.25
    margins = margins * (0.5 / margins.max())
    shifted = logits / 30 - functional.one_hot(labels, 10) * margins
    expected = functional.cross_entropy(30 * shifted, labels, weight=weights)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_deferred_weights_and_class_balanced_focal_from_one_word(batch: Batch) -> None:
    weights = class_balanced(ONE_PERCENT).weights
    deferred = built("ce_drw")
    torch.testing.assert_close(deferred(*batch), functional.cross_entropy(*batch))
    deferred.start_epoch(0.8)
    torch.testing.assert_close(deferred(*batch), functional.cross_entropy(*batch, weight=weights))
    p = batch[0].softmax(dim=1).gather(1, batch[1].unsqueeze(1)).squeeze(1)
    expected = (weights[batch[1]] * (1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(built("class_balanced_focal")(*batch), expected)


def test_label_aware_smoothing_of_zhong_2021(batch: Batch) -> None:
    smoothing = label_aware_smoothing([100, 550, 1000], most=0.3, least=0).smoothing
    assert smoothing.tolist() == pytest.approx([0, 0.3 * 0.5**0.5, 0.3])
    equal = label_aware_smoothing(IMBALANCED, most=0.2, least=0.2)(*batch)
    expected = functional.cross_entropy(*batch, label_smoothing=0.2)
    torch.testing.assert_close(equal, expected)


@pytest.mark.parametrize("normalize", ["count", "weight_sum"])
def test_both_divisors(batch: Batch, normalize: Any) -> None:
    loss = inverse_frequency(IMBALANCED, normalize=normalize)
    losses = loss.weights[batch[1]] * functional.cross_entropy(*batch, reduction="none")
    divisor: Any = {"count": 64, "weight_sum": loss.weights[batch[1]].sum()}[normalize]
    torch.testing.assert_close(loss(*batch), losses.sum() / divisor)


@pytest.mark.parametrize(
    "loss",
    [
        focal(10, gamma=0),
        class_balanced(IMBALANCED, beta=0),
        inverse_frequency(IMBALANCED, power=0),
        vs(IMBALANCED, gamma=0, tau=0),
        label_aware_smoothing(IMBALANCED, most=0, least=0),
        vs(IMBALANCED, deferred=0.5),
    ],
)
def test_neutral_numbers_train_as_plain_cross_entropy_to_the_bit(
    batch: Batch, loss: AdjustedCrossEntropy
) -> None:
    logits, labels = batch[0].requires_grad_(), batch[1]
    [gradient] = torch.autograd.grad(loss(logits, labels), logits)
    [plain] = torch.autograd.grad(functional.cross_entropy(logits, labels), logits)
    assert torch.equal(gradient, plain)


def test_group_dro_of_sagawa_2020(batch: Batch) -> None:
    logits, labels = batch[0].requires_grad_(), batch[1].clamp(max=8)  # no image of label 9
    loss = GroupDRO(10, step=0.5)
    means = [functional.cross_entropy(logits[labels == y], labels[labels == y]) for y in range(9)]
    grown = [0.1 * math.exp(0.5 * mean.item()) for mean in means] + [0.1]
    weights = [weight / sum(grown) for weight in grown]
    expected = sum(w * mean.item() for w, mean in zip(weights, means, strict=False))
    assert loss(logits, labels).item() == pytest.approx(expected, abs=1e-5)
    loss(logits.detach(), labels)  # scoring leaves the weights as they are
    assert loss.weights.tolist() == pytest.approx(weights, abs=1e-6)


def test_impossible_values_are_named() -> None:
    with pytest.raises(TypeError, match="no numbers of the formula: margin"):
        AdjustedCrossEntropy(10, margin=torch.ones(10))
    with pytest.raises(ConfigError, match=r"^model\.head: ldam needs cosine"):
        ldam(IMBALANCED, "linear")
    with pytest.raises(ConfigError, match=r"^loss\.weights, loss\.beta: "):
        focal(2, weights=[1, 2], class_counts=[1, 2], beta=0.9)
    with pytest.raises(ConfigError, match=r"^loss\.most: "):
        label_aware_smoothing(IMBALANCED, most=0.1, least=0.2)
