"""Moved to `mnist_imbalance.records.identity`."""

from mnist_imbalance.records.identity import (
    BUDGET,
    CHOICES,
    NAMED_IF_CHANGED,
    SEEDS,
    changes,
    name_condition,
    named_choices,
)

__all__ = [
    "BUDGET",
    "CHOICES",
    "NAMED_IF_CHANGED",
    "SEEDS",
    "changes",
    "name_condition",
    "named_choices",
]
