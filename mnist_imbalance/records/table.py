"""All finished runs as one data frame, from run folders and Parquet files alike."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
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
    read_predictions,
    read_record,
    reason,
    writing_whole,
)

ROWS = 1000  # of a row group
INT, FLOAT, TEXT = pyarrow.int64(), pyarrow.float64(), pyarrow.string()
COUNTS = pyarrow.list_(INT)
SCORES = {
    **{"loss": FLOAT, "accuracy": FLOAT, "balanced_accuracy": FLOAT},
    **{"confusion": pyarrow.list_(COUNTS), "positive": COUNTS, "positive_of_own": COUNTS},
    "metrics": TEXT,
}
COLUMNS = {
    **dict.fromkeys(("config_hash", "condition", "model", "data", "loss", "optimizer"), TEXT),
    **dict.fromkeys(("schema", "seed", "data_seed", "epochs", "steps"), INT),
    **{"train_counts": COUNTS, "groups": TEXT, "data_sha256": TEXT},
    **{f"{split}_{name}": kind for split in SPLITS for name, kind in SCORES.items()},
    **{"seconds": FLOAT, "test_seconds": FLOAT, "device": TEXT, "threads": INT},
    **{"versions": TEXT, "config": TEXT},
}
PREDICTED = ("val_predicted", "test_predicted")
KEPT = {"epochs_csv": TEXT, **dict.fromkeys(PREDICTED, pyarrow.binary())}  # beside the record
SCHEMA = pyarrow.schema({**COLUMNS, **KEPT})
JSON = ("groups", "versions", "config", *(f"{split}_metrics" for split in SPLITS))


def row_of(result: Result, file: Path) -> dict[str, Any]:
    """Return a run's row, see `read`."""
    row = {name: value for name, value in result if name in COLUMNS}
    for split in SPLITS:
        scores = getattr(result, split)
        row |= {f"{split}_{name}": getattr(scores, name) for name in SCORES}
        row[f"{split}_confusion"] = numpy.array(scores.confusion)
    row |= {"schema": 2, "seconds": result.seconds.fit, "test_seconds": result.seconds.test}
    folder = "" if file.suffix == ".parquet" else str(file.parent)
    return row | {"folder": folder, "file": str(file)}


def result_of(row: Mapping[str, Any]) -> Result:
    """Return the result in a row of a Parquet file.

    Raises:
        ValueError: It is damaged.
    """
    record = {**row, **{name: json.loads(row[name] or "null") for name in JSON}}
    for split in SPLITS:
        record[split] = {name: record[f"{split}_{name}"] for name in SCORES}
    record["seconds"] = {"fit": row["seconds"], "test": row["test_seconds"]}
    return Result.model_validate(record)


