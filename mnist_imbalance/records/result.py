"""A finished run on disk: ``metrics.csv``, ``predictions.npz`` and ``result.json``."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self
from zipfile import BadZipFile

import numpy
from pydantic import BaseModel, Field, ValidationError, computed_field, model_validator

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config

Groups = Mapping[str, Sequence[int]]  # the labels of each group, by name
History = Mapping[str, Mapping[int, "Scores"]]  # by stage, "train" and "val", and epoch
Predictions = Mapping[str, numpy.ndarray]  # predicted labels, (N,) uint8, of "val", in the order
# in which images were held out, and of "test", in the order of the data set


class Scores(BaseModel, frozen=True):
    """Scores of a model on one set of images; every accuracy is in [0, 1]."""

    confusion: list[list[int]]  # (C, C); rows: true labels, columns: predicted labels
    loss: float  # the training loss
    positive: list[int]  # (C,), images for which each label's output is above zero:
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
        """Mean of all labels' accuracies; nan if a label has no images."""
        return fmean(self.accuracy_per_label)

    def of_groups(self, groups: Groups) -> dict[str, float]:
        """Return the mean of the labels' accuracies of each group that does not hold all labels."""
        per_label = self.accuracy_per_label
        return {
            name: fmean(per_label[label] for label in labels)
            for name, labels in groups.items()
            if len(labels) < len(per_label)
        }

    def named(self, groups: Groups) -> dict[str, float]:
        """Return loss, accuracy, each group's accuracy (``accuracy_0_4``) and the metrics."""
        named = {"loss": self.loss, "accuracy": self.accuracy}
        for name, accuracy in self.of_groups(groups).items():
            named[f"accuracy_{name.replace('-', '_')}"] = accuracy
        for name, value in self.metrics.items():
            named[name] = math.nan if value is None else value
        return named


class Seconds(BaseModel, frozen=True):
    """Wall-clock time of training with validation, resumed parts included, and of the test."""

    fit: float
    test: float


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
    data_sha256: str | None  # of all images and labels of the data set as they were read
    train: Scores  # of the last epoch's batches, each before its step
    val: Scores  # of the held-out training images after the last epoch and posthoc
    test: Scores
    seconds: Seconds
    device: str
    threads: int  # of the CPU
    versions: dict[str, str]  # of libraries, a checksum of the code that trains, the git commit
    config: dict[str, Any]  # all that determines the result, by dotted key

    @computed_field
    @property
    def accuracy_of_groups(self) -> dict[str, dict[str, float]]:
        """The accuracy of each group, by "val" or "test" and its name."""
        return {split: getattr(self, split).of_groups(self.groups) for split in ("val", "test")}

    @model_validator(mode="after")
    def _check_hash(self) -> Self:
        if hash_config(self.config) != self.config_hash:
            raise ValueError("config_hash is not that of config")
        return self


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that, killed at any moment, it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def tabulate_epochs(history: History, groups: Groups) -> str:
    """Return scores as CSV, a row an epoch and stage."""
    rows = []
    for stage, epochs in history.items():
        for epoch, scores in epochs.items():
            values = scores.named(groups)
            for label, accuracy in enumerate(scores.accuracy_per_label):
                values[f"accuracy_{label}"] = accuracy
            texts = {name: f"{value:.5g}" for name, value in values.items()}
            rows.append({"epoch": epoch, "stage": stage, **texts})
    table = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)  # metrics may have been added
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def write_record(folder: Path, result: Result, history: History, predictions: Predictions) -> None:
    """Write all that is kept of a run, ``result.json`` last: it marks the run as complete."""
    write_whole(folder / "metrics.csv", tabulate_epochs(history, result.groups))
    arrays = io.BytesIO()
    numpy.savez_compressed(arrays, val=predictions["val"], test=predictions["test"])
    write_whole(folder / "predictions.npz", arrays.getvalue())
    record = json.loads(result.model_dump_json(by_alias=True))
    rows = (f'"{name}": {json.dumps(value)}' for name, value in record.items())
    write_whole(folder / "result.json", "{\n" + ",\n".join(rows) + "\n}\n")


def damaged(place: object, error: Exception) -> ConfigError:
    """Return an error that names a damaged file, or a run in it, and the first reason."""
    reason = " ".join(str(error).split())
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the whole record'}: {first['msg']}"
    return ConfigError(f"{place} is damaged ({reason}); delete it and run it again, or restore it")


def read_record(folder: Path) -> Result | None:
    """Read ``result.json``; None if the run is not complete. ConfigError if the file is damaged."""
    file = folder / "result.json"
    if not file.exists():
        return None
    try:
        return Result.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(f"runs_dir: {file}", error) from error


def read_predictions(folder: Path) -> Predictions | None:
    """Read the predicted labels; None if they are not kept. ConfigError if the file is damaged."""
    file = folder / "predictions.npz"
    if not file.exists():
        return None
    try:
        with numpy.load(file) as arrays:
            return {split: arrays[split] for split in ("val", "test")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise damaged(file, error) from error
