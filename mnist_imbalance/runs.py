"""What a run folder holds: write it, read it, find it again."""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

import numpy
from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
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
from yaml import YAMLError

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import write_whole
from mnist_imbalance.records.identity import (
    WITHOUT_EFFECT as WITHOUT_EFFECT,
)
from mnist_imbalance.records.identity import (
    determining,
    hash_config,
)
from mnist_imbalance.records.identity import (
    is_cut_short as is_cut_short,
)
from mnist_imbalance.schema_1 import complete
from mnist_imbalance.scores import Epochs, Groups, Predictions, Scores, Validated

MOST_IMAGES = 10**9  # what is more is no count of images
PACKED = "records.parquet"  # many runs in one file, see `packed`
Value = TypeVar("Value")
NonNegative = Annotated[FiniteFloat, Field(ge=0)]


class Seconds(BaseModel, frozen=True):
    """Wall-clock time: of training with its validation, resumed parts included, and of the test.

    Training that another run has done, see `trained_before`, does not count.
    """

    fit: NonNegative
    test: NonNegative


def check_scores(scores: Scores, labels: int) -> None:
    """Refuse scores that cannot be of so many labels, or that contradict themselves.

    Raises:
        ValueError: They do.
    """
    own = [sum(row) for row in scores.confusion]
    if len(own) != labels:
        raise ValueError(f"scores are not of {labels} labels, as train_counts is")
    if not 0 < sum(own) <= MOST_IMAGES:
        raise ValueError(f"a confusion matrix of {sum(own)} images")
    if max(scores.positive) > sum(own):
        raise ValueError("more images have a positive output than there are")
    of_own = scores.positive_of_own or [0] * labels
    if any(map(int.__gt__, of_own, own)) or any(map(int.__gt__, of_own, scores.positive)):
        raise ValueError("more of a label's images have a positive output than there are")


class Result(BaseModel, frozen=True, populate_by_name=True):
    """One complete run, as ``result.json`` holds it.

    Attributes:
        schema_version: Of this record; ``schema`` in the file.
        config_hash: Of ``config``, see `hash_config`.
        condition: What was done about the imbalance, see `name_condition`.
        model: Name of the choice in ``conf/model``; so ``data``, ``loss`` and ``optimizer``.
        seed: Of the initial weights and the order of the images.
        data_seed: Of the choice of images.
        epochs: Passes over the training images; the last may have ended at ``max_steps``.
        steps: Optimizer steps.
        train_counts: Images of each label after subsampling and expansion.
        groups: The labels of each group that accuracies are given for.
        data_sha256: Checksum of all images and labels of the data set, as they were read.
        train: Scores of the last epoch's training batches, each as it was when trained on.
        val: Scores of the held-out training images after the last epoch, and ``posthoc``.
        test: Scores of the test set then.
        seconds: What the run took.
        device: What it ran on.
        threads: CPU threads it ran with.
        versions: Of python, torch, torchvision, lightning and mnist_imbalance; a checksum of the
            code that trains, and the git commit.
        config: All that determines the result, by dotted key.
    """

    schema_version: Literal[1, 2] = Field(default=2, alias="schema")
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
        """Return the accuracy of each group, by "val" or "test" and its name."""
        return {split: getattr(self, split).of_groups(self.groups) for split in ("val", "test")}

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, record: Any) -> Any:
        """Work out what records of schema 1 do not say."""
        if not isinstance(record, dict) or record.get("schema") != 1:
            return record
        try:
            return record | complete(record)
        except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ValueError(f"{type(error).__name__} {error} in a record of schema 1") from error

    @model_validator(mode="after")
    def _agree_with_itself(self) -> Self:
        """Refuse what cannot be of one run."""
        labels = len(self.train_counts)
        for scores in (self.train, self.val, self.test):
            check_scores(scores, labels)
        for group, members in self.groups.items():
            if not members or len(set(members)) < len(members) or max(members) >= labels:
                raise ValueError(f"groups: {group} is no group of {labels} labels")
        numbers = {"steps": self.steps, "seed": self.seed, "data_seed": self.data_seed}
        numbers |= {"epochs": self.epochs, "train_counts": max(self.train_counts)}
        for name, number in numbers.items():
            if number >= 2**63:
                raise ValueError(f"{name}: {number} is too large")
        seeds = (self.config.get("seed"), self.config.get("data.seed"))
        if seeds != (self.seed, self.data_seed):
            raise ValueError(f"seed, data_seed: config has {seeds}")
        return self