def read_packed(file: Path, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read some columns of a Parquet file, row by row.

    Raises:
        ConfigError: It is damaged, or holds no records.
    """
    try:
        packed = parquet.ParquetFile(file, page_checksum_verification=True)
        missing = [name for name in SCHEMA.names if name not in packed.schema_arrow.names]
        if missing:
            raise ValueError(f"no column {missing[0]}; pack the run folders again")
        for batch in packed.iter_batches(ROWS, columns=list(columns)):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors among them
        raise ConfigError(f"{file} is damaged ({reason(error)})") from error


def read_all(roots: Iterable[str | Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records as `read` does, equal ones too."""
    rows, damaged = [], []
    for root in map(Path, roots):
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            try:
                if file.name == "result.json":
                    result = read_record(file.parent)
                    rows += [row_of(result, file)] if result else []
                elif file.suffix == ".parquet":
                    for row in read_packed(file, COLUMNS):
                        try:
                            rows.append(row_of(result_of(row), file))
                        except ValueError as error:
                            where = f"{file}: {row['config_hash']}"
                            damaged.append(f"{where} is damaged ({reason(error)})")
            except ConfigError as error:
                damaged.append(str(error))
    return pandas.DataFrame(rows, columns=[*COLUMNS, "folder", "file"]), damaged


def read(roots: Iterable[str | Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records below some folders: a row a run, of equal runs the first.

    Returns:
        The runs, and a line for each damaged record. The columns are the keys of ``result.json``,
        those of its scores as ``test_loss`` and ``test_confusion``, an array (C, C); ``seconds`` of
        training; ``file``; and ``folder``, empty for a packed run.
    """
    runs, damaged = read_all(roots)
    return runs.drop_duplicates("config_hash", ignore_index=True), damaged


def kept(
    runs: pandas.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each run, and some columns of `KEPT` of it; None for what is not kept.

    Raises:
        ConfigError: A file is damaged.
    """
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs.to_dict("records"):
        files.setdefault(run["file"], {})[run["config_hash"]] = run
    for file, known in ((Path(name), known) for name, known in files.items()):
        if file.suffix == ".parquet":
            for row in read_packed(file, ["config_hash", *columns]):
                if row["config_hash"] in known:
                    yield known[row["config_hash"]], row
            continue
        row, metrics = dict.fromkeys(columns), file.with_name("metrics.csv")
        if "epochs_csv" in columns and metrics.exists():
            row["epochs_csv"] = metrics.read_text("utf-8")
        if {*PREDICTED} & {*columns}:
            for split, labels in (read_predictions(file.parent) or {}).items():
                row[f"{split}_predicted"] = labels.tobytes()
        yield from ((run, row) for run in known.values())


def read_epochs(run: Mapping[str, Any], text: str) -> pyarrow.Table:
    """Parse a run's ``metrics.csv``.

    Raises:
        ConfigError: It is damaged.
    """
    names = text.partition("\n")[0].split(",")
    types = dict.fromkeys(names, FLOAT) | {"epoch": INT, "stage": TEXT}
    try:
        options = csv.ConvertOptions(column_types=types)
        table = csv.read_csv(pyarrow.py_buffer(text.encode()), convert_options=options)
        last = table.group_by("stage").aggregate([("epoch", "max")]).sort_by("stage").to_pydict()
        if last != {"stage": ["train", "val"], "epoch_max": [run["epochs"] - 1] * 2}:
            raise ValueError("not all epochs of train and val")
        if f"accuracy_{len(run['train_counts']) - 1}" not in names:
            raise ValueError("no accuracy of some label")
    except (KeyError, ValueError) as error:
        where = f"{run['folder']}/metrics.csv" if run["folder"] else f"{run['file']}: epochs_csv"
        raise ConfigError(f"{where} is damaged ({reason(error)})") from error
    return table.append_column("config_hash", pyarrow.repeat(run["config_hash"], len(table)))


def epochs(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return ``metrics.csv`` of some runs, a row an epoch and stage, with ``config_hash``.

    Raises:
        ConfigError: A file is damaged.
    """
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
    alike = [runs.groups.map(json.dumps), runs.train_counts.map(len)]
    for _, rows in runs.groupby(alike, sort=False):
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


def pack(runs: pandas.DataFrame, file: Path) -> None:
    """Write runs with their epochs and predictions to one Parquet file.

    Raises:
        ConfigError: A file is damaged.
    """
    rows = ({**run, **row} for run, row in kept(runs, [*KEPT]))
    with (
        writing_whole(file) as part,
        parquet.ParquetWriter(part, SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        while batch := list(islice(rows, ROWS)):
            for row in batch:
                row |= {name: json.dumps(row[name]) for name in JSON}
                row |= {
                    f"{split}_confusion": row[f"{split}_confusion"].tolist() for split in SPLITS
                }
                row["data_sha256"] = None if pandas.isna(row["data_sha256"]) else row["data_sha256"]
            writer.write_table(pyarrow.Table.from_pylist(batch, SCHEMA))


def numbers_of(run: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers in which equal runs agree; None for those that are not kept.

    Metrics are left out, since two users may choose different ones.

    Raises:
        ConfigError: The epochs are damaged, or the predictions contradict the confusion matrix.
    """
    for split in ("val", "test"):
        predicted, counts = row[f"{split}_predicted"], run[f"{split}_confusion"].sum(axis=0)
        labels = numpy.frombuffer(predicted or b"", numpy.uint8)
        if predicted and not numpy.array_equal(numpy.bincount(labels, None, len(counts)), counts):
            raise ConfigError(
                f"{run['file']}: {run['config_hash']} is damaged (the predicted labels of {split} "
                "are not those of its confusion matrix)"
            )
    numbers = {name: row[name] for name in PREDICTED}
    for split in SPLITS:
        for name in ("confusion", "loss", "positive", "positive_of_own"):
            numbers[f"{split}_{name}"] = numpy.array(run[f"{split}_{name}"]).tolist()
    if row["epochs_csv"]:
        table = read_epochs(run, row["epochs_csv"])
        shared = [name for name in table.column_names if name not in run["test_metrics"]]
        numbers["epochs"] = table.select(sorted(shared)).to_pydict()
    return numbers


def check_all(roots: Sequence[Path]) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records with what is kept beside them.

    Returns:
        The runs, equal ones too, and a line for each that is damaged or disagrees with another.

    Raises:
        ConfigError: A folder is missing, or none holds records.
    """
    for root in roots:
        if not root.exists():
            raise ConfigError(f"records: there is no folder {root}")
    runs, lines = read_all(roots)
    if runs.empty and not lines:
        raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")
    again = {*runs.config_hash[runs.config_hash.duplicated()]}
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for _, rows in runs.groupby("file", sort=False):
        try:
            for run, row in kept(rows, [*KEPT]):
                key, numbers = run["config_hash"], numbers_of(run, row)
                if key in again:
                    first, theirs = known.setdefault(key, (run["file"], numbers))
                    pairs = ((numbers[name], theirs[name]) for name in numbers.keys() & theirs)
                    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
                        lines.append(f"{first} and {run['file']} differ in run {key}")
        except ConfigError as error:
            lines.append(str(error))
    return runs, lines


def check(roots: Sequence[Path]) -> tuple[int, list[str]]:
    """Return how many runs there are, and a line for each problem, see `check_all`."""
    runs, lines = check_all(roots)
    return runs.config_hash.nunique(), lines


def merge(roots: Sequence[Path], into: Path) -> tuple[int, int]:
    """Write all runs below some folders to one file; return their number and that of equal ones.

    Args:
        roots: Of equal runs, the one in the first root is written.
        into: A file ``*.parquet``, or the folder of a ``records.parquet``.

    Raises:
        ConfigError: A record is damaged, two of one run differ, there are none, or the file exists.
    """
    file = into if into.suffix == ".parquet" else into / "records.parquet"
    if file.exists():
        raise ConfigError(f"--into: {file} is there already; choose another one")
    runs, lines = check_all(roots)
    if lines:
        more = f"; and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise ConfigError(f"nothing is written: {lines[0]}{more}")
    once = runs.drop_duplicates("config_hash")
    pack(once, file)
    return len(once), len(runs) - len(once)
