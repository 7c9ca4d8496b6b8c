"""All finished runs as one data frame, from run folders and Parquet files alike."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
from pyarrow import parquet

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import result

Row = dict[str, Any]
PACKED = ".parquet"
SPLITS = ("train", "val", "test")
INT, FLOAT, TEXT, BYTES = pyarrow.int64(), pyarrow.float64(), pyarrow.string(), pyarrow.binary()
COUNTS = pyarrow.list_(INT)
SCORES = {"loss": FLOAT, "accuracy": FLOAT, "balanced_accuracy": FLOAT, "metrics": TEXT}
SCORES |= {"confusion": pyarrow.list_(COUNTS), "positive": COUNTS, "positive_of_own": COUNTS}
COLUMNS = dict.fromkeys(("config_hash", "condition", "model", "data", "loss", "optimizer"), TEXT)
COLUMNS |= dict.fromkeys(("schema", "seed", "data_seed", "epochs", "steps", "threads"), INT)
COLUMNS |= {"train_counts": COUNTS, "seconds": FLOAT, "test_seconds": FLOAT}
COLUMNS |= dict.fromkeys(("groups", "data_sha256", "device", "versions", "config"), TEXT)
COLUMNS |= {f"{split}_{name}": kind for split in SPLITS for name, kind in SCORES.items()}
KEPT = {"epochs_csv": TEXT, "val_predicted": BYTES, "test_predicted": BYTES}  # beside the record
JSON = {"groups", "versions", "config", *(f"{split}_metrics" for split in SPLITS)}
CONFUSIONS = {f"{split}_confusion" for split in SPLITS}
COMPARED = [f"{split}_{name}" for split in SPLITS for name in ("confusion", "loss", "positive")]


def dataset_of(config: Mapping[str, Any]) -> str:
    """Return the name of a run's data set: of its file, of torchvision's, or of its source."""
    source = config.get("data.source._target_", "mnist").rpartition(".")[2].removeprefix("read_")
    return Path(config.get("data.source.file", config.get("data.source.name", source))).stem.lower()


def row_of(run: result.Result, file: Path) -> Row:
    """Return the row of a result, see `read`."""
    row = {name: value for name, value in run if name in COLUMNS}
    for split in SPLITS:
        scores = getattr(run, split)
        row |= {f"{split}_{name}": getattr(scores, name) for name in SCORES}
        row[f"{split}_confusion"] = numpy.array(scores.confusion)
    row |= {"seconds": run.seconds["fit"], "test_seconds": run.seconds["test"]}
    return row | {"schema": run.schema_version, "folder": str(file.parent), "file": str(file)}


def read_packed(file: str | Path, columns: Iterable[str]) -> list[Row]:
    """Return columns of a Parquet file, one row per run; raise ConfigError if it is damaged."""
    try:
        packed = parquet.read_table(file, columns=[*columns], page_checksum_verification=True)
    except (OSError, ValueError) as error:  # pyarrow's errors among them
        raise result.damaged(file, error) from error
    rows: list[Row] = packed.to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in row.keys() & JSON}
        row |= {name: numpy.array(row[name]) for name in row.keys() & CONFUSIONS}
        row |= {"folder": "", "file": str(file)}
    return rows


def read(roots: Iterable[str | Path], *, once: bool = True) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records below some folders: one row per run.

    Of runs with one config hash, only the first is kept unless ``once=False``.

    Returns:
        The runs, and a line for each damaged record. The columns are the keys of ``result.json``,
        those of its scores as ``test_loss`` and ``test_confusion``, an array (K, K); ``seconds`` of
        training; ``dataset``; ``file``; and ``folder``, empty for a packed run.
    """
    rows, lines = [], []
    for root in map(Path, roots):
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            try:
                if file.name == "result.json" and (run := result.read_record(file.parent)):
                    rows.append(row_of(run, file))
                elif file.suffix == PACKED:
                    rows += read_packed(file, COLUMNS)
            except ConfigError as error:
                lines.append(str(error))
    runs = pandas.DataFrame(rows, columns=[*COLUMNS, "folder", "file"])
    runs["dataset"] = [*map(dataset_of, runs.config)]
    return runs.drop_duplicates("config_hash", ignore_index=True) if once else runs, lines


