"""Finished runs as small tables for the terminal."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml
from rich.box import SIMPLE
from rich.table import Table

from mnist_imbalance.labels import MAJORITY, MINORITY, NUM_LABELS
from mnist_imbalance.runs import Result


@cache
def published() -> dict[str, Any]:
    """Read the report's numbers."""
    text = (resources.files("mnist_imbalance") / "published.yaml").read_text(encoding="utf-8")
    numbers: dict[str, Any] = yaml.safe_load(text)
    return numbers


def condition(result: Result) -> str | None:
    """Name the condition of the report's Table 1 that a run re-creates, if it does.

    The model, the data and the loss decide; other changed values are the user's own.
    """
    if result.model != "lstm":
        return None
    if result.loss == "plain":
        return result.data
    weights = result.config.get("loss.weights")
    if result.data == "imbalanced" and weights == published()["loss_weight"]:
        return "weighted"
    return None


def tabulate_run(result: Result) -> Table:
    """Lay out test accuracy by label, by group and overall, the report's beside it."""
    named = condition(result) or ""
    by_label = published()["table_1"].get(named, [])
    in_text = published()["text"].get(named, {})

    def mean(labels: range) -> float | None:
        return sum(by_label[label] for label in labels) / len(labels) if by_label else None

    rows: list[tuple[str, float, float | None, float | None]] = [
        (str(label), accuracy, by_label[label] if by_label else None, None)
        for label, accuracy in enumerate(result.test.accuracy_per_label)
    ]
    rows += [
        ("0-4", result.test.accuracy_0_4, mean(MINORITY), in_text.get("labels_0_4")),
        ("5-9", result.test.accuracy_5_9, mean(MAJORITY), in_text.get("labels_5_9")),
        ("all", result.test.accuracy, mean(range(NUM_LABELS)), in_text.get("overall")),
    ]
    columns = ["label", "test accuracy %"]
    columns += ["report's Table 1"] if by_label else []
    columns += ["report's text"] if in_text else []
    title = (
        f"{result.model}, {result.data}, {result.loss} loss, {result.optimizer}, "
        f"{result.epochs} epochs, seed {result.seed}"
    )
    table = Table(*columns, title=title, min_width=len(title))
    for column in table.columns[1:]:
        column.justify = "right"
    for label, *accuracies in rows:
        shown = ["" if value is None else f"{100 * value:.1f}" for value in accuracies]
        if label == "0-4":
            table.add_section()
        table.add_row(label, *shown[: len(columns) - 1])
    return table


def tabulate_sweep(runs: Sequence[tuple[Sequence[str], Result]]) -> Table:
    """Lay out the accuracies of a sweep's runs, a row a run; choices belong on validation.

    Args:
        runs: Each run's overrides, ``key=value``, and its result. What all share is not shown.
    """
    overrides = [dict(override.split("=", 1) for override in given) for given, _ in runs]
    swept = [key for key in overrides[0] if len({given[key] for given in overrides}) > 1]
    title = "accuracy %: choose by validation, report the test"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for key in swept:
        table.add_column(key, no_wrap=True)
    for scored in ("val", "test"):
        for group in ("0-4", "5-9", "all"):
            table.add_column(f"{scored} {group}", justify="right")
    for given, (_, result) in zip(overrides, runs, strict=True):
        accuracies = [
            accuracy
            for scores in (result.val, result.test)
            for accuracy in (scores.accuracy_0_4, scores.accuracy_5_9, scores.accuracy)
        ]
        shown = [f"{100 * accuracy:.1f}" for accuracy in accuracies]
        table.add_row(*(given[key] for key in swept), *shown)
    return table
