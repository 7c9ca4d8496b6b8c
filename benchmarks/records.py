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
from mnist_imbalance.conditions import SEEDS
from mnist_imbalance.merging import merge
from mnist_imbalance.packed import row_of, tabulate, write
from mnist_imbalance.report.images import read_idx
from mnist_imbalance.runs import PACKED, find_records, hash_config

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
    """Return rows without end, as `row_of` gives them but for their checksums."""
    records = find_records(["results"])
    labels = read_idx(Path("data/MNIST/raw/t10k-labels-idx1-ubyte"))
    real = []
    for key, result in records.results.items():
        kept = records.kept[key]
        record = result.model_dump(by_alias=True)
        real.append((result.config, row_of(record, kept.epochs(result), kept.predictions(), key)))
    random = numpy.random.default_rng(0)
    for again in count():
        for config, known in real:
            seeds = {key: config[key] + APART * again for key in sorted(SEEDS & config.keys())}
            new: dict[str, Any] = {"seeds": json.dumps(seeds)}
            new["config_hash"] = hash_config({**config, **seeds})
            new |= {"seed": seeds["seed"], "data_seed": seeds["data.seed"]}
            confusion = numpy.array(known["test_confusion"]).reshape(10, 10)
            moved, others = random.choice(len(labels), MOVED), random.integers(10, size=MOVED)
            if "test_predicted" in known:
                predicted = numpy.frombuffer(known["test_predicted"], numpy.uint8).copy()
                predicted[moved] = others
                new["test_predicted"] = predicted.tobytes()
                confusion = numpy.bincount(labels * 10 + predicted, minlength=100)
            else:
                numpy.subtract.at(confusion, (labels[moved], labels[moved]), 1)
                numpy.add.at(confusion, (labels[moved], others), 1)
                confusion = confusion.clip(0)
            yield {**known, **new, "test_confusion": confusion.ravel().tolist()}


def point(runs: int) -> dict[str, float]:
    """Make so many records up, in two files, merge these and make the report of all."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        rows = made_up()
        for half in ("one", "two"):
            write(place / half / PACKED, tabulate(islice(rows, runs // 2)))
        begin = time.perf_counter()
        merge([place / "one", place / "two"], place / "all")
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
