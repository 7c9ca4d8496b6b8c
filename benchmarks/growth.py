"""How time and memory grow with images, with runs side by side and with the batch size.

``python -m benchmarks.growth lstm 1000 1 128`` prints a point: 1000 images, 1 run, batches of 128.
"""

import json
import resource
import sys
from itertools import product
from typing import Any

import torch

from benchmarks.measure import DEVICE, Row, row, run, synchronized
from mnist_imbalance.config import compose_with
from mnist_imbalance.sweeps.batched import StackedClassifier
from mnist_imbalance.training.run import build_parts

IMAGES = (1_000, 10_000, 55_000)
RUNS = (1, 2, 4, 8, 16, 32, 64)
BATCH_SIZES = (32, 128, 512)
ON_GPU = (1, 4, 16, 64, 256)
OF_A_RUN = 11_650  # optimizer steps of 50 epochs of the imbalanced set


def point(model: str, images: int, runs: int, batch_size: int, repeats: int = 1) -> dict[str, Any]:
    """Time an epoch of one run on some images, or 12 steps of several runs side by side."""
    keys = [f"model={model}", "data=original", f"data.batch_size={batch_size}"]
    parts = [build_parts(compose_with([*keys, f"seed={seed}"])) for seed in range(runs)]
    trained: Any = parts[0].classifier
    pixels, labels = (tensor[:images].to(DEVICE) for tensor in parts[0].data.train)
    if runs > 1:
        trained = StackedClassifier([part.classifier for part in parts])
        pixels, labels = (torch.stack([tensor] * runs) for tensor in (pixels, labels))
    trained.to(DEVICE)
    optimizer = parts[0].classifier.build_optimizer(trained.parameters(), None)
    slices = (tensor.split(batch_size, dim=int(runs > 1)) for tensor in (pixels, labels))
    batches = list(zip(*slices, strict=True))[: 12 if runs > 1 else None]
    seconds, scale = [], 1 if runs > 1 else 255  # a stack scales the pixels itself
    for _ in range(repeats + 1):  # the first warms up
        begin = synchronized()
        for batch, target in batches:
            optimizer.zero_grad()
            trained.step((batch / scale, target), "train").backward()
            optimizer.step()
        seconds.append(synchronized() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if DEVICE.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": seconds[1:], "steps": len(batches), "mebibytes": peak}


def measure(rounds: int) -> list[Row]:
    """Measure every point in a process of its own."""
    points = [(f"{images:,} images, an epoch", images, 1, 128) for images in IMAGES]
    points += [(f"batch size {size}, an epoch of 10,000", 10_000, 1, size) for size in BATCH_SIZES]
    points += [(f"{runs} runs side by side, a step", 10_000, runs, 128) for runs in RUNS]
    rows = []
    for model, (name, *counts) in product(("lstm", "cnn"), points):
        command = ("benchmarks.growth", model, *map(str, counts))
        found = [json.loads(run(*command)) for _ in range(rounds)]
        per = found[0]["steps"] if name.endswith("a step") else 1
        rows.append(row(model, name, [1e3 * each["seconds"][0] / per for each in found], "ms"))
        memory = [each["mebibytes"] for each in found]
        rows.append(row(model, f"{name}, peak memory", memory, "MiB"))
    return rows


def many(rounds: int) -> list[Row]:
    """Compare numbers of runs that a GPU trains at a time; nothing where there is no GPU."""
    if DEVICE.type != "cuda":
        print("many: left out, it needs a GPU", file=sys.stderr)
        return []
    rows = []
    for model, runs in product(("lstm", "cnn"), ON_GPU):
        found = point(model, 10_000, runs, 128, rounds)
        times = [1e3 * seconds / found["steps"] for seconds in found["seconds"]]
        rows.append(row(model, f"{runs} side by side, a step", times, "ms"))
        a_minute = [runs * 60_000 / (OF_A_RUN * time) for time in times]
        rows.append(row(model, f"{runs} side by side, runs of 50 epochs", a_minute, "a minute"))
    return rows


if __name__ == "__main__":
    print(json.dumps(point(sys.argv[1], *map(int, sys.argv[2:]))))
