"""How far a training step is from what its arithmetic costs, and where the rest goes."""

import copy

import torch
from torch import nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device import DEVICE, synchronized
from benchmarks.measure import Row, row
from benchmarks.step import BATCH, build, make_step, milliseconds


def operations(model: nn.Module) -> int:
    """Count the floating-point operations of a forward and a backward pass."""
    images = torch.zeros(BATCH, 1, 28, 28, device="meta")
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta")(images).sum().backward()
    return int(counter.get_total_flops())


def matrix_rate(repeats: int) -> list[float]:
    """Give the floating-point operations a second of a large matrix product."""
    size = 2048 if DEVICE.type == "cpu" else 8192
    left, right = (torch.rand(size, size, device=DEVICE) for _ in range(2))
    rates = []
    for _ in range(repeats + 1):
        begin = synchronized()
        left @ right
        rates.append(2 * size**3 / (synchronized() - begin))
    return rates[1:]


def measure(rounds: int) -> list[Row]:
    """Compare a step with its operations over the rate of a large matrix product."""
    torch.set_num_threads(1)
    rates = matrix_rate(rounds)
    rows = [row("a large matrix product", "rate", [rate / 1e9 for rate in rates], "GFLOP/s")]
    for name in ("lstm", "cnn"):
        model, optimizer = build(name)
        count = operations(model)
        step = make_step(model, optimizer)
        milliseconds(step, rounds)
        times = milliseconds(step, 10 * rounds)
        rows.append(row(name, f"a step of {BATCH} images", times, "ms"))
        floor = [1e3 * count / rate for rate in rates]
        rows.append(row(name, f"its {count / 1e6:.0f} MFLOP at that rate", floor, "ms"))
        with profile() as profiled:
            for _ in range(10):
                step()
        taken = f"self_{'cpu' if DEVICE.type == 'cpu' else 'device'}_time_total"
        times_of = {event.key: getattr(event, taken) for event in profiled.key_averages()}
        for key in sorted(times_of, key=lambda key: -times_of[key])[:4]:
            share = 100 * times_of[key] / sum(times_of.values())
            rows.append(Row(name, f"share of {key}", share, "%", 10, share, share))
    return rows