class Kept(Protocol):
    """A finished run, in a folder of its own or in a row of a file of many."""

    @property
    def place(self) -> str:
        """Where its record is, for a reader."""

    def has_predictions(self) -> bool:
        """Tell whether predicted labels are kept."""

    def has_epochs(self) -> bool:
        """Tell whether its epochs are kept."""

    def predictions(self) -> Predictions | None:
        """Return the predicted label of every image; None where they are not kept."""

    def epochs(self, result: Result) -> Epochs | None:
        """Return the scores of every epoch of a run with this result; None without them."""

    def validated(self, labels: int, epochs: int) -> Validated | None:
        """Return the accuracies on the held-out images of a run of so many labels and epochs."""


class WithRecord(Protocol):
    """A run in a file of many."""

    def record(self) -> dict[str, Any]:
        """Return the values of its `Result`."""


class OnDemand(Mapping[str, Value]):
    """Values by config hash that are made each time they are asked for, since all take much memory.

    Args:
        makers: What makes each.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Value]]) -> None:
        self.makers = makers

    def only(self, keys: Iterable[str]) -> "OnDemand[Value]":
        """Return some of them."""
        return OnDemand({key: self.makers[key] for key in keys})

    def ordered(self, keys: Iterable[str]) -> list[str]:
        """Return those of the keys that there are, as their records lie: so read, it is fastest."""
        wanted = {*keys}
        return [key for key in self if key in wanted]

    def __getitem__(self, key: str) -> Value:
        return self.makers[key]()

    def __contains__(self, key: object) -> bool:
        return key in self.makers

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


@dataclass(frozen=True)
class Records:
    """Finished runs, found again.

    Attributes:
        results: By config hash.
        kept: What else there is of each, by config hash.
        folders: Where those are that have a folder of their own, by config hash.
        damaged: A line for each record that cannot be read.
    """

    results: OnDemand[Result]
    kept: Mapping[str, Kept]
    folders: Mapping[str, Path]
    damaged: list[str]


def tabulate_epochs(history: Mapping[str, Mapping[int, Scores]], groups: Groups) -> str:
    """Return the epochs' scores as CSV, a row an epoch and stage; accuracies lie in [0, 1].

    Args:
        history: Scores by stage and epoch.
        groups: The labels of each group that has a column.
    """
    rows = [
        {
            "epoch": epoch,
            "stage": stage,
            **scores.named(groups),
            **{f"accuracy_{each}": value for each, value in enumerate(scores.accuracy_per_label)},
        }
        for stage, epochs in history.items()
        for epoch, scores in epochs.items()
    ]
    table = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)  # metrics may have been added
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {key: f"{value:.5g}" for key, value in row.items() if isinstance(value, float)}
        writer.writerow(row | shown)
    return table.getvalue()


class RunFolder:
    """A folder with one run, finished or not.

    Args:
        path: Need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        self.tensorboard = path / "tensorboard"
        self.mlflow = path / "mlflow"
        self.wandb = path / "wandb"
        self.metrics_file = path / "metrics.csv"
        self.predictions_file = path / "predictions.npz"
        self.result_file = path / "result.json"
        self.config_file = path / ".hydra" / "config.yaml"
        of_loggers = (self.tensorboard, path / "csv", self.mlflow, self.wandb)
        self._begun = (self.config_file.parent, *of_loggers)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder.

        Raises:
            ConfigError: Another process is at work in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock_file = self.path / ".lock"
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(f"runs_dir: another process is at work in {self.path}") from error
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)
            lock.release()

    def result_of(self, config: DictConfig) -> Result | None:
        """Read the result of this config's run; None if it is not complete.

        Raises:
            ConfigError: Another config's run is here, or a damaged one.
        """
        result = self.result()
        if result:
            theirs = result.config
        elif self.config_file.exists():
            theirs = determining(self.config())
        else:
            return None
        ours = determining(config)
        differing = sorted(
            key
            for key in ours.keys() | theirs.keys()
            if json.dumps(ours.get(key)) != json.dumps(theirs.get(key))  # 1 is not 1.0 to a hash
        )
        if differing:
            raise ConfigError(
                f"runs_dir: {self.path} holds a run with other values of {', '.join(differing)}; "
                "delete that folder or choose another runs_dir"
            )
        return result

    def config(self) -> DictConfig:
        """Read the config that the run was begun with.

        Raises:
            ConfigError: The file is damaged.
        """
        try:
            config = OmegaConf.load(self.config_file)
            if not isinstance(config, DictConfig) or "data" not in config:
                raise ValueError("it is no run's config")
            determining(config)
        except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
            raise ConfigError(
                f"runs_dir: {self.config_file} is damaged ({' '.join(str(error).split())}); delete "
                "its folder and start the run again"
            ) from error
        return config

    def is_fresh(self) -> bool:
        """Tell whether there is nothing yet of what `discard` removes."""
        return not any(place.exists() for place in self._begun)

    def begin(self, config: DictConfig, hydra: HydraConf) -> None:
        """Write ``.hydra/``: the config, Hydra's own and the overrides."""
        write_whole(self.config_file.with_name("hydra.yaml"), OmegaConf.to_yaml(hydra))
        overrides = OmegaConf.to_yaml(hydra.overrides.task)
        write_whole(self.config_file.with_name("overrides.yaml"), overrides)
        write_whole(self.config_file, OmegaConf.to_yaml(config))

    def discard(self) -> None:
        """Remove what a run has written, in a fresh folder, before its first checkpoint."""
        for place in self._begun:
            shutil.rmtree(place, ignore_errors=True)

    def finish(
        self,
        result: Result,
        history: Mapping[str, Mapping[int, Scores]],
        predictions: Mapping[str, numpy.ndarray],
    ) -> None:
        """Write all that is kept of a run, ``result.json`` last: it is complete from there on.

        Args:
            result: Of the whole run.
            history: Scores by stage, "train" and "val", and epoch.
            predictions: Predicted label of every image, (N,) uint8, of "val" and "test".
        """
        write_whole(self.metrics_file, tabulate_epochs(history, result.groups))
        arrays = io.BytesIO()
        numpy.savez_compressed(arrays, val=predictions["val"], test=predictions["test"])
        write_whole(self.predictions_file, arrays.getvalue())
        record = json.loads(result.model_dump_json(by_alias=True))
        rows = {key: json.dumps(value, sort_keys=key == "config") for key, value in record.items()}
        lines = ",\n".join(f'"{key}": {row}' for key, row in rows.items())
        write_whole(self.result_file, "{\n" + lines + "\n}\n")

    @property
    def place(self) -> str:
        """Where the record is, for a reader."""
        return str(self.result_file)

    def has_predictions(self) -> bool:
        """Tell whether predicted labels are kept."""
        return self.predictions_file.exists()

    def has_epochs(self) -> bool:
        """Tell whether the epochs are kept."""
        return self.metrics_file.exists()

    def predictions(self) -> Predictions | None:
        """Return the predicted label of every image, (N,) uint8, of "val" and "test".

        The validation images stand in the order in which they were held out, the test images in
        that of the data set. None for a record of schema 1, which has none.

        Raises:
            ConfigError: The file is damaged.
        """
        if not self.has_predictions():
            return None
        try:
            self._check_file(self.predictions_file)
            with numpy.load(self.predictions_file) as arrays:
                found = {stage: arrays[stage] for stage in ("val", "test")}
            if any(each.ndim != 1 or each.dtype != numpy.uint8 for each in found.values()):
                raise ValueError("no list of labels")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{self.predictions_file} is damaged ({error})") from error
        return found

    def epochs(self, result: Result) -> Epochs | None:
        """Return the rows of ``metrics.csv``, one an epoch and stage; None if there is no file.

        Args:
            result: Of the run, whose last epoch must be there.

        Raises:
            ConfigError: The file is damaged.
        """
        return self._epochs(len(result.train_counts), result.epochs)

    def _epochs(self, labels: int, epochs: int) -> Epochs | None:
        if not self.has_epochs():
            return None
        columns = [f"accuracy_{label}" for label in range(labels)]
        try:
            self._check_file(self.metrics_file)
            with self.metrics_file.open(encoding="utf-8", newline="") as lines:
                rows = [
                    {key: cell if key == "stage" else float(cell) for key, cell in row.items()}
                    for row in csv.DictReader(lines, strict=True)
                ]
            if any(row[column] is None for row in rows for column in columns):
                raise ValueError("no accuracy of some label")
            for stage in ("train", "val"):
                if max(row["epoch"] for row in rows if row["stage"] == stage) != epochs - 1:
                    raise ValueError(f"not all epochs of {stage}")
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise ConfigError(f"{self.metrics_file} is damaged ({error})") from error
        return rows

    def validated(self, labels: int, epochs: int) -> Validated | None:
        """Return what ``metrics.csv`` tells of the held-out images; None if there is no file.

        Args:
            labels: How many there are.
            epochs: Of the run, whose last must be there.

        Raises:
            ConfigError: The file is damaged.
        """
        rows = self._epochs(labels, epochs)
        if rows is None:
            return None
        of_val = [row for row in rows if row["stage"] == "val"]
        accuracies = [[row[f"accuracy_{label}"] for label in range(labels)] for row in of_val]
        return Validated(
            numpy.array([row["epoch"] for row in of_val], int), numpy.array(accuracies)
        )

    def result(self) -> Result | None:
        """Read ``result.json``; None if the run is not complete.

        Raises:
            ConfigError: The file is damaged, or tells what cannot be true of one run.
        """
        if not self.result_file.exists():
            return None
        mend = "delete it and start the run again"
        try:
            self._check_file(self.result_file)
            result = Result.model_validate_json(self.result_file.read_bytes())
        except OSError as error:
            problem = error.strerror or str(error)
            raise ConfigError(
                f"runs_dir: {self.result_file} is damaged ({problem}); {mend}"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise ConfigError(
                f"runs_dir: {self.result_file} is damaged ({where}: {first['msg']}); {mend}"
            ) from error
        if hash_config(result.config) != result.config_hash:
            raise ConfigError(
                f"runs_dir: {self.result_file} is damaged (config_hash is not that of config); "
                f"{mend}"
            )
        return result

    def _check_file(self, path: Path) -> None:
        if not path.is_file():  # a folder cannot be read, and a named pipe waits for a writer
            raise OSError("it is no file")


def files_of_records(root: str | Path) -> list[Path]:
    """Return every ``result.json`` and every file of packed records below a folder, in order."""
    found = (Path(root).rglob(name) for name in ("result.json", PACKED))
    return sorted(chain.from_iterable(found))


def held(value: Value) -> Value:
    """Return what is in memory, see `OnDemand`."""
    return value


def result_in(run: WithRecord) -> Result:
    """Return the result of a run in a file of many, which was checked when it was packed."""
    record = run.record()
    parts: dict[str, Any] = {
        split: Scores.model_construct(**record[split]) for split in ("train", "val", "test")
    }
    parts["seconds"] = Seconds.model_construct(**record["seconds"])
    return Result.model_construct(**{**record, **parts})


def find_records(roots: Iterable[str | Path]) -> Records:
    """Read all records below some folders; of equal runs, the first root's counts."""
    made: dict[str, Callable[[], Result]] = {}
    kept: dict[str, Kept] = {}
    folders: dict[str, Path] = {}
    damaged = []
    for file in chain.from_iterable(map(files_of_records, roots)):
        try:
            if file.name == PACKED:
                from mnist_imbalance.packed import packed_runs  # slow to import

                for key, run in packed_runs(file).items():
                    if key not in made:
                        made[key], kept[key] = partial(result_in, run), run
                continue
            result = RunFolder(file.parent).result()
        except ConfigError as error:
            damaged.append(str(error))
            continue
        if result:
            key = result.config_hash
            folders.setdefault(key, file.parent)
            if key not in made:
                made[key], kept[key] = partial(held, result), RunFolder(file.parent)
    return Records(OnDemand(made), kept, folders, damaged)
