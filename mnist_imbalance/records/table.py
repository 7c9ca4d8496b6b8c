"""All finished runs as one data frame, from run folders and Parquet files alike."""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
from pyarrow import parquet

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import identity, result

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
COLUMNS |= {"class_names": pyarrow.list_(TEXT)}  # which older files do not have
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
    folder = "" if file.suffix == PACKED else str(file.parent)
    return row | {"schema": run.schema_version, "folder": folder, "file": str(file)}


def run_of(row: Row, file: Path) -> result.Result | ConfigError:
    """Return the result in a row of a Parquet file, or why it is none."""
    scores = {
        split: {name: row[f"{split}_{name}"] for name in result.Scores.model_fields}
        for split in SPLITS
    }
    seconds = {"fit": row["seconds"], "test": row["test_seconds"]}
    try:
        return result.Result.model_validate(row | scores | {"seconds": seconds})
    except ValueError as error:
        return result.damaged(f"{file}, {row['config_hash']},", error)


def read_packed(file: str | Path, columns: Iterable[str]) -> list[Row]:
    """Return columns of a Parquet file, one row per run; raise ConfigError if it is damaged."""
    try:
        absent = {"class_names"} - {*parquet.read_schema(file).names}
        wanted = [name for name in columns if name not in absent]
        packed = parquet.read_table(file, columns=wanted, page_checksum_verification=True)
    except (OSError, ValueError) as error:  # pyarrow's errors among them
        raise result.damaged(file, error) from error
    rows: list[Row] = packed.to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in row.keys() & JSON}
    return rows


def results_in(file: Path) -> Iterator[result.Result | ConfigError]:
    """Yield the results in a file, and why others are damaged."""
    try:
        if file.name == "result.json" and (run := result.read_record(file.parent)):
            yield run
        elif file.suffix == PACKED:
            yield from (run_of(row, file) for row in read_packed(file, COLUMNS))
    except ConfigError as error:
        yield error


def read(roots: Iterable[str | Path], *, once: bool = True) -> tuple[pandas.DataFrame, list[str]]:
    """Read all records below folders, one row per run, and return a line for each damaged one.

    The columns are the keys of ``result.json``, those of its scores as ``test_loss`` and
    ``test_confusion``, an array (K, K); ``seconds`` of training; ``dataset``; ``file``; and
    ``folder``, empty for a packed run. Of one config hash only the first is kept if ``once``.
    """
    rows, lines = [], []
    for root in map(Path, roots):
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            for run in results_in(file):
                if isinstance(run, ConfigError):
                    lines.append(str(run))
                else:
                    rows.append(row_of(run, file))
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
    """Return the predicted labels of images, (N,) uint8 or uint16, by config hash, where kept."""
    found = kept(runs, [f"{split}_predicted"]).dropna().itertuples(index=False)
    sizes = dict(zip(runs.config_hash, runs[f"{split}_confusion"].map(len), strict=True))
    kinds = {key: numpy.min_scalar_type(size - 1) for key, size in sizes.items()}
    return {key: numpy.frombuffer(labels, kinds[key]) for key, labels in found}


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


def contradictions(runs: pandas.DataFrame, scores: pandas.Series) -> Iterator[str]:
    """Yield a line for each record that contradicts itself, or another one of other seeds."""
    compose, logged = cache(compose_with), epochs(runs).query("stage == 'train'")
    logged = runs.config_hash.map(logged.groupby("config_hash").loss.last()).fillna(runs.train_loss)
    for run in runs.assign(logged=logged).itertuples():
        batches = -(-sum(run.train_counts) // run.config["data.batch_size"])
        whole = not any(key.startswith(("data.sampler.", "trainer.limit")) for key in run.config)
        wrong = {
            "metrics.csv": not math.isclose(run.logged, run.train_loss, rel_tol=1e-4),
            "steps": whole and not (run.epochs - 1) * batches < run.steps <= run.epochs * batches,
            "condition": identity.is_misnamed(run, compose),
        }
        found = [f"{name} is of another run" for name in wrong if wrong[name]]
        yield from (f"{run.file}, {run.config_hash}: {each}" for each in found)

    def part(wanted: Callable[[str], Any]) -> list[str]:
        return [json.dumps({k: v for k, v in all.items() if wanted(k)}) for all in runs.config]

    data = [
        part(re.compile(r"data\.(copi|fill|keep|minority|seed|source|val)").match),
        runs.data_sha256,
    ]
    counts = runs.train_counts.map(str).groupby(data, dropna=False).transform("nunique") > 1
    unseeded = [part(lambda key: key not in identity.SEEDS), scores]
    copied = runs.config_hash.groupby(unseeded).transform("nunique") > 1
    for name, is_wrong in {"train_counts differ": counts, "scores are equal": copied}.items():
        if is_wrong.any():
            yield f"{name}, of {', '.join(runs.config_hash[is_wrong].unique())}"


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
    scores = runs[COMPARED].map(lambda value: json.dumps(numpy.asarray(value).tolist())).sum(axis=1)
    differ = scores.groupby(runs.config_hash).transform("nunique") > 1
    for key, files in runs[differ].groupby("config_hash", sort=False).file:
        lines.append(f"{' and '.join(files)} are of one run, {key}, and differ")
    lines = lines or [*contradictions(runs, scores)]
    if lines:
        print(*lines, sep="\n")
        raise ConfigError(f"records: {len(lines)} damaged or disagreeing, named above")
    once = runs.drop_duplicates("config_hash")
    if file:
        pack(once, file)
    return len(once), len(runs) - len(once)
