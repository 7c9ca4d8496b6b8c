"""The records of many runs as one Parquet file, a row a run.

A row holds what a run's folder keeps, but for checkpoints: the record, its epochs and the predicted
labels. The seeds, which tell the runs of a condition apart, stand beside the config, so that the
file holds each config once for many runs.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy
import pyarrow
from pyarrow import compute, parquet

from mnist_imbalance.conditions import SEEDS
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import writing_whole
from mnist_imbalance.scores import Epochs, Predictions, Validated

ROWS = 200  # of a row group, what is read together to get the epochs or the images of a run
SPLITS = ("train", "val", "test")
WORDS = ("condition", "model", "data", "loss", "optimizer", "data_sha256", "device")
METRICS = tuple(f"{split}_metrics" for split in SPLITS)
AS_JSON = ("groups", "versions", "config", "seeds", "epochs_columns", *METRICS)
ABOUT = ("config_hash", "folder", "reached", "images")  # a row, see `row_of`
NUMBERS = ("schema", "seed", "data_seed", "epochs", "steps", "threads")
FLOATS = ("seconds_fit", "seconds_test", *(f"{split}_loss" for split in SPLITS))
COUNTS = ("confusion", "positive", "positive_of_own")
PREDICTED = ("val_predicted", "test_predicted")
SCHEMA = pyarrow.schema(
    [
        *((name, pyarrow.string()) for name in (*ABOUT, *WORDS, *AS_JSON)),
        *((name, pyarrow.int64()) for name in NUMBERS),
        *((name, pyarrow.float64()) for name in (*FLOATS, "val_accuracy", "test_accuracy")),
        ("train_counts", pyarrow.list_(pyarrow.int64())),
        *(
            (f"{split}_{name}", pyarrow.list_(pyarrow.int32()))
            for split in SPLITS
            for name in COUNTS
        ),
        ("epochs_stage", pyarrow.list_(pyarrow.string())),
        ("epochs_values", pyarrow.list_(pyarrow.float64())),
        *((name, pyarrow.binary()) for name in PREDICTED),
    ]
)
OF_EPOCHS = ("epochs_stage", "epochs_values")  # with the images most of a file
HELD = [*ABOUT, *NUMBERS, *FLOATS, "train_counts"]
HELD += [f"{split}_{name}" for split in SPLITS for name in COUNTS]
MAY_BE_MISSING = {"images", "data_sha256", "epochs_columns"}
MAY_BE_MISSING |= {f"{split}_positive_of_own" for split in SPLITS}


def digest(content: Any) -> str:
    """Return the sha256, in hex, of what can be written as JSON."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def row_of(
    record: Mapping[str, Any], epochs: Epochs | None, predictions: Predictions | None, folder: str
) -> dict[str, Any]:
    """Return the row of a run, by the columns of `SCHEMA`.

    ``reached`` is a checksum of the scores and of the epochs; ``images`` is one of what records of
    schema 1 lack, the predicted labels and each label's own positive outputs. `Scores.metrics`,
    which two who train the same run may choose differently, are in neither.

    Args:
        record: What `Result.model_dump` gives, by alias.
        epochs: As `RunFolder.epochs` gives them.
        predictions: As `RunFolder.predictions` gives them.
        folder: Where it was found, for a reader.
    """
    config = record["config"]
    row = {name: record[name] for name in ("config_hash", *WORDS, *NUMBERS, "train_counts")}
    row |= {name: json.dumps(record[name]) for name in ("groups", "versions")}
    row["config"] = json.dumps({key: config[key] for key in sorted(config.keys() - SEEDS)})
    row["seeds"] = json.dumps({key: config[key] for key in sorted(config.keys() & SEEDS)})
    row |= {f"seconds_{name}": value for name, value in record["seconds"].items()}
    row |= {f"{split}_accuracy": record[split]["accuracy"] for split in ("val", "test")}
    reached: list[Any] = []
    for split in SPLITS:
        scores = record[split]
        row[f"{split}_confusion"] = list(chain.from_iterable(scores["confusion"]))
        row |= {f"{split}_{name}": scores[name] for name in (*COUNTS[1:], "loss")}
        row[f"{split}_metrics"] = json.dumps(scores["metrics"])
        reached.append([scores[name] for name in ("confusion", "positive", "loss")])
    if epochs:
        columns = [name for name in epochs[0] if name != "stage"]
        row["epochs_columns"] = json.dumps(columns)
        row["epochs_stage"] = [each["stage"] for each in epochs]
        row["epochs_values"] = [each[name] for each in epochs for name in columns]
        same = sorted(name for name in epochs[0] if name not in record["test"]["metrics"])
        reached.append([[each[name] for name in same] for each in epochs])
    if predictions:
        of_own = [row[f"{split}_positive_of_own"] for split in SPLITS]
        for name in PREDICTED:
            row[name] = predictions[name.removesuffix("_predicted")].tobytes()
        row["images"] = digest([of_own, *(sha256(row[name]).hexdigest() for name in PREDICTED)])
    return {"images": None, **row, "folder": folder, "reached": digest(reached)}


