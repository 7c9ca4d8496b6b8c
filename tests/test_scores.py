import json

import pytest

from mnist_imbalance.scores import Scores


@pytest.fixture
def scores() -> Scores:
    """Label k has 10 * (k + 1) images, of which k + 1 are right, but all of labels 5-9."""
    confusion = [[0] * 10 for _ in range(10)]
    for label, row in enumerate(confusion):
        right = 10 * (label + 1) if label >= 5 else label + 1
        row[label] = right
        row[(label + 1) % 10] += 10 * (label + 1) - right
    return Scores(confusion=confusion, loss=0.5, positive=[1] * 10)


def test_accuracies(scores: Scores) -> None:
    assert scores.accuracy_per_label == pytest.approx([0.1] * 5 + [1.0] * 5)
    groups = {"0-4": range(5), "5-9": range(5, 10), "all": range(10)}
    assert scores.of_groups(groups) == pytest.approx({"0-4": 0.1, "5-9": 1.0})
    assert scores.accuracy == pytest.approx((15 + 400) / 550)  # by images, not by label


def test_a_record_holds_the_accuracies_and_is_read_back(scores: Scores) -> None:
    text = scores.model_dump_json()
    assert json.loads(text)["balanced_accuracy"] == pytest.approx(0.55)
    assert Scores.model_validate_json(text) == scores
