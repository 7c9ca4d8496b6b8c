"""How many runs a GPU trains at a time: side by side in one program, and in processes."""

import contextlib
import copy
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import torch

from benchmarks.device import DEVICE
from benchmarks.growth import made_one, seconds_of
from benchmarks.measure import Row, row
from mnist_imbalance.config import compose_with
from mnist_imbalance.fit import build_parts

RUNS = (1, 4, 16, 64, 256)
PROCESSES = (4, 16)
STEPS = 50
LONGEST = 120  # seconds until all processes have begun
OF_A_RUN = 11_650  # optimizer steps of 50 epochs of the imbalanced set


def step_milliseconds(model: str, runs: int, rounds: int, start: Any = None) -> list[float]:
    """Give how long a step of several runs side by side takes, or of one alone.

    Args:
        model: A choice in ``conf/model``.
        runs: Side by side; one is trained as the training command would.
        rounds: Measurements, of some steps each.
        start: Waits until all are ready.
    """
    config = compose_with([f"model={model}", "loss=weighted"])
    data, classifier = build_parts(config)
    copies = [copy.deepcopy(classifier) for _ in range(runs)]
    trained, optimizer = made_one(copies, config.optimizer.lr)
    batches = []
    for number in range(20):
        part = slice(number * data.batch_size, (number + 1) * data.batch_size)
        pixels, labels = (tensor[part].to(DEVICE) for tensor in data.train)
        if runs > 1:
            pixels, labels = (torch.stack([tensor] * runs) for tensor in (pixels, labels))
        batches.append((pixels, labels))

    steps = list(islice(cycle(batches), STEPS))
    seconds_of(trained, optimizer, steps)
    if start:
        start.wait(LONGEST)
    return [1e3 * seconds_of(trained, optimizer, steps) / STEPS for _ in range(rounds)]


def in_process(model: str, rounds: int, start: Any, told: Any) -> None:
    """Train one run beside those of other processes."""
    told.put(step_milliseconds(model, 1, rounds, start))


def in_processes(model: str, processes: int, rounds: int) -> list[float]:
    """Give how long a step takes where processes train a run each at a time, in milliseconds."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(processes), context.Queue()
    begun = [
        context.Process(target=in_process, args=(model, rounds, start, told))
        for _ in range(processes)
    ]
    for process in begun:
        process.start()
    measured = [told.get(timeout=LONGEST) for _ in begun]
    for process in begun:
        process.join()
    return [sum(times) / processes for times in zip(*measured, strict=True)]


@contextlib.contextmanager
def shared_by_mps() -> Iterator[bool]:
    """Let the processes that are started meanwhile share the card at a time, where they can."""
    control = shutil.which("nvidia-cuda-mps-control")
    if not control:
        yield False
        return
    with tempfile.TemporaryDirectory() as place:
        os.environ["CUDA_MPS_PIPE_DIRECTORY"] = os.environ["CUDA_MPS_LOG_DIRECTORY"] = place
        subprocess.run([control, "-d"], check=True)
        try:
            yield True
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False)
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def measure(rounds: int) -> list[Row]:
    """Compare numbers of runs and ways to train them at a time; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        print("many: left out, it needs a GPU", file=sys.stderr)
        return []
    rows = []

    def tell(model: str, how: str, runs: int, milliseconds: list[float]) -> None:
        rows.append(row(model, f"{runs} {how}, a step", milliseconds, "ms"))
        a_minute = [runs * 60_000 / (OF_A_RUN * each) for each in milliseconds]
        rows.append(row(model, f"{runs} {how}, runs of 50 epochs", a_minute, "a minute"))
        print(*rows[-2:], sep="\n", file=sys.stderr, flush=True)

    for model in ("lstm", "cnn"):
        for runs in RUNS:
            with contextlib.suppress(torch.OutOfMemoryError):
                tell(model, "side by side", runs, step_milliseconds(model, runs, rounds))
        torch.cuda.empty_cache()
        for processes in PROCESSES:
            tell(model, "processes", processes, in_processes(model, processes, rounds))
        with shared_by_mps() as shared:
            for processes in PROCESSES if shared else ():
                tell(model, "processes by MPS", processes, in_processes(model, processes, rounds))
    return rows
