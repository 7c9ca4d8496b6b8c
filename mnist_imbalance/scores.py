"""What a confusion matrix tells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy
from pydantic import BaseModel, NonNegativeInt, computed_field, model_validator

ALL = "all"  # its accuracy is that of all images, not the mean of the labels' own
Groups = Mapping[str, Sequence[int]]  # the labels of each group, by name
Epochs = list[dict[str, Any]]  # of a run, a row an epoch and stage, the columns by name
Predictions = dict[str, numpy.ndarray]  # predicted labels of "val" and "test", (N,) uint8


class Validated(NamedTuple):
    """How a run did on the held-out images over its training.

    Attributes:
        epochs: (E,), counted from 0.
        accuracies: (E, labels), of each label after each epoch, in [0, 1].
    """

    epochs: numpy.ndarray
    accuracies: numpy.ndarray


class Scores(BaseModel, frozen=True):
    """How well a model did on one set of images; every accuracy is in [0, 1].

    Attributes:
        confusion: (C, C) counts of images; rows are the true labels, columns the predicted.
        loss: The training loss's value on the set.
        positive: Images, (C,), for which each label's output is above zero; a label whose output
            never is has died behind an output ReLU.
        positive_of_own: The same of each label's own images; None in records of schema 1.
        metrics: What else was asked for, by name; None where it is not a number.
    """

    confusion: list[list[NonNegativeInt]]
    loss: float
    positive: list[NonNegativeInt]
    positive_of_own: list[NonNegativeInt] | None = None
    metrics: dict[str, float | None] = {}

    @model_validator(mode="after")
    def _check_sizes(self) -> "Scores":
        rows = [*self.confusion, self.positive, self.positive_of_own or self.positive]
        if not self.confusion or any(len(row) != len(self.confusion) for row in rows):
            raise ValueError("confusion and positive must have a row and a column for each label")
        return self

    @computed_field
    @property
    def accuracy(self) -> float:
        """Fraction of all images that are classified correctly."""
        correct = sum(self.confusion[label][label] for label in range(len(self.confusion)))
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
    def balanced_accuracy(self) -> float:
        """Mean of all labels' accuracies; nan if a label has no images."""
        return self.accuracy_of(range(len(self.confusion)))

    def accuracy_of(self, labels: Iterable[int]) -> float:
        """Return the mean of some labels' accuracies (AI3607's "group accuracy")."""
        per_label = self.accuracy_per_label  # once, as each time all labels are counted
        return fmean(per_label[label] for label in labels)

    def of_groups(self, groups: Groups) -> dict[str, float]:
        """Return the accuracy of each group by its name; one that holds all labels is left out."""
        per_label = self.accuracy_per_label
        return {
            name: fmean(per_label[label] for label in labels)
            for name, labels in groups.items()
            if len(labels) < len(per_label)
        }

    def by_group(self, groups: Groups) -> dict[str, float]:
        """Return the accuracy of each group, and of all images, by name."""
        return self.of_groups(groups) | {ALL: self.accuracy}

    def by_name(self, groups: Groups) -> dict[str, float]:
        """Return the accuracy of each label, of each group and of all images, by name."""
        labels = {str(label): value for label, value in enumerate(self.accuracy_per_label)}
        return labels | self.by_group(groups)

    def named(self, groups: Groups) -> dict[str, float]:
        """Return loss, accuracy, each group's accuracy (``accuracy_0_4``) and the other metrics."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            **{
                f"accuracy_{name.replace('-', '_')}": accuracy
                for name, accuracy in self.of_groups(groups).items()
            },
            **{name: math.nan if value is None else value for name, value in self.metrics.items()},
        }
