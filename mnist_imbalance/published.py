"""The numbers that AI3607 publishes, of its LSTM."""

import math
from functools import cache
from importlib import resources
from typing import Any

import yaml

OPTIMIZER = "sgd"  # as we read AI3607, which names none
GROUPS = {"0-4": [*range(5)], "5-9": [*range(5, 10)], "all": [*range(10)]}


@cache
def published() -> dict[str, Any]:
    """Return AI3607's numbers."""
    text = (resources.files("mnist_imbalance.report") / "published.yaml").read_text(encoding="utf-8")
    numbers: dict[str, Any] = yaml.safe_load(text)
    return numbers


def published_accuracy(condition: str, label: str) -> float:
    """Return an accuracy of AI3607's Table 1, a group's as the mean of its labels'.

    Args:
        condition: A column of Table 1; nan for another one.
        label: "0" to "9", "0-4", "5-9" or "all"; nan for another one.
    """
    of_labels: list[float] = published()["table_1"].get(condition)
    if of_labels is None:
        return math.nan
    by_label = {str(each): [each] for each in range(len(of_labels))}
    labels = (by_label | GROUPS).get(label, [])
    return sum(of_labels[each] for each in labels) / len(labels) if labels else math.nan


def published_in_text(condition: str, label: str) -> float:
    """Return an accuracy that AI3607's sections state, which differ from its Table 1."""
    names = {"0-4": "labels_0_4", "5-9": "labels_5_9", "all": "overall"}
    in_text: dict[str, float] = published()["text"].get(condition, {})
    return in_text.get(names.get(label, ""), math.nan)
