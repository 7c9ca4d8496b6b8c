"""What the runs on disk reached, as data frames, whatever wrote their records."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
import pandas

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import PlannedRun, StudyKeys, with_choice
from mnist_imbalance.report.names import place_of_condition, place_of_model, place_of_optimizer
from mnist_imbalance.runs import Result, RunFolder, find_records, is_cut_short
from mnist_imbalance.schema_1 import batches
from mnist_imbalance.scores import ALL
from mnist_imbalance.selection import CHOSEN, SWEPT, best_weights, sweep_of

STEPS, EPOCHS = GROUNDS = ("equal steps", "equal epochs")
REFERENCE = "imbalanced"  # the condition whose length all are compared at
VALIDATED = "per_label_chosen"  # the loss whose weights the sweep of the same seed chooses
TOLD_APART = ["model", "optimizer", "condition", "seed", "data_seed"]
OF_RUNS = [*TOLD_APART, "weight", "normalize", "output_bias", "output_relu", "epochs", "steps"]
OF_RUNS += [*GROUNDS, "config_hash", "weights", "left_out"]


@dataclass(frozen=True)
class Gathered:
    """Finished runs.

    Attributes:
        runs: A row a run: model, optimizer, condition, seed, data_seed, weight, normalize,
            output_bias, output_relu, epochs, steps, a column for each of `GROUNDS` that tells
            whether it stands on it, config_hash, weights, and left_out, why it stands on none.
        scores: A row a run, scored set ("val", "test") and label: what tells the run apart, and
            its accuracy in [0, 1].
        results: By config hash.
        predictions: The predicted label of every test image, (N,), by config hash, of the runs
            that have them.
        epochs: The rows of ``metrics.csv`` by config hash, of the runs that have them.
        damaged: A line for each record, or file beside one, that cannot be read.
        of_methods: By config hash, the runs whose rate follows a scheduler; they are compared with
            each other only, and stand in nothing else of this.
    """

    runs: pandas.DataFrame
    scores: pandas.DataFrame
    results: Mapping[str, Result]
    predictions: Mapping[str, numpy.ndarray]
    epochs: Mapping[str, Sequence[Mapping[str, Any]]]
    damaged: Sequence[str]
    of_methods: Mapping[str, Result] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The groups of labels of most runs, the rare labels' first, and "all" last."""
        if not self.results:
            return {ALL: []}
        counted = Counter(str(result.groups) for result in self.results.values())
        most = max(self.results.values(), key=lambda result: counted[str(result.groups)])
        labels = range(len(most.train_counts))
        return {name: of for name, of in most.groups.items() if name != ALL} | {ALL: [*labels]}

    @property
    def rare(self) -> str:
        """The group of the labels that lost images."""
        return next(iter(self.groups))

    @property
    def frequent(self) -> str:
        """The group of the labels that lost none."""
        return [*self.groups, ALL][1]

    def on(self, ground: str) -> pandas.DataFrame:
        """Return the scores of all runs on one of `GROUNDS`, each once.

        Runs whose images were chosen by another seed than their own are not among them.
        """
        own = self.scores.seed == self.scores.data_seed
        shown = self.scores[own & self.scores[ground]]
        return shown.drop_duplicates([*TOLD_APART, "scored", "label"])

    def runs_on(self, ground: str) -> pandas.DataFrame:
        """Return the runs that `on` gives the scores of."""
        own = self.runs.seed == self.runs.data_seed
        return self.runs[own & self.runs[ground]].drop_duplicates(TOLD_APART)

    def predicted(
        self, model: str, optimizer: str, condition: str, ground: str, labels: numpy.ndarray | None
    ) -> Mapping[int, numpy.ndarray]:
        """Return by seed the predicted label of every test image, (N,), in a condition.

        Runs without predictions are left out, and so are those whose predictions do not give
        their record's confusion matrix.

        Args:
            model: A choice of ``conf/model``.
            optimizer: A choice of ``conf/optimizer``.
            condition: Its name.
            ground: One of `GROUNDS`.
            labels: (N,) of the test set; None where it cannot be had.
        """
        runs = self.runs_on(ground)
        runs = runs[(runs.model == model) & (runs.optimizer == optimizer)]
        runs = runs[runs.condition == condition]
        known: dict[int, numpy.ndarray] = {}
        for seed, config_hash in zip(runs.seed, runs.config_hash, strict=True):
            predicted = self.predictions.get(config_hash)
            if labels is None or predicted is None or len(predicted) != len(labels):
                continue
            confusion = numpy.array(self.results[config_hash].test.confusion)
            count = len(confusion)
            pairs = numpy.bincount(labels * count + predicted, minlength=count**2)
            if numpy.array_equal(pairs, confusion.ravel()):
                known[seed] = predicted
        return known


