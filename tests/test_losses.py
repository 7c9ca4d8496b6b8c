import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.losses import (
    MinorityWeightedCrossEntropy,
    Normalize,
    WeightedCrossEntropy,
)

NORMALIZE: list[Normalize] = ["weight_sum", "count"]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(32, 10, generator=random), torch.randint(0, 10, (32,), generator=random)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_weights_of_1_give_plain_cross_entropy(
    batch: tuple[torch.Tensor, torch.Tensor], normalize: Normalize
) -> None:
    weighted = WeightedCrossEntropy([1.0] * 10, normalize)
    torch.testing.assert_close(weighted(*batch), functional.cross_entropy(*batch))


def test_equal_weights_matter_to_count_only(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain = functional.cross_entropy(*batch)
    torch.testing.assert_close(WeightedCrossEntropy([3.0] * 10, "weight_sum")(*batch), plain)
    torch.testing.assert_close(WeightedCrossEntropy([3.0] * 10, "count")(*batch), 3 * plain)


def test_both_normalizations_against_a_batch_worked_by_hand() -> None:
    # Label 0 has probability 1/2, label 9 has 1/4, and they weigh 3 and 1.
    logits = torch.full((2, 10), -torch.inf)
    logits[0, [0, 1]] = 0
    logits[1, [6, 7, 8, 9]] = 0
    labels = torch.tensor([0, 9])
    weights = [3.0] + [1.0] * 9
    weighted_sum = 3 * math.log(2) + 1 * math.log(4)
    by_weight = WeightedCrossEntropy(weights, "weight_sum")(logits, labels)
    by_count = WeightedCrossEntropy(weights, "count")(logits, labels)
    assert by_weight.item() == pytest.approx(weighted_sum / 4)
    assert by_count.item() == pytest.approx(weighted_sum / 2)


def test_minority_weight_goes_to_the_minority() -> None:
    loss = MinorityWeightedCrossEntropy(7, minority=[0, 3], num_classes=4)
    assert loss.weights.tolist() == [7, 1, 1, 7]


def test_weights_move_and_are_saved_with_the_module() -> None:
    loss = WeightedCrossEntropy([1.0] * 10, "count")
    assert loss.to("meta").weights.is_meta
    assert list(loss.state_dict()) == ["weights"]
    assert not list(loss.parameters())


@pytest.mark.parametrize("weights", [[1.0] * 9, [1.0] * 11])
def test_there_is_a_weight_for_each_label(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"^loss\.weights: there must be 10, .* got (9|11)$"):
        WeightedCrossEntropy(weights, num_classes=10)


@pytest.mark.parametrize("weights", [[1.0] * 9 + [0.0], [1.0] * 9 + [math.inf]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValidationError, match="weights"):
        WeightedCrossEntropy(weights=weights, normalize="count")
