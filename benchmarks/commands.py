"""Whole commands: their start, a sweep with every launcher, and many runs as one training."""

import sys
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.measure import DEVICE, Row, alternate, compare, row, timed

ONE_STEP = ["trainer.max_epochs=1"]
ONE_STEP += [f"+trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]
WEIGHTS = "loss.minority_weight=2,3,4,5,6,7,8,9"
SIDE_BY_SIDE = ("hydra/launcher=batched", "hydra.launcher.on_cpu=true")
LAUNCHERS = {
    "sequential": ("hydra/launcher=basic",),
    "joblib": ("hydra/launcher=joblib",),
    "batched": ("hydra/launcher=batched",),
    "side by side": SIDE_BY_SIDE,
}


def train(*overrides: str) -> list[float]:
    """Time the training command from an empty folder."""
    with TemporaryDirectory() as root:
        return [timed("mnist_imbalance", "train", *overrides, f"runs_dir={root}")]


def startup(rounds: int) -> list[Row]:
    """Time commands to their help, and a run of a single step."""
    rows = []
    for command in ("train", "study", "report", "counts"):
        seconds = [timed("mnist_imbalance", command, "--help") for _ in range(rounds)]
        rows.append(row(f"mnist_imbalance.{command}", "--help", seconds, "s"))
    seconds = alternate({"one": partial(train, *ONE_STEP)}, rounds)["one"]
    return [*rows, row("mnist_imbalance.train", "a whole run of one step", seconds, "s")]


def sweep(rounds: int) -> list[Row]:
    """Compare the launchers."""
    job = ("-m", "loss=weighted", "trainer.max_epochs=1", WEIGHTS)
    variants = {name: partial(train, *job, *keys) for name, keys in LAUNCHERS.items()}
    return compare("lstm", "8 runs of one epoch", alternate(variants, rounds), "joblib")


def side_by_side(rounds: int) -> list[Row]:
    """Compare the weight sweep with five seeds with one run; nothing where there is no GPU."""
    if DEVICE.type != "cuda":
        print("side_by_side: left out, it needs a GPU", file=sys.stderr)
        return []
    rows = []
    for model in ("lstm", "cnn"):
        one = ("loss=weighted", "trainer.max_epochs=10", f"model={model}")
        runs = ("-m", *one, *SIDE_BY_SIDE, f"{WEIGHTS},10", "seed=0,1,2,3,4")
        measured = alternate({"one": partial(train, *one), "45": partial(train, *runs)}, rounds)
        rows.append(row(model, "one run of 10 epochs", measured["one"], "s"))
        rows.append(row(model, "45 runs of 10 epochs side by side", measured["45"], "s"))
        ratios = [many / one for one, many in zip(measured["one"], measured["45"], strict=True)]
        rows.append(row(model, "45 runs over one", ratios, "×"))
    return rows
