"""What the runs on disk reached, as data frames, whatever wrote their records."""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy
import pandas

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import PlannedRun, StudyKeys, with_choices
from mnist_imbalance.report.method_runs import row_of_method, tabulate_methods
from mnist_imbalance.report.names import place_of_condition, place_of_model, place_of_optimizer
from mnist_imbalance.runs import (
    Kept,
    OnDemand,
    Result,
    RunFolder,
    Value,
    find_records,
    held,
    is_cut_short,
)
from mnist_imbalance.schema_1 import batches
from mnist_imbalance.scores import ALL, Groups, Scores
from mnist_imbalance.selection import CHOSEN, SWEPT, Sweeps, best_weights

STEPS, EPOCHS = GROUNDS = ("equal steps", "equal epochs")
REFERENCE = "imbalanced"  # the condition whose length all are compared at
VALIDATED = "per_label_chosen"  # the loss whose weights the sweep of the same seed chooses
IDENTIFYING = ["model", "optimizer", "condition", "seed", "data_seed"]
OF_RUNS = [*IDENTIFYING, "weight", "normalize", "output_bias", "output_relu", "epochs", "steps"]
OF_RUNS += [*GROUNDS, "config_hash", "weights", "left_out"]
OF_SCORES = [*IDENTIFYING, "weight", "normalize", *GROUNDS, "config_hash"]


@dataclass(frozen=True)
class Gathered:
    """Finished runs.

    Attributes:
        runs: A row a run: model, optimizer, condition, seed, data_seed, weight, normalize,
            output_bias, output_relu, epochs, steps, a column for each of `GROUNDS` that tells
            whether it stands on it, config_hash, weights, and left_out, why it stands on none.
        scores: A row a run, scored set ("val", "test") and label: of the run's columns only
            `OF_SCORES`, as there are very many rows; scored, label and accuracy, in [0, 1].
        results: By config hash.
        predictions: The predicted label of every test image, (N,), by config hash, of the runs
            that have them.
        curves: By config hash, of the runs whose epochs are known.
        damaged: A line for each record, or file beside one, that cannot be read.
        every: All results by config hash, those of ``of_methods``, too.
        of_methods: The runs whose rate follows a scheduler, as `tabulate_methods` gives them; they
            are compared with each other only, and stand in nothing else of this.
        already_told: As `told`, where it is known.
    """

    runs: pandas.DataFrame
    scores: pandas.DataFrame
    results: Mapping[str, Result]
    predictions: OnDemand[numpy.ndarray]
    curves: OnDemand["Curve"]
    damaged: Sequence[str]
    every: Mapping[str, Result] = field(default_factory=dict)
    of_methods: pandas.DataFrame = field(default_factory=lambda: tabulate_methods([]))
    already_told: Sequence["Told"] = ()

    @cached_property
    def told(self) -> Sequence["Told"]:
        """What the report tells of every run, in the order of ``results``."""
        return self.already_told or [tell(result) for result in self.results.values()]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The groups of labels of most runs, the rare labels' first, and "all" last."""
        if not self.told:
            return {ALL: []}
        names = [str(each.groups) for each in self.told]
        counted = Counter(names)
        most = self.told[names.index(max(counted, key=lambda name: counted[name]))]
        groups = {name: [*of] for name, of in most.groups.items() if name != ALL}
        return groups | {ALL: [*range(most.labels)]}

    @property
    def rare(self) -> str:
        """The group of the labels that lost images."""
        return next(iter(self.groups))

    @property
    def frequent(self) -> str:
        """The group of the labels that lost none."""
        return [*self.groups, ALL][1]

    @cached_property
    def _on(self) -> dict[str, pandas.DataFrame]:
        return {}  # filled by `on`, which takes long where there are very many runs

    @cached_property
    def _runs_on(self) -> dict[str, pandas.DataFrame]:
        return {}

    def on(self, ground: str) -> pandas.DataFrame:
        """Return the scores of all runs on one of `GROUNDS`, each once.

        Runs whose images were chosen by another seed than their own are not among them.
        """
        if ground not in self._on:
            own = self.scores.seed == self.scores.data_seed
            shown = self.scores[own & self.scores[ground]]
            self._on[ground] = shown.drop_duplicates([*IDENTIFYING, "scored", "label"])
        return self._on[ground]

    def runs_on(self, ground: str) -> pandas.DataFrame:
        """Return the runs that `on` gives the scores of."""
        if ground not in self._runs_on:
            own = self.runs.seed == self.runs.data_seed
            self._runs_on[ground] = self.runs[own & self.runs[ground]].drop_duplicates(IDENTIFYING)
        return self._runs_on[ground]

    @cached_property
    def _confusions(self) -> dict[str, numpy.ndarray]:
        each_told = zip(self.results, self.told, strict=True)
        return {config_hash: each.confusion for config_hash, each in each_told}

    def confusion(self, config_hash: str) -> numpy.ndarray:
        """Return the confusion matrix of a run's test set, (labels, labels)."""
        return self._confusions[config_hash]

    def predicted(self, config_hash: str, labels: numpy.ndarray) -> numpy.ndarray | None:
        """Return the predicted label of every test image of a run, (N,).

        None where they are not known, or do not give the confusion matrix of its record.

        Args:
            config_hash: Of the run.
            labels: (N,) of the test set.
        """
        predicted = self.predictions.get(config_hash)
        if predicted is None or len(predicted) != len(labels):
            return None
        confusion = self.confusion(config_hash)
        count = len(confusion)
        pairs = numpy.bincount(labels * count + predicted, minlength=count**2)
        return predicted if numpy.array_equal(pairs, confusion.ravel()) else None

    def correct(self, runs: Iterable[str], labels: numpy.ndarray) -> dict[str, numpy.ndarray]:
        """Return which test images some runs get right, by config hash, where `predicted` can.

        Args:
            runs: Config hashes.
            labels: (N,) of the test set.

        Returns:
            (N,) bits each, see `numpy.packbits`.
        """
        found = ((key, self.predicted(key, labels)) for key in self.predictions.ordered(runs))
        return {key: numpy.packbits(each == labels) for key, each in found if each is not None}


