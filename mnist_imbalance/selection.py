"""Choosing loss weights by what a sweep of them reached."""

from collections.abc import Mapping

from mnist_imbalance.labels import MAJORITY, MINORITY
from mnist_imbalance.scores import Scores


def best_minority_weight(sweep: Mapping[float, Scores]) -> float:
    """Find the weight with the highest mean accuracy of labels 0-4 (report, section 5.2).

    Args:
        sweep: Scores by the weight of labels 0-4; of equals, the smallest weight wins.
    """
    return max(sorted(sweep), key=lambda weight: sweep[weight].accuracy_0_4)


def best_weight(sweep: Mapping[float, Scores], label: int) -> float:
    """Find the weight at which one label is most accurate, the smallest of equals."""
    return max(sorted(sweep), key=lambda weight: sweep[weight].accuracy_per_label[label])


def best_weights(sweep: Mapping[float, Scores]) -> list[float]:
    """Give each of labels 0-4 its own best weight and 5-9 the weight 1 (report, section 5.2)."""
    return [best_weight(sweep, label) for label in MINORITY] + [1] * len(MAJORITY)
