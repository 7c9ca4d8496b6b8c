"""The runs in which methods are compared, as a data frame.

A method is what a run's condition says beside the images that were kept and the settings that were
tuned: ``vs``, ``mix=mixup``.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy
import pandas

from mnist_imbalance.report.names import place_of_model
from mnist_imbalance.runs import Result, is_cut_short

PLAIN, ORIGINAL = "plain", "original"
TRAINING = ("scheduler", "optimizer.lr", "model.head", "data.keep")  # no part of a setting
TRAINED = ["model", "steps", "optimizer", "rate"]  # what all methods share
IDENTIFYING = [*TRAINED, "keep", "seed", "method", "setting"]
REACHED = ["test", "rare", "frequent", "val", "imbalanced", "seconds", "metrics"]


def method_of(result: Result) -> tuple[str, str]:
    """Return the method of a run and its setting, as on the command line."""
    parts = result.condition.split(", ")
    keys = {part: part.partition("=")[0] for part in parts}
    changed = [part for part in parts if "=" in part and "." in keys[part]]
    named = [part for part in parts if part not in changed and keys[part] not in TRAINING]
    if len(named) > 1 and named[0] == "imbalanced":
        named = named[1:]
    method = ", ".join(named)
    setting = ", ".join(part for part in changed if keys[part] not in TRAINING)
    return PLAIN if method == "imbalanced" else method, setting


def row_of_method(result: Result) -> tuple[Any, ...] | None:
    """Return a run's row in the table of `tabulate_methods`; None where it cannot be compared."""
    if is_cut_short(result.config) or result.seed != result.data_seed:
        return None
    rare, frequent, *_ = [*result.test.of_groups(result.groups).values(), math.nan, math.nan]
    of_labels = numpy.array(result.val.accuracy_per_label)
    weights = numpy.array(result.train_counts) / sum(result.train_counts)
    config = result.config
    return (
        *(result.model, result.steps, result.optimizer, config.get("optimizer.lr")),
        *(config.get("data.keep"), result.seed, *method_of(result)),
        *(result.test.balanced_accuracy, rare, frequent, result.val.balanced_accuracy),
        *(float(weights @ of_labels), result.seconds.fit, result.test.metrics),
    )


def tabulate_methods(rows: Iterable[tuple[Any, ...] | None]) -> pandas.DataFrame:
    """Return the runs in which methods can be compared, a row each.

    Args:
        rows: What `row_of_method` gives of each run.

    Returns:
        Columns of `TRAINED`, keep (the fraction of the rare labels' images), seed, method, setting,
        test, rare and frequent (accuracies of the test set: balanced and of the two groups), val
        and imbalanced (of the validation images: balanced and weighted as the training images are),
        seconds and metrics (what else was scored on the test set). Of equal runs the first counts.
    """
    table = pandas.DataFrame(filter(None, rows), columns=[*IDENTIFYING, *REACHED])
    table = table.drop_duplicates(IDENTIFYING).sort_values(
        ["keep", "seed", *TRAINED[1:]], ascending=[False, *[True] * 4]
    )
    return table.sort_values("model", key=lambda column: column.map(place_of_model), kind="stable")