def number(value: Any) -> float:
    """Return a config's value if it is a number, nan if not."""
    return float(value) if isinstance(value, int | float) else math.nan


class Told(NamedTuple):
    """What the report tells of every run, by itself or counted; light enough to be held of all.

    Attributes:
        row: By the columns of `Gathered.runs`, as far as the run alone tells them.
        cut_short: See `is_cut_short`.
        by_epochs: Whether it has no last step.
        groups: The labels of each group.
        labels: How many there are.
        confusion: Of the test set, (labels, labels) int32.
        origin: Images held out of each label, epochs, device, threads and version of torch.
        seconds: Of training.
    """

    row: dict[str, Any]
    cut_short: bool
    by_epochs: bool
    groups: Groups
    labels: int
    confusion: numpy.ndarray
    origin: tuple[Any, ...]
    seconds: float


def tell(result: Result) -> Told:
    """Return what the report tells of every run."""
    config = result.config
    row = {
        **{"model": result.model, "optimizer": result.optimizer, "condition": result.condition},
        **{"seed": result.seed, "data_seed": result.data_seed},
        "weight": number(config.get(SWEPT)),
        "normalize": config.get("loss.normalize"),
        "output_bias": number(config.get("model.output_bias")),
        "output_relu": config.get("model.output_relu"),
        **{"epochs": result.epochs, "steps": result.steps},
        **{"config_hash": result.config_hash, "weights": config.get(CHOSEN)},
    }
    torch = result.versions.get("torch", "unknown")
    origin = (config.get("data.val_per_label"), result.epochs, result.device, result.threads, torch)
    by_epochs = "trainer.max_steps" not in config
    labels, confusion = len(result.train_counts), numpy.array(result.test.confusion, numpy.int32)
    shown = (result.groups, labels, confusion, origin, result.seconds.fit)
    return Told(row, is_cut_short(config), by_epochs, *shown)


