"""All finished runs as one data frame, from run folders and Parquet files alike."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
from pyarrow import csv, parquet

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config
from mnist_imbalance.records.result import (
    Result,
    damaged,
    read_predictions,
    read_record,
    write_whole,
)

Row = dict[str, Any]
PACKED = ".parquet"
SPLITS = ("train", "val", "test")
INT, FLOAT, TEXT, BYTES = pyarrow.int64(), pyarrow.float64(), pyarrow.string(), pyarrow.binary()
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
KEPT = {"epochs_csv": TEXT, "val_predicted": BYTES, "test_predicted": BYTES}  # beside the record
SCHEMA = pyarrow.schema({**COLUMNS, **KEPT})
JSON = ("groups", "versions", "config", *(f"{split}_metrics" for split in SPLITS))
CONFUSIONS = [f"{split}_confusion" for split in SPLITS]
COMPARED = [f"{split}_{name}" for split in SPLITS for name in ("confusion", "loss", "positive")]


def row_of(result: Result, file: Path) -> Row:
    """Return the row of a result, see `read`."""
    row = {name: value for name, value in result if name in COLUMNS}
    for split in SPLITS:
        scores = getattr(result, split)
        row |= {f"{split}_{name}": getattr(scores, name) for name in SCORES}
        row[f"{split}_confusion"] = numpy.array(scores.confusion)
    row |= {"schema": 2, "seconds": result.seconds.fit, "test_seconds": result.seconds.test}
    return row | {"folder": str(file.parent), "file": str(file)}


def read_columns(file: Path, columns: Iterable[str]) -> list[Row]:
    """Return columns of a Parquet file; raise ConfigError if it is damaged or something else."""
    try:
        packed = parquet.read_table(file, columns=[*columns], page_checksum_verification=True)
    except (OSError, ValueError) as error:  # pyarrow's errors among them
        raise damaged(file, error) from error
    rows: list[Row] = packed.to_pylist()
    return rows


def read_packed(file: Path) -> list[Row]:
    """Return the rows of a Parquet file; their results were checked when it was written."""
    rows = read_columns(file, COLUMNS)
    for row in rows:
        row |= {name: json.loads(row[name]) for name in JSON}
        row |= {name: numpy.array(row[name]) for name in CONFUSIONS}
        row |= {"folder": "", "file": str(file)}
        if hash_config(row["config"]) != row["config_hash"]:
            raise damaged(file, ValueError(f"{row['config_hash']} is not the hash of its config"))
    return rows


def read(roots: Iterable[str | Path], *, once: bool = True) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records below some folders: a row a run, of equal runs the first, or ``once=False``.

    Returns:
        The runs, and a line for each damaged record. The columns are the keys of ``result.json``,
        those of its scores as ``test_loss`` and ``test_confusion``, an array (C, C); ``seconds`` of
        training; ``file``; and ``folder``, empty for a packed run.
    """
    rows, lines = [], []
    for root in map(Path, roots):
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            try:
                if file.name == "result.json" and (result := read_record(file.parent)):
                    rows.append(row_of(result, file))
                elif file.suffix == PACKED:
                    rows += read_packed(file)
            except ConfigError as error:
                lines.append(str(error))
    runs = pandas.DataFrame(rows, columns=[*COLUMNS, "folder", "file"])
    return runs.drop_duplicates("config_hash", ignore_index=True) if once else runs, lines


def read_beside(folder: Path, columns: Iterable[str]) -> Row:
    """Return columns of `KEPT` from the files beside a record; None where there is no file."""
    row, metrics = dict.fromkeys(columns), folder / "metrics.csv"
    if "epochs_csv" in row and metrics.exists():
        row["epochs_csv"] = metrics.read_text("utf-8")
    if row.keys() - {"epochs_csv"}:
        for split, labels in (read_predictions(folder) or {}).items():
            row[f"{split}_predicted"] = labels.tobytes()
    return row


def kept(runs: pandas.DataFrame, columns: Iterable[str] = KEPT) -> Iterator[tuple[Row, Row]]:
    """Yield each run and what is kept beside its record; raise ConfigError if it is damaged."""
    files: dict[Path, dict[str, Row]] = {}
    for run in runs.to_dict("records"):
        files.setdefault(Path(run["file"]), {})[run["config_hash"]] = run
    for file, its in files.items():
        if file.suffix == PACKED:
            found = read_columns(file, ["config_hash", *columns])
            rows = {row.pop("config_hash"): row for row in found}
        else:
            rows = dict.fromkeys(its, read_beside(file.parent, columns))
        yield from ((run, rows[key]) for key, run in its.items())


