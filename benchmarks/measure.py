"""What every benchmark shares: a row of the table, medians, a device and commands to time."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Row:
    """One line of the table: the median of n measurements, the smallest and the largest."""

    subject: str
    quantity: str
    value: float
    unit: str  # s, ms, ×, %, MiB, GFLOP/s or "a minute"
    n: int
    low: float
    high: float


def row(subject: str, quantity: str, values: Sequence[float], unit: str) -> Row:
    """Take the median."""
    return Row(subject, quantity, median(values), unit, len(values), min(values), max(values))


def alternate(variants: Mapping[str, Callable[[], list[float]]], rounds: int) -> dict[str, Any]:
    """Measure variants in turn, so that a slow minute of the machine meets all of them."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            measured[name] += variant()
    return measured


def compare(
    subject: str, quantity: str, measured: Mapping[str, Sequence[float]], base: str, unit: str = "s"
) -> list[Row]:
    """Return each variant's time, and its ratio to the base, measurement by measurement."""
    rows = [row(f"{subject}, {name}", quantity, values, unit) for name, values in measured.items()]
    for name, values in measured.items():
        if name != base:
            ratios = [value / by for value, by in zip(values, measured[base], strict=True)]
            rows.append(row(f"{subject}, {name}", f"{quantity}, over {base}", ratios, "×"))
    return rows


def synchronized() -> float:
    """Return the time in seconds at which the device has done all its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def run(*command: str) -> str:
    """Run a module of this Python and return what it prints."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def timed(*command: str) -> float:
    """Return the seconds that a module of this Python takes."""
    begin = time.perf_counter()
    run(*command)
    return time.perf_counter() - begin