def name_of_run(result: Result, sweep: Mapping[float, Scores]) -> str:
    """Return the condition of a run; weights that no sweep in the records chooses are named.

    Args:
        result: Of the run, whose weights were chosen.
        sweep: Validation scores of its weight sweep, by weight.
    """
    rare = next(iter(result.groups.values()))
    with suppress(ConfigError):  # a label without validation images
        if len(sweep) > 1 and result.config.get(CHOSEN) == best_weights(sweep, rare):
            return result.condition
    return f"{result.condition}, {CHOSEN}={result.config.get(CHOSEN)}"


def common_length(told: Sequence[Told]) -> tuple[int | None, int | None]:
    """Return the epochs and the steps at which runs are compared; None where there are none.

    They are those that most runs of `REFERENCE` have, of equally many the longest: then a few runs
    on trial, however short or long, move nothing. Runs whose last epoch was cut short do not count
    among them, nor do those with a last step if there are others. Without runs of `REFERENCE` there
    are no equal steps, and the epochs are those of most runs.
    """
    whole = [each for each in told if not each.cut_short]
    by_epochs = [each for each in whole if each.by_epochs]
    for runs in (by_epochs, whole):
        rows = [each.row for each in runs]
        lengths = Counter((r["epochs"], r["steps"]) for r in rows if r["condition"] == REFERENCE)
        if lengths:
            epochs, steps = max(lengths, key=lambda length: (lengths[length], length))
            return epochs if runs is by_epochs else None, steps
    of_others = Counter(each.row["epochs"] for each in by_epochs)
    return max(of_others, key=lambda n: (of_others[n], n), default=None), None


def tabulate_runs(told: Sequence[Told], named: Mapping[str, str]) -> pandas.DataFrame:
    """Return a row a run, in the order in which a reader looks for them, see `Gathered.runs`.

    On equal steps stand the runs of as many steps as `common_length` says, on equal epochs those of
    as many epochs without a last step. Of different runs with one name, the first counts.

    Args:
        told: Of every run.
        named: Conditions that have another name than their record says, by config hash.
    """
    epochs, steps = common_length(told)
    known: set[tuple[Any, ...]] = set()
    rows: list[dict[str, Any]] = []
    for each in told:
        row = {**each.row, "left_out": None}
        row["condition"] = named.get(row["config_hash"], row["condition"])
        row[STEPS] = row["steps"] == steps
        row[EPOCHS] = row["epochs"] == epochs and each.by_epochs
        name = (*(row[key] for key in IDENTIFYING), row["epochs"], row["steps"])
        if each.cut_short:
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
        known = column.unique()
        return column.map(dict(zip(known, map(places.get(column.name, int), known), strict=True)))

    return table.sort_values(IDENTIFYING, key=place, kind="stable", ignore_index=True)


class Reached:
    """Accuracies of runs, label by label, for a table of very many rows."""

    def __init__(self) -> None:
        self._accuracies = array("d")
        self._names: dict[tuple[str, str], int] = {}  # of what was scored, and where in the table
        self._codes = array("i")
        self._begins = [0]

    def add(self, result: Result) -> None:
        """Enter what the next run reached."""
        for scored in ("val", "test"):
            for label, accuracy in getattr(result, scored).by_name(result.groups).items():
                code = self._names.setdefault((scored, label), len(self._names))
                self._codes.append(code)
                self._accuracies.append(accuracy)
        self._begins.append(len(self._codes))

    def join(self, runs: pandas.DataFrame, places: Sequence[int]) -> pandas.DataFrame:
        """Return a row for each run, scored set and label, see `Gathered.scores`.

        Args:
            runs: What each row tells of its run.
            places: Which run, in the order in which they were entered, each row of ``runs`` is.
        """
        begins, order = numpy.array(self._begins), numpy.array(places, dtype=int)
        counts = numpy.diff(begins)[order]
        ends = counts.cumsum()
        within = numpy.arange(counts.sum()) - numpy.repeat(ends - counts, counts)
        taken = numpy.repeat(begins[order], counts) + within
        table = runs.loc[numpy.repeat(runs.index.to_numpy(), counts)].reset_index(drop=True)
        codes = numpy.frombuffer(self._codes, numpy.int32)[taken]
        for place, column in enumerate(("scored", "label")):
            names = pandas.Series([each[place] for each in self._names], dtype=str)
            table[column] = few(names).array[codes]
        return table.assign(accuracy=numpy.frombuffer(self._accuracies, float)[taken])


