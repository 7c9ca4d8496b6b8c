"""A finished run on disk: ``metrics.csv``, ``predictions.npz`` and ``result.json``."""

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self
from zipfile import BadZipFile

import numpy
from pydantic import BaseModel, Field, NonNegativeInt, computed_field, model_validator

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config

Groups = Mapping[str, Sequence[int]]  # the labels of each group, by name
History = Mapping[str, Mapping[int, "Scores"]]  # by split, "train" and "val", and epoch
Predictions = Mapping[str, numpy.ndarray]  # predicted labels by split, (N,) uint8 for up to 256
# labels: of "val" in the order in which images were held out, of "test" in that of the data set
# values of a config that reports compute with
KINDS: dict[str, Any] = {"data.keep": float | int | list, "loss.minority_weight": float | int}
KINDS |= {"data.keep.ratio": float | int, "optimizer.lr": float | int, "data.batch_size": int}
KINDS |= {"posthoc.steps": int, "trainer.max_steps": int}


def mean_known(accuracies: Sequence[float]) -> float:
    """Return the mean of those that are no nan, or nan."""
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    return fmean(known) if known else math.nan


class Scores(BaseModel, frozen=True):
    """Scores of a model on one set of images; every accuracy is in [0, 1]."""

    confusion: list[list[NonNegativeInt]]  # (K, K); rows: true labels, columns: predicted labels
    loss: float  # value of the training criterion on these images
    positive: list[int]  # (K,), images for which each label's output is above zero:
    # a label without any has died behind an output ReLU
    positive_of_own: list[int] | None = None  # the same among each label's own images
    metrics: dict[str, float | None] = {}  # of the config group; None: not a number

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
        """Mean of the accuracies of all labels that have images."""
        return mean_known(self.accuracy_per_label)

    def by_group(self, groups: Groups) -> dict[str, float]:
        """Return the mean of the labels' accuracies of each group that does not hold all labels."""
        per_label = self.accuracy_per_label
        return {
            name: mean_known([per_label[label] for label in labels])
            for name, labels in groups.items()
            if len(labels) < len(per_label)
        }

    def named(self, groups: Groups) -> dict[str, float]:
        """Return loss, accuracy, each group's accuracy (``accuracy_0_4``) and the metrics."""
        accuracies = self.by_group(groups).items()
        metrics = self.metrics.items()
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            **{f"accuracy_{re.sub('[- ]', '_', name)}": accuracy for name, accuracy in accuracies},
            **{name: math.nan if value is None else value for name, value in metrics},
        }


class Result(BaseModel, frozen=True, populate_by_name=True):
    """One complete run, as ``result.json`` holds it."""

    schema_version: Literal[2] = Field(default=2, alias="schema")
    config_hash: str
    condition: str
    model: str  # name of the choice in conf/model, as are data, loss and optimizer
    data: str
    loss: str
    optimizer: str
    seed: int  # of the initial weights and the order of the images
    data_seed: int  # of the choice of images
    epochs: int  # the last may have ended at trainer.max_steps
    steps: int  # of the optimizer
    train_counts: list[int]  # images of each label after subsampling and with copies
    groups: dict[str, list[int]]  # the labels of each group
    class_names: list[str] = []  # of the labels, where they have names
    data_sha256: str | None  # of all images and labels of the data set as they were read
    train: Scores  # of the last epoch's batches, each before its step
    val: Scores  # of the held-out training images after the last epoch and posthoc
    test: Scores
    seconds: dict[str, float]  # wall-clock time, "fit" with validation and resumed parts, "test"
    device: str
    threads: int  # of the CPU
    versions: dict[str, str]  # of libraries, a checksum of the code that trains, the git commit
    config: dict[str, Any]  # all that determines the result, by dotted key

    @model_validator(mode="after")
    def _check(self) -> Self:
        if hash_config(self.config) != self.config_hash:
            raise ValueError("config_hash is not that of config")
        for key, kind in KINDS.items():
            if not isinstance(self.config.get(key, 0), kind):
                raise ValueError(f"config has another type of {key}")
        if (self.seed, self.data_seed) != (self.config["seed"], self.config["data.seed"]):
            raise ValueError("the seeds are not those of config")
        size = len(self.train_counts)
        for scores in (self.train, self.val, self.test):
            if not math.isfinite(scores.loss):
                raise ValueError("a loss is not finite")
            if numpy.shape(scores.confusion) != (size, size):
                raise ValueError("confusion and train_counts are of different sizes")
        if not {*chain(*self.groups.values())} <= {*range(size)}:
            raise ValueError("groups have unknown labels")
        return self


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that, killed at any moment, it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(part, path)


def tabulate_epochs(history: History, groups: Groups) -> str:
    """Return scores as CSV, one row per split and epoch; its column for the split is "stage"."""
    rows = []
    for split, epochs in history.items():
        for epoch, scores in epochs.items():
            labels = enumerate(scores.accuracy_per_label)
            values = scores.named(groups) | {f"accuracy_{label}": value for label, value in labels}
            texts = {name: f"{value:.5g}" for name, value in values.items()}
            rows.append({"epoch": epoch, "stage": split, **texts})
    columns = dict.fromkeys(key for row in rows for key in row)  # metrics may have been added
    writer = csv.DictWriter(table := io.StringIO(), columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def write_record(folder: Path, result: Result, history: History, predictions: Predictions) -> None:
    """Write all that is kept of a run, ``result.json`` last: it marks the run as complete."""
    write_whole(folder / "metrics.csv", tabulate_epochs(history, result.groups))
    numpy.savez_compressed(arrays := io.BytesIO(), val=predictions["val"], test=predictions["test"])
    write_whole(folder / "predictions.npz", arrays.getvalue())
    write_whole(folder / "result.json", result.model_dump_json(by_alias=True) + "\n")


def damaged(place: object, error: Exception) -> ConfigError:
    """Return an error that names a damaged file and the reason."""
    reason = " ".join(str(error).split())
    return ConfigError(f"{place} is damaged ({reason}); delete it and run it again, or restore it")


def read_record(folder: Path) -> Result | None:
    """Read ``result.json``; None if the run is not complete. ConfigError if the file is damaged."""
    file = folder / "result.json"
    try:
        return Result.model_validate_json(file.read_bytes()) if file.exists() else None
    except (OSError, ValueError) as error:
        raise damaged(f"runs_dir: {file}", error) from error


def read_predictions(folder: Path) -> Predictions:
    """Read the predicted labels; none if they are not kept. ConfigError if the file is damaged."""
    file = folder / "predictions.npz"
    try:
        return dict(numpy.load(file)) if file.exists() else {}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise damaged(file, error) from error
