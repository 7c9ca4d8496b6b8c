"""One training step of a model, as it is and in ways that are not kept."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn

from benchmarks.device import DEVICE, synchronized
from benchmarks.measure import Row, alternate, compare
from mnist_imbalance.config import compose_with
from mnist_imbalance.fit import build_parts

BATCH = 128


def build(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Give a model of the project on the device, and its optimizer."""
    _, classifier = build_parts(compose_with([f"model={name}"]))
    classifier.to(DEVICE)
    return classifier.model, classifier.configure_optimizers()


def make_step(
    model: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    precision: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[], None]:
    """Give a function that trains on one batch, always the same."""
    images = torch.rand(BATCH, 1, 28, 28, device=DEVICE)
    labels = torch.randint(0, 10, (BATCH,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        with precision():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def milliseconds(step: Callable[[], None], repeats: int) -> list[float]:
    """Time a step again and again."""
    times = []
    for _ in range(repeats):
        begin = synchronized()
        step()
        times.append(1e3 * (synchronized() - begin))
    return times


def measure(rounds: int) -> list[Row]:
    """Compare a step with the same step compiled, fused and in bfloat16, one CPU thread."""
    torch.set_num_threads(1)
    rows = []
    for name in ("lstm", "cnn"):
        model, optimizer = build(name)
        fused = torch.optim.SGD(
            model.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0001, fused=True
        )
        bfloat16 = partial(torch.autocast, DEVICE.type, torch.bfloat16)
        steps = {
            "as it is": make_step(model, optimizer),
            "fused optimizer": make_step(model, fused),
            "bfloat16": make_step(model, optimizer, bfloat16),
        }
        if shutil.which("g++"):
            steps["torch.compile"] = make_step(torch.compile(model), optimizer)
        for step in steps.values():
            milliseconds(step, 5)  # the first of them compile
        timed = {variant: partial(milliseconds, step, 10) for variant, step in steps.items()}
        measured = alternate(timed, rounds)
        rows += compare(name, f"a step of {BATCH} images", measured, "as it is", "ms")
    return rows