def few(names: pandas.Series) -> pandas.Series:
    """Return a column of few names, each held once, so that very many rows take little memory."""
    return names.astype(pandas.CategoricalDtype(sorted(names.dropna().unique())))


def test_images(kept: Kept) -> numpy.ndarray:
    """Return the predicted label of every test image of a run that has them."""
    found = kept.predictions()
    assert found is not None
    return found["test"]


class Curve(NamedTuple):
    """How a run learned.

    Attributes:
        steps: (epochs,), that the optimizer had made by the end of each.
        accuracies: (epochs,), in [0, 1], the mean of each group's labels on the held-out images,
            by group.
    """

    steps: numpy.ndarray
    accuracies: Mapping[str, numpy.ndarray]


def curve_of(kept: Kept, told: Told, per_epoch: int) -> Curve:
    """Return how a run learned whose epochs are kept.

    Args:
        kept: The run.
        told: What is told of it.
        per_epoch: Its optimizer steps in an epoch.
    """
    found = kept.validated(told.labels, told.row["epochs"])
    assert found is not None
    steps = numpy.minimum((found.epochs + 1) * per_epoch, told.row["steps"])
    means = {
        group: numpy.array([*map(fmean, found.accuracies[:, labels].tolist())])
        for group, labels in told.groups.items()
    }
    return Curve(steps, means)


def when_asked(kept: Kept, read: Callable[[], Value]) -> Callable[[], Value]:
    """Return what gives the curve or the predictions of a run.

    They are read now where they have a file of their own, as it may be damaged, and each time that
    they are asked for where very many runs share a file, which were checked when it was made.
    """
    return partial(held, read()) if isinstance(kept, RunFolder) else read


def gather(keys: StudyKeys) -> Gathered:
    """Read all records below a study's run and record folders, whatever wrote them."""
    records = find_records([keys.runs_dir, *keys.records_dirs])
    damaged = list(records.damaged)
    told: list[Told] = []
    reached, sweeps = Reached(), Sweeps[str]()
    of_methods, chosen = [], []
    predictions: dict[str, Callable[[], numpy.ndarray]] = {}
    curves: dict[str, Callable[[], Curve]] = {}
    for config_hash, result in records.results.items():
        if "scheduler._target_" in result.config:
            of_methods.append(row_of_method(result))
            continue
        told.append(tell(result))
        reached.add(result)
        sweeps.add(result.config, config_hash)
        if result.loss == VALIDATED:
            chosen.append(config_hash)
        kept = records.kept[config_hash]
        try:
            if kept.has_predictions():
                predictions[config_hash] = when_asked(kept, partial(test_images, kept))
        except ConfigError as error:
            damaged.append(f"{error}; the images are not compared one by one")
        if not kept.has_epochs():
            continue
        try:
            per_epoch = batches(result.train_counts, result.config)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            damaged.append(f"{kept.place}: data.batch_size is no number of images")
            continue
        try:
            curves[config_hash] = when_asked(kept, partial(curve_of, kept, told[-1], per_epoch))
        except ConfigError as error:
            damaged.append(f"{error}; the run is in no learning curve")
    results = records.results.only(each.row["config_hash"] for each in told)
    named = {}
    for config_hash in chosen:
        result = results[config_hash]
        sweep = {weight: results[key].val for weight, key in sweeps.of(result.config).items()}
        named[config_hash] = name_of_run(result, sweep)
    runs = tabulate_runs(told, named)
    places = {each.row["config_hash"]: place for place, each in enumerate(told)}
    names = ("model", "optimizer", "condition", "normalize", "config_hash")
    shown = runs[OF_SCORES].assign(**{name: few(runs[name]) for name in names})
    scores = reached.join(shown, [places[each] for each in runs.config_hash])
    return Gathered(
        *(runs, scores, results, OnDemand(predictions), OnDemand(curves), damaged),
        *(records.results, tabulate_methods(of_methods), told),
    )


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
    runs = with_choices(planned, results)
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
