"""What a confusion matrix tells."""

import math
from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, NonNegativeInt, computed_field

from mnist_imbalance.labels import MAJORITY, MINORITY, NUM_LABELS

Item = TypeVar("Item")
Ten = Annotated[list[Item], Field(min_length=NUM_LABELS, max_length=NUM_LABELS)]


class Scores(BaseModel, frozen=True):
    """How well a model did on one set of images; every accuracy is in [0, 1].

    Attributes:
        confusion: (10, 10) counts of images; rows are the true labels, columns the predicted.
        loss: The training loss's value on the set.
        positive: Images, (10,), for which each label's output is above zero; a label whose output
            never is has died behind an output ReLU.
        positive_of_own: The same of each label's own images; None in records of schema 1.
    """

    confusion: Ten[Ten[NonNegativeInt]]
    loss: float
    positive: Ten[NonNegativeInt]
    positive_of_own: Ten[NonNegativeInt] | None = None

    @computed_field
    @property
    def accuracy(self) -> float:
        """Fraction of all images that are classified correctly."""
        correct = sum(self.confusion[label][label] for label in range(NUM_LABELS))
        return correct / sum(map(sum, self.confusion))

    @computed_field
    @property
    def accuracy_per_label(self) -> list[float]:
        """Fraction of each label's images that is classified correctly; nan if it has none."""
        return [
            row[label] / sum(row) if any(row) else math.nan
            for label, row in enumerate(self.confusion)
        ]

    @computed_field
    @property
    def accuracy_0_4(self) -> float:
        """Mean of the accuracies of labels 0-4."""
        return self._mean(MINORITY)

    @computed_field
    @property
    def accuracy_5_9(self) -> float:
        """Mean of the accuracies of labels 5-9."""
        return self._mean(MAJORITY)

    def by_name(self) -> dict[str, float]:
        """Give the accuracy of "0" to "9", "0-4", "5-9" and "all"."""
        named = {str(label): value for label, value in enumerate(self.accuracy_per_label)}
        return named | {"0-4": self.accuracy_0_4, "5-9": self.accuracy_5_9, "all": self.accuracy}

    def _mean(self, labels: Iterable[int]) -> float:
        accuracies = [self.accuracy_per_label[label] for label in labels]
        return sum(accuracies) / len(accuracies)
