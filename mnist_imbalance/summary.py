"""Finished runs as small tables for the terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from math import isnan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from hydra.core.utils import JobReturn
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mnist_imbalance.files import as_seen_from_here
from mnist_imbalance.jobs import Outcome
from mnist_imbalance.published import published, published_accuracy, published_in_text
from mnist_imbalance.runs import Result, RunFolder


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


def mean_over_seeds(accuracies: Sequence[float]) -> str:
    """Return the mean in %, of several ± half of its 95 % interval, which takes them for normal."""
    mean = f"{100 * fmean(accuracies):.1f}"
    n = len(accuracies)
    if n == 1:
        return mean
    from scipy.stats import t  # takes most of a second

    half = t.ppf(0.975, n - 1) * stdev(accuracies) / sqrt(n)
    return f"{mean} ± {100 * half:.1f}"


def tabulate_sweep(
    runs: Sequence[tuple[Sequence[str], Outcome]], split: Literal["val", "test"]
) -> Table:
    """Return the table of a sweep's accuracies, a row for what was swept but the seed.

    Args:
        runs: Each run's overrides, ``key=value``, and how it ended. What all share is not shown.
        split: Whose accuracies.
    """
    groups = list(dict.fromkeys(group for _, outcome in runs for group in outcome[split]))
    overrides = [dict(override.split("=", 1) for override in given) for given, _ in runs]
    swept = [
        key
        for key in overrides[0]
        if key != "seed" and len({given[key] for given in overrides}) > 1
    ]
    rows: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for given, (_, outcome) in zip(overrides, runs, strict=True):
        rows.setdefault(tuple(given[key] for key in swept), []).append(outcome[split])
    title = f"{split} accuracy %" + (": choose by it" if split == "val" else "")
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.min_width = len(title)
    for key in swept:
        table.add_column(key, overflow="fold")
    for name in ("n", *groups):
        table.add_column(name, justify="right", no_wrap=True)
    for values, of_seeds in rows.items():
        known = [[each[group] for each in of_seeds if group in each] for group in groups]
        shown = [mean_over_seeds(each) if each else "" for each in known]
        table.add_row(*values, str(len(of_seeds)), *shown)
    return table


def show_sweep(returned: Iterable[JobReturn]) -> None:
    """Print what the jobs of a sweep reached.

    Raises:
        SystemExit: Some failed; the text has a line for each.
    """
    jobs: list[tuple[list[str], Outcome]] = [
        (list(job.overrides or []), job.return_value) for job in returned
    ]
    once = {outcome["folder"]: (overrides, outcome) for overrides, outcome in jobs}
    if done := [job for job in once.values() if job[1]["failure"] is None]:
        tables = [tabulate_sweep(done, "val"), tabulate_sweep(done, "test")]
        Console().print(*tables)
        if tables[0].row_count < len(done):
            print("mean ± half of its 95 % interval over n seeds")
        common = Path(os.path.commonpath(outcome["folder"] for _, outcome in done))
        # whose names of runs then begin with what differs
        logged = any(RunFolder(Path(each["folder"])).tensorboard.exists() for _, each in done)
        look = "TensorBoard: tensorboard --logdir" if logged else "run folders, in"
        print(f"{look} '{as_seen_from_here(common)}'")
    failed = [
        f"{' '.join(overrides)}: {outcome['failure']}"
        for overrides, outcome in jobs
        if outcome["failure"] is not None
    ]
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of {len(jobs)} jobs failed", *failed]))
