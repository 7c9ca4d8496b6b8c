"""A finished run on disk: ``metrics.csv``, ``predictions.npz`` and ``result.json``."""

import csv
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

import numpy
from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    computed_field,
    model_validator,
)

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config

ALL = "all"  # the accuracy of all images, not the mean of the labels' accuracies
SPLITS = ("train", "val", "test")
Groups = Mapping[str, Sequence[int]]  # the labels of each group, by name
NonNegative = Annotated[FiniteFloat, Field(ge=0)]


class Scores(BaseModel, frozen=True):
    """Scores of a model on one set of images; every accuracy is in [0, 1].

    Attributes:
        confusion: (C, C) counts of images; rows are the true labels, columns the predicted.
        loss: The training loss's value on the set.
        positive: Images, (C,), for which each label's output is above zero; a label whose output
            never is has died behind an output ReLU.
        positive_of_own: The same count among each label's own images; None if unknown.
        metrics: Values of the config group ``metrics``; None where a value is not a number.
    """

    confusion: list[list[NonNegativeInt]]
    loss: float
    positive: list[NonNegativeInt]
    positive_of_own: list[NonNegativeInt] | None = None
    metrics: dict[str, float | None] = {}

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        images = [sum(row) for row in self.confusion]
        own = self.positive_of_own or [0] * len(images)
        if any(len(row) != len(images) for row in (*self.confusion, self.positive, own)):
            raise ValueError("confusion and positive must have a row and a column for each label")
        if not any(images):
            raise ValueError("a confusion matrix without images")
        if max(self.positive) > sum(images):
            raise ValueError("more images have a positive output than there are")
        limits = (*zip(own, images, strict=True), *zip(own, self.positive, strict=True))
        if any(count > limit for count, limit in limits):
            raise ValueError("more of a label's images have a positive output than there are")
        return self

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
        by_group = self.of_groups(groups).items()
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            **{f"accuracy_{name.replace('-', '_')}": accuracy for name, accuracy in by_group},
            **{name: math.nan if value is None else value for name, value in self.metrics.items()},
        }


class Seconds(BaseModel, frozen=True):
    """Wall-clock time of training with validation, resumed parts included, and of the test."""

    fit: NonNegative
    test: NonNegative