def name_of_run(result: Result, others: Sequence[Result]) -> str:
    """Return the condition of a run; weights that no sweep in the records chooses are named.

    Args:
        result: Of the run.
        others: All runs, among which its weight sweep may be.
    """
    if result.loss != VALIDATED:
        return result.condition
    sweep = {weight: each.val for weight, each in sweep_of(result.config, others).items()}
    rare = next(iter(result.groups.values()))
    with suppress(ConfigError):  # a label without validation images
        if len(sweep) > 1 and result.config.get(CHOSEN) == best_weights(sweep, rare):
            return result.condition
    return f"{result.condition}, {CHOSEN}={result.config.get(CHOSEN)}"


def common_length(results: Sequence[Result]) -> tuple[int | None, int | None]:
    """Return the epochs and the steps at which runs are compared; None where there are none.

    They are those that most runs of `REFERENCE` have, of equally many the longest: then a few runs
    on trial, however short or long, move nothing. Runs whose last epoch was cut short do not count
    among them, nor do those with a last step if there are others. Without runs of `REFERENCE` there
    are no equal steps, and the epochs are those of most runs.
    """
    whole = [result for result in results if not is_cut_short(result.config)]
    by_epochs = [result for result in whole if "trainer.max_steps" not in result.config]
    for runs in (by_epochs, whole):
        lengths = Counter((r.epochs, r.steps) for r in runs if r.condition == REFERENCE)
        if lengths:
            epochs, steps = max(lengths, key=lambda length: (lengths[length], length))
            return epochs if runs is by_epochs else None, steps
    of_others = Counter(result.epochs for result in by_epochs)
    return max(of_others, key=lambda n: (of_others[n], n), default=None), None


def number(value: Any) -> float:
    """Return a config's value if it is a number, nan if not."""
    return float(value) if isinstance(value, int | float) else math.nan


def tabulate_runs(results: Mapping[str, Result]) -> pandas.DataFrame:
    """Return a row a run, in the order in which a reader looks for them, see `Gathered.runs`.

    On equal steps stand the runs of as many steps as `common_length` says, on equal epochs those of
    as many epochs without a last step. Of different runs with one name, the first counts.
    """
    epochs, steps = common_length(list(results.values()))
    known: set[tuple[Any, ...]] = set()
    rows: list[dict[str, Any]] = []
    for config_hash, result in results.items():
        config = result.config
        row = {
            **{"model": result.model, "optimizer": result.optimizer},
            "condition": name_of_run(result, list(results.values())),
            **{"seed": result.seed, "data_seed": result.data_seed},
            "weight": number(config.get(SWEPT)),
            "normalize": config.get("loss.normalize"),
            "output_bias": number(config.get("model.output_bias")),
            "output_relu": config.get("model.output_relu"),
            **{"epochs": result.epochs, "steps": result.steps},
            STEPS: result.steps == steps,
            EPOCHS: result.epochs == epochs and "trainer.max_steps" not in config,
            **{"config_hash": config_hash, "weights": config.get(CHOSEN), "left_out": None},
        }
        name = (*(row[key] for key in TOLD_APART), result.epochs, result.steps)
        if is_cut_short(result.config):
            row["left_out"] = "trained on a part of the images"
        elif (*name, row[EPOCHS]) in known:
            row["left_out"] = "another run has the same name"
        elif not row[STEPS] and not row[EPOCHS]:
            row["left_out"] = "of another length"
        if row["left_out"]:
            row |= dict.fromkeys(GROUNDS, False)
        known.add((*name, row[EPOCHS]))
        rows.append(row)
    table = pandas.DataFrame(rows, columns=OF_RUNS).astype(dict.fromkeys(GROUNDS, bool))
    places: dict[Hashable, Callable[[str], tuple[Any, ...]]] = {
        **{"model": place_of_model, "optimizer": place_of_optimizer},
        "condition": place_of_condition,
    }

    def place(column: pandas.Series) -> pandas.Series:
        return column.map(places.get(column.name, lambda seed: seed))

    return table.sort_values(TOLD_APART, key=place, kind="stable", ignore_index=True)