def kept(runs: pandas.DataFrame, columns: Iterable[str] = KEPT) -> pandas.DataFrame:
    """Return what is kept beside the records of runs, by config hash; ConfigError if damaged."""
    rows: list[Row] = []
    for run in runs.drop_duplicates("file").itertuples():
        if not run.folder:
            rows += read_packed(run.file, ["config_hash", *columns])
            continue
        labels = result.read_predictions(Path(run.folder)).items()
        row: Row = {f"{split}_predicted": own.tobytes() for split, own in labels}
        metrics = Path(run.folder, "metrics.csv")
        row["epochs_csv"] = metrics.read_text("utf-8") if metrics.exists() else None
        rows.append({"config_hash": run.config_hash, **row})
    found = pandas.DataFrame(rows, columns=["config_hash", *columns])
    return runs[["config_hash"]].merge(found.drop_duplicates("config_hash"))


def epochs(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return ``metrics.csv`` of some runs: one row per run, epoch and split (column "stage")."""
    tables = [
        pandas.read_csv(io.BytesIO(text.encode()), engine="pyarrow").assign(config_hash=key)
        for key, text in kept(runs, ["epochs_csv"]).dropna().itertuples(index=False)
    ]
    empty = pandas.DataFrame(columns=["epoch", "stage", "config_hash"])
    return pandas.concat(tables, ignore_index=True) if tables else empty


def predictions(runs: pandas.DataFrame, split: str = "test") -> dict[str, numpy.ndarray]:
    """Return the predicted label of every image, (N,) uint8, by config hash, where it is kept."""
    found = kept(runs, [f"{split}_predicted"]).dropna().itertuples(index=False)
    return {key: numpy.frombuffer(labels, numpy.uint8) for key, labels in found}


def accuracies(runs: pandas.DataFrame, split: str) -> pandas.DataFrame:
    """Return the accuracy of each label ("0"), each group ("0-4") and of all images ("all")."""
    rows = []
    for confusion, groups in zip(runs[f"{split}_confusion"], runs.groups, strict=True):
        with numpy.errstate(invalid="ignore"):  # nan for a label without images
            per_label = confusion.diagonal() / confusion.sum(axis=1)
            row = {str(label): accuracy for label, accuracy in enumerate(per_label)}
            for name, labels in groups.items():
                if len(labels) < len(per_label):
                    row[name] = pandas.Series(per_label[labels]).mean()
        rows.append(row | {"all": confusion.trace() / confusion.sum()})
    return pandas.DataFrame(rows, runs.index)


def pack(runs: pandas.DataFrame, file: Path) -> None:
    """Write runs with their epochs and predictions, see `kept`, to one Parquet file."""
    table = runs if KEPT.keys() <= {*runs} else runs.merge(kept(runs), on="config_hash")
    texts = {name: table[name].map(json.dumps) for name in JSON}
    lists = {name: table[name].map(numpy.ndarray.tolist) for name in CONFUSIONS}
    schema = pyarrow.schema(COLUMNS | KEPT)
    packed = pyarrow.Table.from_pandas(table.assign(**texts, **lists), schema, preserve_index=False)
    parquet.write_table(
        packed, content := io.BytesIO(), compression="zstd", write_page_checksum=True
    )
    result.write_whole(file, content.getvalue())


def merge(roots: Sequence[Path], into: Path | None = None) -> tuple[int, int]:
    """Read all records and write them to one file; print wrong ones; count runs and equal ones."""
    file = into if not into or into.suffix == PACKED else into / "records.parquet"
    if file and file.exists():
        raise ConfigError(f"--into: {file} is there already; choose another one")
    runs, lines = read(roots, once=False)
    if runs.empty and not lines:
        raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")
    try:
        kept(runs)
    except ConfigError as error:
        lines.append(str(error))
    again = runs[runs.config_hash.duplicated(keep=False)]
    numbers = again[COMPARED].map(lambda value: json.dumps(numpy.asarray(value).tolist()))
    differ = numbers.sum(axis=1).groupby(again.config_hash).transform("nunique") > 1
    for key, files in again[differ].groupby("config_hash", sort=False).file:
        lines.append(f"{' and '.join(files)} are of one run, {key}, and differ")
    if lines:
        print(*lines, sep="\n")
        raise ConfigError(f"records: {len(lines)} damaged or disagreeing, named above")
    once = runs.drop_duplicates("config_hash")
    if file:
        pack(once, file)
    return len(once), len(runs) - len(once)
