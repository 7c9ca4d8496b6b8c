import pytest
from handmade import groups, scores

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.scores import Scores
from mnist_imbalance.selection import best_minority_weight, best_weights

SWEEP = {
    10.0: scores([0.9, 0.5, 0.7, 0.1, 0.1, *[1.0] * 5]),
    2.0: scores([0.1, 0.5, 0.8, 0.1, 0.1, *[0.0] * 5]),
    5.0: scores([0.5, 0.5, 0.8, 0.2, 0.1, *[0.0] * 5]),
}


def test_the_best_weight_of_a_label_is_the_smallest_of_equals() -> None:
    assert best_weights(SWEEP, range(5))[:5] == [10, 2, 2, 5, 2]


def test_labels_5_to_9_weigh_1() -> None:
    assert best_weights(SWEEP, range(5))[5:] == [1] * 5


def test_one_weight_is_chosen_by_labels_0_to_4_alone() -> None:
    assert best_minority_weight(SWEEP, range(5)) == 10
    sweep = {2.0: scores(groups(0.6, 0.1)), 3.0: scores(groups(0.5, 0.9))}
    assert best_minority_weight(sweep, range(5)) == 2


def test_a_label_without_images_chooses_nothing() -> None:
    confusion = [*([0] * label + [9] + [0] * (9 - label) for label in range(9)), [0] * 10]
    blind = Scores(confusion=confusion[::-1], loss=0.5, positive=[9] * 10)
    with pytest.raises(ConfigError, match=r"^loss\.weights: label 0 has no validation image"):
        best_weights(SWEEP | {3.0: blind}, range(5))
