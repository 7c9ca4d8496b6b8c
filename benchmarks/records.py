"""How the records of a large study grow: their file, a merge and the report, over the runs.

``python -m benchmarks.records 10000`` prints a point. The records are made up: those of the
repository again and again, with other seeds.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas

from benchmarks.measure import Row, row, run
from mnist_imbalance.records import table
from mnist_imbalance.records.identity import SEEDS, hash_config

RUNS = (1_000, 10_000, 100_000)
APART = 1_000  # between the seeds of a record and of the next one that is made from it
QUANTITIES = {"its file": "MiB", "merging two halves": "s", "the report": "s"}
QUANTITIES |= {"the report, peak memory": "MiB"}


def made_up() -> Iterator[dict[str, Any]]:
    """Yield rows without end, with all columns of a packed file."""
    found, _ = table.read(["results"])
    real = found.merge(table.kept(found), on="config_hash").to_dict("records")
    for again in count():
        for known in real:
            config = dict(known["config"])
            config |= {key: config[key] + APART * again for key in SEEDS & config.keys()}
            seeds = {"seed": config["seed"], "data_seed": config["data.seed"]}
            yield {**known, **seeds, "config": config, "config_hash": hash_config(config)}


def point(runs: int) -> list[float]:
    """Make records up, in two files, merge these and write the report; see `QUANTITIES`."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        rows = made_up()
        for half in ("one", "two"):
            table.pack(pandas.DataFrame(islice(rows, runs // 2)), place / half / "records.parquet")
        begin = time.perf_counter()
        table.merge([place / "one", place / "two"], place / "all")
        merged = time.perf_counter()
        keys = [f"runs_dir={place / 'all'}", "records_dirs=[]"]
        run("mnist_imbalance.report", *keys, f"study.report_dir={place / 'report'}")
        size = (place / "all" / "records.parquet").stat().st_size / 2**20
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        return [size, merged - begin, time.perf_counter() - merged, peak]


def measure(rounds: int) -> list[Row]:
    """Measure every point in a process of its own."""
    rows = []
    for runs in RUNS:
        points = [json.loads(run("benchmarks.records", str(runs))) for _ in range(rounds)]
        for (name, unit), values in zip(QUANTITIES.items(), zip(*points, strict=True), strict=True):
            rows.append(row(f"records of {runs:,} runs", name, values, unit))
    return rows


if __name__ == "__main__":
    print(json.dumps(point(int(sys.argv[1]))))