def gather(keys: StudyKeys) -> Gathered:
    """Read all records below a study's run and record folders, whatever wrote them."""
    records = find_records([keys.runs_dir, *keys.records_dirs])
    damaged = list(records.damaged)
    every = records.results
    of_methods = {key: every[key] for key in every if "scheduler._target_" in every[key].config}
    results = {key: every[key] for key in every if key not in of_methods}
    predictions, epochs = {}, {}
    for config_hash, result in results.items():
        folder = RunFolder(records.folders[config_hash])
        try:
            if found := folder.predictions():
                predictions[config_hash] = found["test"]
        except ConfigError as error:
            damaged.append(f"{error}; the images are not compared one by one")
        try:
            if (rows := folder.epochs(result)) and batches(result.train_counts, result.config):
                epochs[config_hash] = rows
        except ConfigError as error:
            damaged.append(f"{error}; the run is in no learning curve")
        except (KeyError, TypeError, ValueError, ArithmeticError):
            damaged.append(f"{folder.result_file}: data.batch_size is no number of images")
    runs = tabulate_runs(results)
    reached = [
        (config_hash, scored, label, accuracy)
        for config_hash, result in results.items()
        for scored in ("val", "test")
        for label, accuracy in getattr(result, scored).by_name(result.groups).items()
    ]
    columns = ["config_hash", "scored", "label", "accuracy"]
    told = runs.drop(columns=["weights", "left_out"])
    scores = told.merge(pandas.DataFrame(reached, columns=columns), on="config_hash")
    return Gathered(runs, scores, results, predictions, epochs, damaged, of_methods)


@dataclass(frozen=True)
class Missing:
    """What a study plans and no record tells.

    Attributes:
        planned: How many runs the study has.
        runs: Columns experiment, model, optimizer, condition, seed, data_seed and config_hash; a
            row for each overlay of a planned run without a record.
    """

    planned: int
    runs: pandas.DataFrame

    def __str__(self) -> str:
        """Say how many runs are finished."""
        finished = self.planned - self.runs.config_hash.nunique()
        return f"{finished} of {self.planned} planned runs have a result"


def find_missing(planned: Sequence[PlannedRun], results: Mapping[str, Result]) -> Missing:
    """Return which of a study's runs have no record."""
    runs = [with_choice(run, planned, results) if run.waits else run for run in planned]
    columns = ["experiment", "model", "optimizer", "condition", "seed", "data_seed", "config_hash"]
    rows = [
        (
            *(run.experiment, run.choices["model"], run.choices["optimizer"], run.condition),
            *(run.config["seed"], run.config["data.seed"], run.config_hash),
        )
        for run in runs
        if run.config_hash not in results
    ]
    rows.sort(key=lambda row: place_of_model(row[1]))
    return Missing(len({run.config_hash for run in runs}), pandas.DataFrame(rows, columns=columns))
