"""How time and memory grow with images, with runs side by side and with the batch size.

``python -m benchmarks.growth lstm 1000 1 128`` prints a point: 1000 images, 1 run, batches of 128.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from benchmarks.device import DEVICE, peak_mebibytes, synchronized
from benchmarks.measure import Row, row, run
from mnist_imbalance.batched.fit import StackedClassifier
from mnist_imbalance.classifier import Batch, Classifier
from mnist_imbalance.config import compose_with
from mnist_imbalance.fit import build_parts

IMAGES = (1_000, 10_000, 55_000)
RUNS = (1, 2, 4, 8, 16, 32, 64)
BATCH_SIZES = (32, 128, 512)


def made_one(classifiers: Sequence[Classifier], lr: float) -> tuple[Any, Optimizer]:
    """Give what trains classifiers side by side, or one by itself, on the device."""
    trained: Any = classifiers[0]
    if len(classifiers) > 1:
        trained = StackedClassifier(classifiers, [{"lr": lr}] * len(classifiers))
    trained.to(DEVICE)
    return trained, trained.configure_optimizers()


def seconds_of(trained: Any, optimizer: Optimizer, batches: Iterable[Batch]) -> float:
    """Give how long a step on each of some batches takes, in all."""
    begin = synchronized()
    for images, labels in batches:
        optimizer.zero_grad()
        trained.training_step((images / 255, labels), 0).backward()
        optimizer.step()
    return synchronized() - begin


def point(model: str, images: int, runs: int, batch_size: int) -> dict[str, float]:
    """Train on some images: an epoch of one run, or some steps of several side by side."""
    overrides = [f"model={model}", "data=original", f"data.batch_size={batch_size}"]
    config = compose_with(overrides)
    datas, classifiers = zip(
        *(build_parts(compose_with([*overrides, f"seed={seed}"])) for seed in range(runs)),
        strict=True,
    )
    data = datas[0]
    trained, optimizer = made_one(classifiers, config.optimizer.lr)
    pixels, labels = (tensor[:images].to(DEVICE) for tensor in data.train)
    if runs > 1:
        pixels, labels = (torch.stack([tensor] * runs) for tensor in (pixels, labels))
    slices = (tensor.split(batch_size, dim=int(runs > 1)) for tensor in (pixels, labels))
    batches = list(zip(*slices, strict=True))[: 12 if runs > 1 else None]
    seconds = [seconds_of(trained, optimizer, batches) for _ in range(2)]
    return {"seconds": seconds[1], "steps": len(batches), "mebibytes": peak_mebibytes()}


def measure(rounds: int) -> list[Row]:
    """Measure every point in a process of its own; the second epoch is timed."""
    rows = []
    for model in ("lstm", "cnn"):
        points = [(f"{images:,} images, an epoch", images, 1, 128) for images in IMAGES]
        points += [
            (f"batch size {size}, an epoch of 10,000", 10_000, 1, size) for size in BATCH_SIZES
        ]
        points += [(f"{runs} runs side by side, a step", 10_000, runs, 128) for runs in RUNS]
        for name, *counts in points:
            measured = [
                json.loads(run(["-m", "benchmarks.growth", model, *map(str, counts)]))
                for _ in range(rounds)
            ]
            a_step = name.endswith("a step")
            seconds = [
                1e3 * each["seconds"] / (each["steps"] if a_step else 1) for each in measured
            ]
            rows.append(row(model, name, seconds, "ms"))
            memory = [each["mebibytes"] for each in measured]
            rows.append(row(model, f"{name}, peak memory", memory, "MiB"))
    return rows


if __name__ == "__main__":
    print(json.dumps(point(sys.argv[1], *map(int, sys.argv[2:]))))
