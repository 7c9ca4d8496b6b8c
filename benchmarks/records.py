"""How the records of a large study grow: their file, a merge and the report, over the runs.

``python -m benchmarks.records 10000`` prints a point. The records are made up: those of the
repository again and again, with other seeds and some test images taken for another label.
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

import numpy

from benchmarks.measure import Row, row, run
from mnist_imbalance.records import table
from mnist_imbalance.records.identity import SEEDS, hash_config

PACKED = "records.parquet"
RUNS = (1_000, 10_000, 100_000)
MOVED = 50  # test images
APART = 1_000  # between the seeds of a record and of the next one that is made from it
WHAT = {  # what is measured, and its unit
    "file": ("its file", "MiB"),
    "merge": ("merging two halves", "s"),
    "report": ("the report", "s"),
    "peak": ("the report, peak memory", "MiB"),
}


def made_up() -> Iterator[dict[str, Any]]:
    """Yield rows without end, as `table.write` takes them."""
    records, _ = table.read(["results"])
    real = [{**run, **row} for run, row in table.kept(records, [*table.KEPT])]
    random = numpy.random.default_rng(0)
    for again in count():
        for known in real:
            config = known["config"]
            seeds = {key: config[key] + APART * again for key in sorted(SEEDS & config.keys())}
            new: dict[str, Any] = {"config": {**config, **seeds}, "seed": seeds["seed"]}
            new |= {"config_hash": hash_config(new["config"]), "data_seed": seeds["data.seed"]}
            if known["test_predicted"]:
                confusion = known["test_confusion"].copy()
                labels = numpy.frombuffer(known["test_predicted"], numpy.uint8).copy()
                moved, others = random.choice(len(labels), MOVED), random.integers(10, size=MOVED)
                before, labels[moved] = labels.copy(), others
                most = confusion.argmax(axis=0)  # the true label, as far as the records say
                changed = (before != labels).nonzero()[0]
                true = most[before[changed]]
                numpy.subtract.at(confusion, (true, before[changed]), 1)
                numpy.add.at(confusion, (true, labels[changed]), 1)
                if confusion.min() >= 0:
                    new |= {"test_confusion": confusion, "test_predicted": labels.tobytes()}
            yield {**known, **new}


def point(runs: int) -> dict[str, float]:
    """Make so many records up, in two files, merge these and make the report of all."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        rows = made_up()
        for half in ("one", "two"):
            table.write(islice(rows, runs // 2), place / half / PACKED)
        begin = time.perf_counter()
        table.merge([place / "one", place / "two"], place / "all")
        merged = time.perf_counter()
        keys = [f"runs_dir={place / 'all'}", "records_dirs=[]"]
        run(["-m", "mnist_imbalance.report", *keys, f"study.report_dir={place / 'report'}"])
        return {
            "file": (place / "all" / PACKED).stat().st_size / 2**20,
            "merge": merged - begin,
            "report": time.perf_counter() - merged,
            "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10,
        }


def measure(rounds: int) -> list[Row]:
    """Measure every point in a process of its own."""
    rows = []
    for runs in RUNS:
        command = ["-m", "benchmarks.records", str(runs)]
        points = [json.loads(run(command)) for _ in range(rounds)]
        for name, (said, unit) in WHAT.items():
            values = [each[name] for each in points]
            rows.append(row(f"records of {runs:,} runs", said, values, unit))
    return rows


if __name__ == "__main__":
    print(json.dumps(point(int(sys.argv[1]))))
