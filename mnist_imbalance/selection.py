"""Choosing loss weights by what a sweep of them reached."""

import math
from collections.abc import Mapping

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.labels import MAJORITY, MINORITY
from mnist_imbalance.scores import Scores


def best_minority_weight(sweep: Mapping[float, Scores]) -> float:
    """Find the weight with the highest mean accuracy of labels 0-4 (AI3607, section 5.2).

    Args:
        sweep: Scores by the weight of labels 0-4; of equals, the smallest weight wins.
    """
    return max(sorted(sweep), key=lambda weight: sweep[weight].accuracy_0_4)


def best_weight(sweep: Mapping[float, Scores], label: int) -> float:
    """Find the weight at which one label is most accurate, the smallest of equals.

    Raises:
        ConfigError: The label has no images to choose by.
    """
    if any(math.isnan(scores.accuracy_per_label[label]) for scores in sweep.values()):
        raise ConfigError(f"loss.weights: label {label} has no validation image to choose by")
    return max(sorted(sweep), key=lambda weight: sweep[weight].accuracy_per_label[label])


def best_weights(sweep: Mapping[float, Scores]) -> list[float]:
    """Return the best weight for each of labels 0-4, and 1 for 5-9 (AI3607, section 5.2)."""
    return [best_weight(sweep, label) for label in MINORITY] + [1] * len(MAJORITY)