def read_epochs(run: Row, text: str) -> pyarrow.Table:
    """Return a run's ``metrics.csv`` as a table; raise ConfigError if it is damaged."""
    names = text.partition("\n")[0].split(",")
    types = dict.fromkeys(names, FLOAT) | {"epoch": INT, "stage": TEXT}
    try:
        content, options = pyarrow.py_buffer(text.encode()), csv.ConvertOptions(column_types=types)
        table = csv.read_csv(content, csv.ReadOptions(use_threads=False), convert_options=options)
        if len(table) != 2 * run["epochs"]:
            raise ValueError("not all epochs of train and val")
    except ValueError as error:
        raise damaged(f"metrics.csv of {run['config_hash']} in {run['file']}", error) from error
    return table.append_column("config_hash", pyarrow.repeat(run["config_hash"], len(table)))


def epochs(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return ``metrics.csv`` of some runs, a row an epoch and stage, with ``config_hash``."""
    empty = pyarrow.schema({"epoch": INT, "stage": TEXT, "config_hash": TEXT}).empty_table()
    found = ((run, row["epochs_csv"]) for run, row in kept(runs, ["epochs_csv"]))
    tables = [read_epochs(run, text) for run, text in found if text is not None]
    return pyarrow.concat_tables([empty, *tables], promote_options="default").to_pandas()


def predictions(runs: pandas.DataFrame, split: str = "test") -> dict[str, numpy.ndarray]:
    """Return the predicted label of every image, (N,) uint8, by config hash, where it is kept."""
    name = f"{split}_predicted"
    found = ((run["config_hash"], row[name]) for run, row in kept(runs, [name]))
    return {key: numpy.frombuffer(labels, numpy.uint8) for key, labels in found if labels}


def accuracies(runs: pandas.DataFrame, split: str) -> pandas.DataFrame:
    """Return the accuracy of each label ("0"), each group ("0-4") and of all images ("all")."""
    rows = []
    for confusion, groups in zip(runs[f"{split}_confusion"], runs.groups, strict=True):
        with numpy.errstate(invalid="ignore"):  # nan for a label without images
            per_label = confusion.diagonal() / confusion.sum(axis=1)
        row = {str(label): accuracy for label, accuracy in enumerate(per_label)}
        for name, labels in groups.items():
            if len(labels) < len(per_label):
                row[name] = per_label[labels].mean()
        rows.append(row | {"all": confusion.trace() / confusion.sum()})
    return pandas.DataFrame(rows, runs.index)


def write(rows: Iterable[Row], file: Path) -> None:
    """Write rows with the columns of `SCHEMA` to one Parquet file."""
    frame, content = pandas.DataFrame(rows), io.BytesIO()
    for name in JSON:
        frame[name] = frame[name].map(json.dumps)
    for name in CONFUSIONS:
        frame[name] = frame[name].map(numpy.ndarray.tolist)
    table = pyarrow.Table.from_pandas(frame, SCHEMA, preserve_index=False)
    parquet.write_table(table, content, compression="zstd", write_page_checksum=True)
    write_whole(file, content.getvalue())


def pack(runs: pandas.DataFrame, file: Path) -> None:
    """Write runs with their epochs and predictions to one Parquet file."""
    write((run | row for run, row in kept(runs)), file)


def check(roots: Sequence[Path]) -> pandas.DataFrame:
    """Return all runs below some folders, equal ones too; print damaged and disagreeing ones."""
    for root in roots:
        if not root.exists():
            raise ConfigError(f"records: there is no folder {root}")
    runs, lines = read(roots, once=False)
    if runs.empty and not lines:
        raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")
    try:
        for run, row in kept(runs):
            if row["epochs_csv"] is not None:
                read_epochs(run, row["epochs_csv"])
    except ConfigError as error:
        lines.append(str(error))
    again = runs[runs.config_hash.duplicated(keep=False)]
    numbers = again[COMPARED].map(lambda value: json.dumps(numpy.asarray(value).tolist()))
    differ = numbers.sum(axis=1).groupby(again.config_hash).transform("nunique") > 1
    for key, files in again[differ].groupby("config_hash", sort=False).file:
        lines.append(f"{' and '.join(files)} are of one run, {key}, and differ")
    for line in lines:
        print(line)
    if lines:
        raise ConfigError(f"records: {len(lines)} damaged or disagreeing, named above")
    return runs


def merge(roots: Sequence[Path], into: Path) -> tuple[int, int]:
    """Write all runs to one file, of equal ones the first; return how many, and equal ones."""
    file = into if into.suffix == PACKED else into / "records.parquet"
    if file.exists():
        raise ConfigError(f"--into: {file} is there already; choose another one")
    runs = check(roots)
    once = runs.drop_duplicates("config_hash")
    pack(once, file)
    return len(once), len(runs) - len(once)
