"""Parts compute, and short runs end with, what they did before, to the last bit."""

import copy
import csv
import hashlib
import tempfile
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import datasets

from mnist_imbalance.config import activate_hydra, build, compose_with, parts_of
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.methods.posthoc import logits_of
from mnist_imbalance.records.result import read_predictions
from mnist_imbalance.training import run as training
from mnist_imbalance.training.folder import RunFolder, describe

FOLDER = Path(__file__).parent / "golden"
SHORT = ("data/source=debug", "trainer=cpu", "trainer.max_epochs=2", "logger=none")
QUICK = (0, 2, 8, 16, 18)  # rows of runs.csv that every run of the tests trains
COUNTS = [54, 62, 55, 56, 53, 4921, 5418, 5765, 5351, 5449]
KNOWN = {"class_counts": COUNTS, "num_classes": 10, "minority": [0, 1, 2, 3, 4]}
COMPOSE, MNIST = cache(compose_with), cache(datasets.MNIST)  # to save time
LABELS = torch.arange(64) * 7 % 10


def digest(values: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(values)).hexdigest()[:16]


def run_outcome(overrides: str) -> dict[str, str]:
    """Train one run and return the values that must stay as they are."""
    with tempfile.TemporaryDirectory() as runs_dir:
        given = [*SHORT, *overrides.split(), f"runs_dir={runs_dir}", "hydra.mode=RUN"]
        task, hydra = activate_hydra(compose_with(given, with_hydra=True))
        folder = RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir)
        with patch.object(training, "fields_of", partial(training.fields_of, compose=COMPOSE)):
            result = training.run_or_resume(task, hydra, folder, show_progress=False)
        labels = read_predictions(folder.path) or {}
        metrics = (folder.path / "metrics.csv").read_bytes()
    return {
        "overrides": overrides,
        "config_hash": result.config_hash,
        "condition": result.condition,
        "steps": str(result.steps),
        "train_loss": result.train.loss.hex(),
        "test_loss": result.test.loss.hex(),
        "predictions": digest(map(bytes, labels.values())),
        "metrics": digest([metrics]),
        "device": result.device,
        "torch": result.versions["torch"],
    }


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def data(config: Any) -> list[Any]:
    part: MNISTData = build(config, "data")
    part.setup()
    sets = [*part.epoch(0), *part.epoch(1), *part.train, *part.val, *part.test]
    return [*sets, part.minority, [*part.counts.values()], part.groups, part.sha256]


def model(config: Any) -> list[Any]:
    part = build(config, "model", KNOWN)
    return [part(random(4, 1, 28, 28)), *part.state_dict(), *part.state_dict().values()]


def loss(config: Any) -> list[Any]:
    part = build(config, "loss", KNOWN | {"head": config.model.head})
    found: list[Any] = []
    for done in (0.0, 0.5, 0.9):
        getattr(part, "start_epoch", float)(done)
        logits = (3 * random(64, 10)).requires_grad_()
        value = part(logits, LABELS)
        found += [value, *torch.autograd.grad(value, logits)]
    return [*found, *part.state_dict(), *part.state_dict().values()]


def mix(config: Any) -> list[Any]:
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
    adjusted = build(config, "posthoc", {"seed": 0})(copy.deepcopy(cnn), part)
    return [logits_of(adjusted, part.val[0]), adjusted.summary, *adjusted.state_dict().values()]


def part_outcome(part: str, overrides: str) -> dict[str, str]:
    """Return the checksum of all values, and the mean of the first, of a part."""
    torch.set_num_threads(1)
    needed = {"data": "imbalanced", "trainer": "auto", "seed": "0"}  # other groups take time
    chosen = needed if part == "data" else {"model": "lstm"}
    chosen |= dict(override.split("=", 1) for override in overrides.split())
    given = [f"{'+' * key.isidentifier()}{key}={value}" for key, value in chosen.items()]
    torch.manual_seed(0)
    with patch.object(datasets, "MNIST", MNIST):
        values = globals()[part](compose_with(given, name=None))  # type: ignore[arg-type]
    return {
        "part": part,
        "overrides": overrides,
        "checksum": digest(
            it.detach().numpy().tobytes() if isinstance(it, Tensor) else repr(it).encode()
            for it in values
        ),
        "mean": f"{values[0].detach().double().mean().item():.6g}",
        "device": describe(torch.device("cpu")),
        "torch": torch.__version__,
    }


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def compare(found: dict[str, str], row: dict[str, str]) -> None:
    if all(found[key] == row[key] for key in ("device", "torch")):
        assert found == row
        return
    for key in {"config_hash", "condition", "steps"} & row.keys():
        assert found[key] == row[key]
    close = {"train_loss": float.fromhex, "test_loss": float.fromhex, "mean": float}
    for key in close.keys() & row.keys():  # other kernels round otherwise
        known = close[key](row[key])
        assert close[key](found[key]) == pytest.approx(known, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("row", rows("parts"), ids=lambda row: row["overrides"])
def test_a_part_computes_what_it_computed(row: dict[str, str]) -> None:
    compare(part_outcome(row["part"], row["overrides"]), row)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row["overrides"], marks=[] if n in QUICK else [pytest.mark.slow])
        for n, row in enumerate(rows("runs"))
    ],
)
def test_a_short_run_ends_as_before(row: dict[str, str]) -> None:
    compare(run_outcome(row["overrides"]), row)


if __name__ == "__main__":
    outcomes = {
        "parts": [part_outcome(row["part"], row["overrides"]) for row in rows("parts")],
        "runs": [run_outcome(row["overrides"]) for row in rows("runs")],
    }
    for name, found in outcomes.items():
        with (FOLDER / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
