"""Data, models and methods compute what they computed before, to the last bit."""

import csv
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.config import build, compose_with, parts_of
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.methods.posthoc import logits_of
from mnist_imbalance.training.folder import describe

FILE = Path(__file__).parent / "golden" / "parts.csv"
COUNTS = [54, 62, 55, 56, 53, 4921, 5418, 5765, 5351, 5449]
KNOWN = {"class_counts": COUNTS, "num_classes": 10, "minority": [0, 1, 2, 3, 4]}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(64) * 7 % 10


def data(config: Any) -> list[Any]:
    part: MNISTData = build(config, "data")
    part.setup()
    sets = [part.sample(), *part.epoch(0), *part.epoch(1), *part.train, *part.val, *part.test]
    return [*sets, part.minority, [*part.counts.values()], part.groups, part.sha256]


def model(config: Any) -> list[Any]:
    torch.manual_seed(0)
    part = build(config, "model", KNOWN)
    images = random(4, 1, 28, 28)
    return [part(images), *part.state_dict(), *part.state_dict().values()]


def loss(config: Any) -> list[Any]:
    part = build(config, "loss", KNOWN | {"head": config.model.head})
    found: list[Any] = []
    for done in (0.0, 0.5, 0.9):
        if hasattr(part, "start_epoch"):
            part.start_epoch(done)
        logits = (3 * random(64, 10)).requires_grad_()
        value = part(logits, LABELS)
        found += [value, *torch.autograd.grad(value, logits)]
    return [*found, *part.state_dict(), *part.state_dict().values()]


def mix(config: Any) -> list[Any]:
    torch.manual_seed(0)
    part = build(config, "mix", KNOWN)
    return [value for _ in range(4) for value in part(random(64, 1, 28, 28), LABELS)]


def metrics(config: Any) -> list[Any]:
    parts = parts_of(config, "metrics", KNOWN)
    return [build(config, f"metrics.{name}", KNOWN)(random(64, 10), LABELS) for name in parts]


@cache
def trained() -> tuple[nn.Module, MNISTData]:
    config = compose_with(["data/source=debug", "model=cnn"])
    part: MNISTData = build(config, "data")
    part.setup()
    torch.manual_seed(0)
    cnn: nn.Module = build(config, "model", KNOWN)
    optimizer = torch.optim.Adam(cnn.parameters(), 0.003)
    for epoch in range(8):
        images, labels = part.epoch(epoch)
        for own, right in zip(images.split(64), labels.split(64), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(cnn(own / 255), right).backward()
            optimizer.step()
    return cnn, part


def posthoc(config: Any) -> list[Any]:
    cnn, part = trained()
    adjusted = build(config, "posthoc", {"seed": 0})(cnn, part)
    return [logits_of(adjusted, part.val[0]), adjusted.summary, *adjusted.state_dict().values()]


def outcome(part: str, overrides: str) -> dict[str, str]:
    """Return the checksum of all values, and the mean of the first, of a part."""
    torch.set_num_threads(1)
    values = globals()[part](compose_with(overrides.split()))
    digest = hashlib.sha256()
    for value in values:
        is_tensor = isinstance(value, Tensor)
        digest.update(value.detach().numpy().tobytes() if is_tensor else repr(value).encode())
    return {
        "part": part,
        "overrides": overrides,
        "checksum": digest.hexdigest()[:16],
        "mean": f"{values[0].detach().double().mean().item():.6g}",
        "device": describe(torch.device("cpu")),
        "torch": torch.__version__,
    }


def rows() -> list[dict[str, str]]:
    with FILE.open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["overrides"])
def test_a_part_computes_what_it_computed(row: dict[str, str]) -> None:
    found = outcome(row["part"], row["overrides"])
    if all(found[key] == row[key] for key in ("device", "torch")):
        assert found == row
    else:  # other kernels round otherwise
        assert float(found["mean"]) == pytest.approx(float(row["mean"]), rel=1e-3, abs=1e-3)


if __name__ == "__main__":
    found = [outcome(row["part"], row["overrides"]) for row in rows()]
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
