"""All finished runs as one data frame, from run folders and Parquet files alike."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
from pyarrow import csv, parquet

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.result import (
    ALL,
    SPLITS,
    Result,
    damaged,
    read_predictions,
    read_record,
    write_whole,
)

Row = dict[str, Any]
Kept = tuple[Row, Row]
PACKED = ".parquet"
ROWS = 1000  # of a row group
INT, FLOAT, TEXT = pyarrow.int64(), pyarrow.float64(), pyarrow.string()
COUNTS = pyarrow.list_(INT)
SCORES = {
    **{"loss": FLOAT, "accuracy": FLOAT, "balanced_accuracy": FLOAT, "metrics": TEXT},
    **{"confusion": pyarrow.list_(COUNTS), "positive": COUNTS, "positive_of_own": COUNTS},
}
COLUMNS = {
    **dict.fromkeys(("config_hash", "condition", "model", "data", "loss", "optimizer"), TEXT),
    **dict.fromkeys(("schema", "seed", "data_seed", "epochs", "steps", "threads"), INT),
    **{"train_counts": COUNTS, "seconds": FLOAT, "test_seconds": FLOAT},
    **dict.fromkeys(("groups", "data_sha256", "device", "versions", "config"), TEXT),
    **{f"{split}_{name}": kind for split in SPLITS for name, kind in SCORES.items()},
}
PREDICTED = ("val_predicted", "test_predicted")
KEPT = {"epochs_csv": TEXT, **dict.fromkeys(PREDICTED, pyarrow.binary())}  # beside the record
SCHEMA = pyarrow.schema({**COLUMNS, **KEPT})
CONFUSIONS = [f"{split}_confusion" for split in SPLITS]
NUMBERS = [f"{split}_{name}" for split in SPLITS for name in ("confusion", "loss", "positive")]
JSON = ("groups", "versions", "config", *(f"{split}_metrics" for split in SPLITS))


def row_of(result: Result, file: Path) -> Row:
    """Return a run's row, see `read`."""
    row = {name: value for name, value in result if name in COLUMNS}
    for split in SPLITS:
        scores = getattr(result, split)
        row |= {f"{split}_{name}": getattr(scores, name) for name in SCORES}
        row[f"{split}_confusion"] = numpy.array(scores.confusion)
    row |= {"schema": 2, "seconds": result.seconds.fit, "test_seconds": result.seconds.test}
    return row | {"folder": "" if file.suffix == PACKED else str(file.parent), "file": str(file)}


