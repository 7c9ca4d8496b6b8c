"""What a study's runs reached, as data frames; planned runs without a result included."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
import pandas

from mnist_imbalance.labels import GROUPS, NUM_LABELS
from mnist_imbalance.plan import CHOSEN, SWEPT, StudyKeys, plan, with_chosen_weights
from mnist_imbalance.runs import Result, RunFolder, find_records

LABELS = [*map(str, range(NUM_LABELS)), *GROUPS]
STEPS, EPOCHS = GROUNDS = ("equal steps", "equal epochs")


@dataclass(frozen=True)
class Gathered:
    """A study's runs.

    Attributes:
        runs: A row a planned run: experiment, model, optimizer, condition, weight, normalize,
            output_bias, output_relu, seed, data_seed, a column for each of `GROUNDS` that tells
            whether it stands on it, config_hash, weights ("???" while they wait for their sweep)
            and finished. Overlays may share a run.
        scores: A row a planned run, scored set ("val", "test") and label: what tells the run
            apart, and its accuracy in [0, 1], nan where the run is missing.
        results: Finished runs of the study by config hash.
        folders: Where each is kept.
        damaged: A line for each record that cannot be read.
        overrides: Of the study, for every run.
    """

    runs: pandas.DataFrame
    scores: pandas.DataFrame
    results: dict[str, Result]
    folders: dict[str, Path]
    damaged: list[str]
    overrides: list[str]

    @property
    def missing(self) -> pandas.DataFrame:
        """The planned runs that have no result."""
        return self.runs[~self.runs.finished]

    def how_complete(self) -> str:
        """Say how many runs are finished."""
        planned = self.runs.config_hash.nunique()
        said = f"{len(self.results)} of {planned} planned runs have a result"
        return f"{said}, {len(self.damaged)} records are damaged" if self.damaged else said

    def on(self, ground: str) -> pandas.DataFrame:
        """Return the scores of all runs on one of `GROUNDS`, each once.

        Runs whose images were chosen by another seed than their own are not among them.
        """
        own = self.scores.seed == self.scores.data_seed
        shown = self.scores[own & self.scores[ground]]
        return shown.drop_duplicates(["model", "optimizer", "condition", "seed", "scored", "label"])

    @cached_property
    def conditions(self) -> pandas.DataFrame:
        """The scores of all runs of as many epochs, as AI3607 trains."""
        return self.on(EPOCHS)

    def correct(
        self, model: str, optimizer: str, condition: str, ground: str, labels: numpy.ndarray
    ) -> Mapping[int, numpy.ndarray]:
        """Return by seed which test images, (N,) bool, the runs of a condition get right.

        Runs without predictions are left out, and so are those whose predictions do not give
        their record's confusion matrix.

        Args:
            model: A choice of ``conf/model``.
            optimizer: A choice of ``conf/optimizer``.
            condition: Its name.
            ground: One of `GROUNDS`.
            labels: (N,) of the test set.
        """
        runs = self.runs[self.runs.finished & self.runs[ground]]
        runs = runs[(runs.model == model) & (runs.optimizer == optimizer)]
        runs = runs[(runs.condition == condition) & (runs.seed == runs.data_seed)]
        right = {}
        for seed, config_hash in zip(runs.seed, runs.config_hash, strict=True):
            predictions = RunFolder(self.folders[config_hash]).predictions()
            if predictions is None or len(predictions["test"]) != len(labels):
                continue
            predicted = predictions["test"]
            pairs = numpy.bincount(labels * NUM_LABELS + predicted, minlength=NUM_LABELS**2)
            confusion = numpy.array(self.results[config_hash].test.confusion)
            if numpy.array_equal(pairs, confusion.ravel()):
                right[seed] = predicted == labels
        return right


def gather(keys: StudyKeys) -> Gathered:
    """Find the results of all runs of a study below its run and record folders."""
    records = find_records([keys.runs_dir, *keys.records_dirs])
    planned = plan(keys.study)
    models = list(dict.fromkeys(run.choices["model"] for run in planned))
    runs, scores, results = [], [], {}
    for waiting in sorted(planned, key=lambda run: models.index(run.choices["model"])):
        run = with_chosen_weights(waiting, planned, records.results) if waiting.waits else waiting
        result = records.results.get(run.config_hash)
        if result:
            results[run.config_hash] = result
        told_apart = {
            "experiment": run.experiment,
            "model": run.choices["model"],
            "optimizer": run.choices["optimizer"],
            "condition": run.condition,
            "weight": run.values.get(SWEPT),
            "normalize": run.values.get("loss.normalize"),
            "output_bias": run.values.get("model.output_bias"),
            "output_relu": run.values.get("model.output_relu"),
            "seed": run.values["seed"],
            "data_seed": run.values["data.seed"],
            EPOCHS: "trainer.max_steps" not in run.values,
            STEPS: result.steps if result else run.values.get("trainer.max_steps"),
        }
        runs.append(
            {
                **told_apart,
                "config_hash": run.config_hash,
                "weights": run.values.get(CHOSEN),
                "finished": result is not None,
            }
        )
        for scored in ("val", "test"):
            missing = dict.fromkeys(LABELS, math.nan)
            reached = getattr(result, scored).by_name() if result else missing
            scores += [
                {**told_apart, "scored": scored, "label": label, "accuracy": accuracy}
                for label, accuracy in reached.items()
            ]
    of_runs, of_scores = pandas.DataFrame(runs), pandas.DataFrame(scores)
    of_imbalanced = of_runs[of_runs[EPOCHS] & (of_runs.condition == "imbalanced")]
    common = of_imbalanced[STEPS].max()  # steps of the imbalanced runs; nan where there are none
    for frame in (of_runs, of_scores):
        frame[STEPS] = frame[STEPS] == common
    return Gathered(
        of_runs,
        of_scores,
        results,
        {key: records.folders[key] for key in results},
        records.damaged,
        keys.study.overrides,
    )