class Result(BaseModel, frozen=True, populate_by_name=True):
    """One complete run, as ``result.json`` holds it.

    Attributes:
        schema_version: Of this record; ``schema`` in the file.
        config_hash: Of ``config``, see `hash_config`.
        condition: See `name_condition`.
        model: Name of the choice in ``conf/model``; so ``data``, ``loss`` and ``optimizer``.
        seed: Of the initial weights and the order of the images.
        data_seed: Of the choice of images.
        epochs: Passes over the training images; the last may have ended at ``max_steps``.
        steps: Optimizer steps.
        train_counts: Images of each label after subsampling and with copies.
        groups: The labels of each group that accuracies are given for.
        data_sha256: Checksum of all images and labels of the data set as they were read.
        train: Scores of the last epoch's batches, each before its step.
        val: Scores of the held-out training images after the last epoch and ``posthoc``.
        test: The same for the test set.
        seconds: Duration of the run.
        device: Its processor or GPU.
        threads: CPU threads.
        versions: Of python, torch, torchvision, lightning and mnist_imbalance; a checksum of the
            code that trains, and the git commit.
        config: All that determines the result, by dotted key.
    """

    schema_version: Literal[2] = Field(default=2, alias="schema")
    config_hash: str
    condition: str
    model: str
    data: str
    loss: str
    optimizer: str
    seed: NonNegativeInt
    data_seed: NonNegativeInt
    epochs: PositiveInt
    steps: PositiveInt
    train_counts: list[NonNegativeInt]
    groups: dict[str, list[NonNegativeInt]]
    data_sha256: str | None
    train: Scores
    val: Scores
    test: Scores
    seconds: Seconds
    device: str
    threads: int
    versions: dict[str, str]
    config: dict[str, Any]

    @computed_field
    @property
    def accuracy_of_groups(self) -> dict[str, dict[str, float]]:
        """The accuracy of each group, by "val" or "test" and its name."""
        return {split: getattr(self, split).of_groups(self.groups) for split in ("val", "test")}

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        labels = len(self.train_counts)
        if any(len(scores.confusion) != labels for scores in (self.train, self.val, self.test)):
            raise ValueError(f"scores are not of {labels} labels, as train_counts is")
        for group, members in self.groups.items():
            if not members or len(set(members)) < len(members) or max(members) >= labels:
                raise ValueError(f"groups: {group} is no group of {labels} labels")
        seeds = (self.config.get("seed"), self.config.get("data.seed"))
        if seeds != (self.seed, self.data_seed):
            raise ValueError(f"seed, data_seed: config has {seeds}")
        if hash_config(self.config) != self.config_hash:
            raise ValueError("config_hash is not that of config")
        return self


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path; at the end of the block its file is moved to ``path`` at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that, killed at any moment, it is there whole or not at all."""
    with writing_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def tabulate_epochs(history: Mapping[str, Mapping[int, Scores]], groups: Groups) -> str:
    """Return scores by stage and epoch as CSV, a row an epoch and stage."""
    rows = [
        {
            "epoch": epoch,
            "stage": stage,
            **scores.named(groups),
            **{f"accuracy_{label}": value for label, value in enumerate(scores.accuracy_per_label)},
        }
        for stage, epochs in history.items()
        for epoch, scores in epochs.items()
    ]
    table = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)  # metrics may have been added
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"{value:.5g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return table.getvalue()


def format_result(result: Result) -> str:
    """Return the text of ``result.json``, a line a key."""
    record = json.loads(result.model_dump_json(by_alias=True))
    rows = {key: json.dumps(value, sort_keys=key == "config") for key, value in record.items()}
    return "{\n" + ",\n".join(f'"{key}": {row}' for key, row in rows.items()) + "\n}\n"


def write_record(
    folder: Path,
    result: Result,
    history: Mapping[str, Mapping[int, Scores]],
    predictions: Mapping[str, numpy.ndarray],
) -> None:
    """Write all that is kept of a run, ``result.json`` last: it marks the run as complete.

    Args:
        folder: Of the run.
        result: Of the whole run.
        history: Scores by stage, "train" and "val", and epoch.
        predictions: Predicted label of every image, (N,) uint8, of "val" and "test".
    """
    write_whole(folder / "metrics.csv", tabulate_epochs(history, result.groups))
    arrays = io.BytesIO()
    numpy.savez_compressed(arrays, val=predictions["val"], test=predictions["test"])
    write_whole(folder / "predictions.npz", arrays.getvalue())
    write_whole(folder / "result.json", format_result(result))


def reason(error: Exception) -> str:
    """Return what is wrong with a record, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole record'}: {first['msg']}"
    return " ".join(str(error).split())


def read_record(folder: Path) -> Result | None:
    """Read ``result.json``; None if the run is not complete.

    Raises:
        ConfigError: The file is damaged.
    """
    file = folder / "result.json"
    if not file.exists():
        return None
    try:
        return Result.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"runs_dir: {file} is damaged ({reason(error)}); delete it and start the run again"
        ) from error


def read_predictions(folder: Path) -> dict[str, numpy.ndarray] | None:
    """Read the predicted label of every image, (N,) uint8, of "val" and "test"; None without them.

    The validation images are in the order in which they were held out, the test images in that of
    the data set.

    Raises:
        ConfigError: The file is damaged.
    """
    file = folder / "predictions.npz"
    if not file.exists():
        return None
    try:
        with numpy.load(file) as arrays:
            found = {split: arrays[split] for split in ("val", "test")}
        if any(labels.ndim != 1 or labels.dtype != numpy.uint8 for labels in found.values()):
            raise ValueError("no list of labels")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} is damaged ({error})") from error
    return found