def read_packed(file: Path, columns: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of a Parquet file; raise ConfigError if it is damaged or something else."""
    try:
        packed = parquet.ParquetFile(file, page_checksum_verification=True)
        missing = [name for name in SCHEMA.names if name not in packed.schema_arrow.names]
        if missing:
            raise ValueError(f"no column {missing[0]}; pack the run folders again")
        for batch in packed.iter_batches(ROWS, columns=list(columns)):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors among them
        raise damaged(file, error) from error


def unpack(row: Row) -> Result:
    """Return the result in a row of a Parquet file."""
    row |= {name: json.loads(row[name]) for name in JSON}
    scores = {split: {name: row[f"{split}_{name}"] for name in SCORES} for split in SPLITS}
    seconds = {"fit": row["seconds"], "test": row["test_seconds"]}
    return Result.model_validate({**row, **scores, "seconds": seconds})


def read_all(roots: Iterable[str | Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records as `read` does, equal ones too."""
    rows, lines = [], []
    for root in map(Path, roots):
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            try:
                if file.name == "result.json":
                    result = read_record(file.parent)
                    rows += [row_of(result, file)] if result else []
                for row in read_packed(file, COLUMNS) if file.suffix == PACKED else ():
                    try:
                        rows.append(row_of(unpack(row), file))
                    except (TypeError, ValueError) as error:
                        lines.append(str(damaged(f"{file}: {row['config_hash']}", error)))
            except ConfigError as error:
                lines.append(str(error))
    return pandas.DataFrame(rows, columns=[*COLUMNS, "folder", "file"]), lines


def read(roots: Iterable[str | Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records below some folders: a row a run, of equal runs the first.

    Returns:
        The runs, and a line for each damaged record. The columns are the keys of ``result.json``,
        those of its scores as ``test_loss`` and ``test_confusion``, an array (C, C); ``seconds`` of
        training; ``file``; and ``folder``, empty for a packed run.
    """
    runs, lines = read_all(roots)
    return runs.drop_duplicates("config_hash", ignore_index=True), lines


def by_file(runs: pandas.DataFrame) -> dict[Path, dict[str, Row]]:
    """Return runs by the file of their record and their config hash."""
    files: dict[Path, dict[str, Row]] = {}
    for run in runs.to_dict("records"):
        files.setdefault(Path(run["file"]), {})[run["config_hash"]] = run
    return files


def kept_in(file: Path, runs: Mapping[str, Row], columns: Sequence[str]) -> Iterator[Kept]:
    """Yield runs of a file and what is kept beside their records, by some columns of `KEPT`."""
    if file.suffix == PACKED:
        for row in read_packed(file, ["config_hash", *columns]):
            if row["config_hash"] in runs:
                yield runs[row["config_hash"]], row
        return
    row, metrics = dict.fromkeys(columns), file.with_name("metrics.csv")
    if "epochs_csv" in columns and metrics.exists():
        row["epochs_csv"] = metrics.read_text("utf-8")
    if {*PREDICTED} & {*columns}:
        for split, labels in (read_predictions(file.parent) or {}).items():
            row[f"{split}_predicted"] = labels.tobytes()
    yield from ((run, row) for run in runs.values())


def kept(runs: pandas.DataFrame, columns: Sequence[str]) -> Iterator[Kept]:
    """Yield each run and what is kept beside its record; raise ConfigError if it is damaged."""
    return chain.from_iterable(kept_in(file, its, columns) for file, its in by_file(runs).items())


def read_epochs(run: Row, text: str) -> pyarrow.Table:
    """Return a run's ``metrics.csv`` as a table; raise ConfigError if it is damaged."""
    names = text.partition("\n")[0].split(",")
    types = dict.fromkeys(names, FLOAT) | {"epoch": INT, "stage": TEXT}
    try:
        content, options = pyarrow.py_buffer(text.encode()), csv.ConvertOptions(column_types=types)
        table = csv.read_csv(content, csv.ReadOptions(use_threads=False), convert_options=options)
        last = dict(zip(table["stage"].to_pylist(), table["epoch"].to_pylist(), strict=True))
        if last != dict.fromkeys(("train", "val"), run["epochs"] - 1):
            raise ValueError("not all epochs of train and val")
    except (KeyError, ValueError) as error:
        raise damaged(f"metrics.csv of {run['config_hash']} in {run['file']}", error) from error
    return table.append_column("config_hash", pyarrow.repeat(run["config_hash"], len(table)))


def epochs(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return ``metrics.csv`` of some runs, a row an epoch and stage, with ``config_hash``."""
    empty = pyarrow.schema({"epoch": INT, "stage": TEXT, "config_hash": TEXT}).empty_table()
    found = kept(runs, ["epochs_csv"])
    tables = [read_epochs(run, row["epochs_csv"]) for run, row in found if row["epochs_csv"]]
    return pyarrow.concat_tables([empty, *tables], promote_options="default").to_pandas()


def predictions(runs: pandas.DataFrame, split: str = "test") -> dict[str, numpy.ndarray]:
    """Return the predicted label of every image, (N,) uint8, by config hash, where it is kept."""
    name = f"{split}_predicted"
    found = ((run["config_hash"], row[name]) for run, row in kept(runs, [name]))
    return {key: numpy.frombuffer(labels, numpy.uint8) for key, labels in found if labels}


def accuracies(runs: pandas.DataFrame, split: str) -> pandas.DataFrame:
    """Return the accuracy of each label ("0"), each group ("0-4") and of all images ("all")."""
    tables = [pandas.DataFrame(index=runs.index)]
    for _, rows in runs.groupby(runs.groups.map(json.dumps) + runs.train_counts.map(len).map(str)):
        confusion = numpy.stack(rows[f"{split}_confusion"])  # (runs, labels, labels)
        images, right = confusion.sum(axis=2), numpy.diagonal(confusion, axis1=1, axis2=2)
        with numpy.errstate(invalid="ignore"):  # nan for a label without images
            per_label = right / images
        table = {str(label): values for label, values in enumerate(per_label.T)}
        for name, labels in rows.groups.iloc[0].items():
            if len(labels) < per_label.shape[1]:
                table[name] = per_label[:, labels].mean(axis=1)
        table[ALL] = right.sum(axis=1) / images.sum(axis=1)
        tables.append(pandas.DataFrame(table, rows.index))
    return pandas.concat(tables[1:] or tables).reindex(runs.index)


def write(rows: Iterable[Row], file: Path) -> None:
    """Write rows, with what is kept beside the records, to one Parquet file."""
    content, iterator = io.BytesIO(), iter(rows)
    options = {"compression": "zstd", "write_page_checksum": True}
    with parquet.ParquetWriter(content, SCHEMA, **options) as writer:
        while batch := list(islice(iterator, ROWS)):
            for row in batch:
                row |= {name: json.dumps(row[name]) for name in JSON}
                row |= {name: row[name].tolist() for name in CONFUSIONS}
                row["data_sha256"] = None if pandas.isna(row["data_sha256"]) else row["data_sha256"]
            writer.write_table(pyarrow.Table.from_pylist(batch, SCHEMA))
    write_whole(file, content.getvalue())


def pack(runs: pandas.DataFrame, file: Path) -> None:
    """Write runs with their epochs and predictions to one Parquet file."""
    write(({**run, **row} for run, row in kept(runs, [*KEPT])), file)


def check_kept(run: Row, row: Row) -> None:
    """Raise ConfigError if epochs or predictions are damaged or contradict the record."""
    if row["epochs_csv"]:
        read_epochs(run, row["epochs_csv"])
    for split in ("val", "test"):
        counts = run[f"{split}_confusion"].sum(axis=0)
        labels = numpy.frombuffer(row[f"{split}_predicted"] or b"", numpy.uint8)
        if labels.size and not numpy.array_equal(numpy.bincount(labels, None, len(counts)), counts):
            error = ValueError(f"those of {split} are not those of its confusion matrix")
            raise damaged(f"predictions of {run['config_hash']} in {run['file']}", error)


def check(roots: Sequence[Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all that is kept of the runs below some folders.

    Returns:
        The runs, equal ones too, and a line for each that is damaged or disagrees with another.
    """
    for root in roots:
        if not root.exists():
            raise ConfigError(f"records: there is no folder {root}")
    runs, lines = read_all(roots)
    if runs.empty and not lines:
        raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")
    for file, its in by_file(runs).items():
        try:
            for run, row in kept_in(file, its, [*KEPT]):
                check_kept(run, row)
        except ConfigError as error:
            lines.append(str(error))
    again = runs[runs.config_hash.duplicated(keep=False)]
    numbers = again[NUMBERS].map(lambda value: json.dumps(numpy.asarray(value).tolist()))
    differ = numbers.sum(axis=1).groupby(again.config_hash).transform("nunique") > 1
    for key, files in again[differ].groupby("config_hash", sort=False).file:
        lines.append(f"{' and '.join(files)} are of one run, {key}, and differ")
    return runs, lines


def merge(roots: Sequence[Path], into: Path) -> tuple[int, int]:
    """Write all runs below some folders to one file; return their number and that of equal ones.

    Args:
        roots: Of equal runs, the one in the first root is written.
        into: A new file ``*.parquet``, or the folder of a new ``records.parquet``.
    """
    file = into if into.suffix == PACKED else into / "records.parquet"
    if file.exists():
        raise ConfigError(f"--into: {file} is there already; choose another one")
    runs, lines = check(roots)
    if lines:
        more = f"; and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise ConfigError(f"nothing is written: {lines[0]}{more}")
    once = runs.drop_duplicates("config_hash")
    pack(once, file)
    return len(once), len(runs) - len(once)