def tabulate(rows: Iterable[dict[str, Any]]) -> Iterator[pyarrow.Table]:
    """Return the rows that `row_of` gives as tables of `ROWS`."""
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS)):
        yield pyarrow.Table.from_pylist(batch, SCHEMA)


def write(file: Path, tables: Iterable[pyarrow.Table]) -> int:
    """Write tables with the columns of `SCHEMA` to a file and return how many rows they have.

    If it is killed, or making a table raises an error, there is no file.
    """
    count, waiting = 0, SCHEMA.empty_table()
    with (
        writing_whole(file) as part,
        parquet.ParquetWriter(part, SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        for table in tables:
            count += len(table)
            waiting = pyarrow.concat_tables([waiting, table])
            whole = len(waiting) // ROWS * ROWS
            if whole:
                writer.write_table(waiting[:whole], row_group_size=ROWS)
                waiting = waiting[whole:]
        writer.write_table(waiting, row_group_size=ROWS)
    return count


class Words(NamedTuple):
    """A column of few values: each of them once, and which of them every row has."""

    values: Sequence[Any]
    codes: Sequence[int]

    def of(self, row: int) -> Any:
        """Return a row's value, which is shared with others and not to be changed."""
        return self.values[self.codes[row]]


class Lists(NamedTuple):
    """A column of lists of numbers: all behind one another, where each begins, and which are."""

    flat: numpy.ndarray
    starts: numpy.ndarray
    known: numpy.ndarray

    def of(self, row: int) -> numpy.ndarray | None:
        """Return a row's list; None where it has none."""
        return self.flat[self.starts[row] : self.starts[row + 1]] if self.known[row] else None


def read_column(file: parquet.ParquetFile, name: str) -> pyarrow.Array:
    """Return a whole column; by itself, as columns that are read together take memory together.

    Raises:
        ValueError: A row has nothing there that every run has.
    """
    whole = file.read(columns=[name])[name].unify_dictionaries().combine_chunks()
    if whole.null_count and name not in MAY_BE_MISSING:
        raise ValueError(f"{whole.null_count} rows have no {name}")
    return whole


def read_words(whole: pyarrow.DictionaryArray, as_json: bool) -> Words:
    """Return a column of texts, or of what their JSON says; None where there is none."""
    values = [json.loads(each) if as_json else each for each in whole.dictionary.to_pylist()]
    codes = whole.indices.fill_null(len(values)).to_pylist()  # faster, one by one, than an array
    return Words([*values, None], codes)


def read_lists(column: pyarrow.ListArray) -> Lists:
    """Return a column of lists."""
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return Lists(column.values.to_numpy(), column.offsets.to_numpy(), known)


def opened(file: Path, **how: Any) -> parquet.ParquetFile:
    """Return a file to read, some columns at a time, with a look at its checksums."""
    return parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False, **how)


class Packed:
    """A file of records, whose rows become results, epochs and predictions when asked for.

    The records are held as columns, 4 kB a run; epochs and predictions are read from the file.

    Args:
        file: To read.

    Raises:
        ConfigError: It is damaged, or no file of records.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            if not file.is_file():
                raise OSError("it is no file")
            self._parquet = opened(file)
            theirs = list(self._parquet.schema_arrow)
            wrong = [field.name for field in SCHEMA if field not in theirs]
            if wrong:
                raise OSError(f"it has no such columns as records have: {', '.join(wrong)}")
            few = opened(file, metadata=self._parquet.metadata, read_dictionary=[*WORDS, *AS_JSON])
            words = {name: read_words(read_column(few, name), False) for name in WORDS}
            words |= {name: read_words(read_column(few, name), True) for name in AS_JSON}
            column = {name: read_column(self._parquet, name) for name in HELD}
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            self._refuse(error)
        self.hashes: list[str] = column["config_hash"].to_pylist()
        self._folders, self._reached, self._images = (column[name] for name in ABOUT[1:])
        self._words = words
        self._numbers = {name: column[name].to_numpy() for name in (*NUMBERS, *FLOATS)}
        self._counts = {
            split: [read_lists(column[f"{split}_{name}"]) for name in COUNTS] for split in SPLITS
        }
        self._train_counts = read_lists(column["train_counts"])
        groups = range(self._parquet.metadata.num_row_groups)
        sizes = [self._parquet.metadata.row_group(each).num_rows for each in groups]
        self._starts = numpy.cumsum([0, *sizes])
        self._read: tuple[int, Sequence[str], pyarrow.Table] = (-1, (), SCHEMA.empty_table())
        pyarrow.default_memory_pool().release_unused()  # what was in the way while reading

    def _refuse(self, error: Exception) -> NoReturn:
        raise ConfigError(
            f"runs_dir, records_dirs: {self.file} is damaged ({' '.join(str(error).split())}); "
            "pack its runs again or take another copy"
        ) from error

    def place(self, row: int) -> str:
        """Return where a row is, for a reader: the file and the folder in which the run was."""
        return f"{self.file}: {self._folders[row]}"

    def checksums(self, row: int) -> tuple[str, str | None]:
        """Return ``reached`` and ``images``, see `row_of`; the latter is None without images."""
        return self._reached[row].as_py(), self._images[row].as_py()

    def tables(self) -> Iterator[pyarrow.Table]:
        """Return all that the file holds, some rows at a time.

        Raises:
            ConfigError: It is damaged.
        """
        for group in range(self._parquet.metadata.num_row_groups):
            yield self._read_group(group, SCHEMA.names)

    def _read_group(self, group: int, columns: Sequence[str]) -> pyarrow.Table:
        if self._read[:2] != (group, columns):
            try:
                table = self._parquet.read_row_group(group, columns=columns).select(columns)
            except (OSError, ValueError, pyarrow.ArrowException) as error:
                self._refuse(error)
            self._read = (group, columns, table)
        return self._read[2]

    def _look_up(self, row: int, columns: Sequence[str]) -> list[pyarrow.Scalar]:
        group = int(numpy.searchsorted(self._starts, row, side="right")) - 1
        table = self._read_group(group, columns)
        found = [table[name][row - int(self._starts[group])] for name in columns]
        if not all(each.is_valid for each in found):
            self._refuse(ValueError(f"a row lacks some of {', '.join(columns)}"))
        return found

    def record(self, row: int) -> dict[str, Any]:
        """Return a run's record, as `row_of` was given it but for what is computed."""
        word = {name: each.of(row) for name, each in self._words.items()}
        number = {name: each.item(row) for name, each in self._numbers.items()}
        scores = {}
        for split in SPLITS:
            confusion, positive, of_own = (each.of(row) for each in self._counts[split])
            assert confusion is not None
            assert positive is not None
            scores[split] = {
                "confusion": confusion.reshape(len(positive), -1).tolist(),
                "loss": number[f"{split}_loss"],
                "positive": positive.tolist(),
                "positive_of_own": None if of_own is None else of_own.tolist(),
                "metrics": word[f"{split}_metrics"],
            }
        counts = self._train_counts.of(row)
        assert counts is not None
        return {
            "config_hash": self.hashes[row],
            **{name: word[name] for name in (*WORDS, "groups", "versions")},
            **{name: number[name] for name in NUMBERS},
            "train_counts": counts.tolist(),
            "seconds": {name: number[f"seconds_{name}"] for name in ("fit", "test")},
            "config": {**word["config"], **word["seeds"]},
            **scores,
        }

    def has_epochs(self, row: int) -> bool:
        """Tell whether a run's epochs are known."""
        return self._words["epochs_columns"].of(row) is not None

    def epochs(self, row: int) -> Epochs | None:
        """Return a run's epochs, as `RunFolder.epochs` does.

        Raises:
            ConfigError: The file is damaged.
        """
        columns = self._words["epochs_columns"].of(row)
        if columns is None:
            return None
        stages, values = (each.values for each in self._look_up(row, OF_EPOCHS))
        rows = values.to_numpy().reshape(-1, len(columns)).tolist()
        told = zip(stages.to_pylist(), rows, strict=True)
        return [{**dict(zip(columns, each, strict=True)), "stage": stage} for stage, each in told]

    def validated(self, row: int) -> Validated | None:
        """Return a run's accuracies on the held-out images, as `RunFolder.validated` does.

        Raises:
            ConfigError: The file is damaged.
        """
        columns = self._words["epochs_columns"].of(row)
        labels = self._train_counts.of(row)
        if columns is None or labels is None:
            return None
        stages, values = (each.values for each in self._look_up(row, OF_EPOCHS))
        of_val = compute.equal(stages, "val").to_numpy(zero_copy_only=False)
        told = values.to_numpy().reshape(-1, len(columns))[of_val]
        places = [columns.index(f"accuracy_{label}") for label in range(len(labels))]
        return Validated(told[:, columns.index("epoch")].astype(int), told[:, places])

    def has_predictions(self, row: int) -> bool:
        """Tell whether a run's predicted labels are known."""
        return bool(self._images[row].is_valid)

    def predictions(self, row: int) -> Predictions | None:
        """Return a run's predicted labels, as `RunFolder.predictions` does.

        Raises:
            ConfigError: The file is damaged.
        """
        if not self.has_predictions(row):
            return None
        found = zip(("val", "test"), self._look_up(row, PREDICTED), strict=True)
        return {split: numpy.frombuffer(each.as_buffer(), numpy.uint8) for split, each in found}


class PackedRun(NamedTuple):
    """A row of a file, as `runs.Kept` and with its record."""

    packed: Packed
    row: int

    def record(self) -> dict[str, Any]:
        """Return the record."""
        return self.packed.record(self.row)

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        return self.packed.place(self.row)

    def has_predictions(self) -> bool:
        """Tell whether predicted labels are kept."""
        return self.packed.has_predictions(self.row)

    def has_epochs(self) -> bool:
        """Tell whether its epochs are kept."""
        return self.packed.has_epochs(self.row)

    def epochs(self, result: object = None) -> Epochs | None:
        """Return the scores of every epoch; None without them."""
        return self.packed.epochs(self.row)

    def validated(self, labels: int, epochs: int) -> Validated | None:
        """Return the accuracies on the held-out images; None without them."""
        return self.packed.validated(self.row)

    def predictions(self) -> Predictions | None:
        """Return the predicted labels; None without them."""
        return self.packed.predictions(self.row)


def packed_runs(file: Path) -> dict[str, PackedRun]:
    """Return the runs of a file by config hash.

    Raises:
        ConfigError: It is damaged, or no file of records.
    """
    packed = Packed(file)
    return {key: PackedRun(packed, row) for row, key in enumerate(packed.hashes)}
