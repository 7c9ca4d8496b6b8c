"""From the start of a command to its help, and through a run of a single step."""

import tempfile

from benchmarks.measure import Row, row, timed

ONE_STEP = [
    "trainer.max_epochs=1",
    *(f"+trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")),
]


def measure(rounds: int) -> list[Row]:
    """Time whole processes."""
    rows = []
    for command in ("train", "study", "report", "counts"):
        seconds = [timed(["-m", f"mnist_imbalance.{command}", "--help"]) for _ in range(rounds)]
        rows.append(row(f"mnist_imbalance.{command}", "--help", seconds, "s"))
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as root:
            seconds.append(timed(["-m", "mnist_imbalance.train", *ONE_STEP, f"runs_dir={root}"]))
    rows.append(row("mnist_imbalance.train", "a whole run of one step", seconds, "s"))
    return rows
