"""A sweep of eight short runs with every launcher."""

import tempfile
from functools import partial

import torch

from benchmarks.measure import Row, alternate, compare, timed

SWEEP = [
    *("-m", "mnist_imbalance.train", "-m", "loss=weighted", "trainer.max_epochs=1"),
    "loss.minority_weight=2,3,4,5,6,7,8,9",
]
LAUNCHERS = {
    "sequential": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib"],
    "batched": ["hydra/launcher=batched"],
    "side by side": ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"],
}


def sweep(launcher: list[str]) -> list[float]:
    """Time a sweep from an empty folder."""
    with tempfile.TemporaryDirectory() as root:
        return [timed([*SWEEP, *launcher, f"runs_dir={root}"])]


def measure(rounds: int) -> list[Row]:
    """Compare the launchers; on a GPU, batched is side by side."""
    variants = {
        name: partial(sweep, launcher)
        for name, launcher in LAUNCHERS.items()
        if not (torch.cuda.is_available() and name == "side by side")
    }
    return compare("lstm", "8 runs of one epoch", alternate(variants, rounds), "joblib")
