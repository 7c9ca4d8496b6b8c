"""Finished runs as small tables for the terminal."""

import sys
from collections.abc import Iterable, Sequence
from math import isnan

from hydra.core.utils import JobReturn
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mnist_imbalance.jobs import Outcome
from mnist_imbalance.published import published, published_accuracy, published_in_text
from mnist_imbalance.runs import Result


def published_condition(result: Result) -> str | None:
    """Return the condition of AI3607's Table 1 that a run re-creates, if it does.

    The model, the data and the loss decide, and that the images are MNIST's and labels 0-4 rare;
    other changed values are the user's own.
    """
    other_data = any(key.startswith(("data.source.", "data.minority")) for key in result.config)
    if result.model != "lstm" or other_data:
        return None
    if result.loss == "plain":
        return result.data
    weights = result.config.get("loss.weights")
    if result.data == "imbalanced" and weights == published()["loss_weight"]:
        return "per_label"
    return None


def tabulate_run(result: Result) -> Table:
    """Return the table of test accuracy by label, by group and overall, AI3607's beside it."""
    named = published_condition(result) or ""
    columns = ["label", "test accuracy %"]
    columns += ["AI3607's Table 1"] if named in published()["table_1"] else []
    columns += ["AI3607's text"] if named in published()["text"] else []
    title = (
        f"{result.model}, {result.data}, {result.loss} loss, {result.optimizer}, "
        f"{result.epochs} epochs, seed {result.seed}"
    )
    table = Table(*columns, title=title, min_width=len(title))
    for column in table.columns[1:]:
        column.justify = "right"
    first_group = next(iter(result.groups))
    for label, accuracy in result.test.by_name(result.groups).items():
        values = [accuracy, published_accuracy(named, label), published_in_text(named, label)]
        shown = ["" if isnan(value) else f"{100 * value:.1f}" for value in values]
        if label == first_group:
            table.add_section()
        table.add_row(label, *shown[: len(columns) - 1])
    return table


def tabulate_sweep(runs: Sequence[tuple[Sequence[str], Outcome]]) -> Table:
    """Return the table of a sweep's accuracies, a row a run; choices belong on validation.

    Args:
        runs: Each run's overrides, ``key=value``, and how it ended. What all share is not shown.
    """
    groups = list(dict.fromkeys(group for _, outcome in runs for group in outcome["test"]))
    overrides = [dict(override.split("=", 1) for override in given) for given, _ in runs]
    swept = [key for key in overrides[0] if len({given[key] for given in overrides}) > 1]
    title = "accuracy %: choose by validation, report the test"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for key in swept:
        table.add_column(key, no_wrap=True)
    for scored in ("val", "test"):
        for group in groups:
            table.add_column(f"{scored} {group}", justify="right")
    for given, (_, outcome) in zip(overrides, runs, strict=True):
        accuracies = (outcome["val"], outcome["test"])
        shown = [
            f"{100 * named[group]:.1f}" if group in named else ""
            for named in accuracies
            for group in groups
        ]
        table.add_row(*(given[key] for key in swept), *shown)
    return table


def show_sweep(returned: Iterable[JobReturn]) -> None:
    """Print what the jobs of a sweep reached.

    Raises:
        SystemExit: Some failed; the text has a line for each.
    """
    jobs: list[tuple[list[str], Outcome]] = [
        (list(job.overrides or []), job.return_value) for job in returned
    ]
    if done := [job for job in jobs if job[1]["failure"] is None]:
        Console().print(tabulate_sweep(done))
    failed = [
        f"{' '.join(overrides)}: {outcome['failure']}"
        for overrides, outcome in jobs
        if outcome["failure"] is not None
    ]
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of {len(jobs)} jobs failed", *failed]))
