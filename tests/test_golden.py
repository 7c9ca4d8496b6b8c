"""Short runs end with the numbers they ended with before, to the last bit."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest

from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.records.result import read_predictions
from mnist_imbalance.training.folder import RunFolder
from mnist_imbalance.training.run import fit_run

FILE = Path(__file__).parent / "golden" / "runs.csv"
SHORT = ("data/source=debug", "trainer=cpu", "trainer.max_epochs=2", "logger=none")
QUICK = (0, 1, 2, 8, 16, 18, 19, 25)  # rows that every run of the tests trains


def outcome(overrides: str, runs_dir: Path) -> dict[str, Any]:
    """Train one run and return the values that must stay as they are."""
    given = [*SHORT, *overrides.split(), f"runs_dir={runs_dir}", "hydra.mode=RUN"]
    task, hydra = take_apart(compose_with(given, with_hydra=True))
    folder = RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir)
    result = fit_run(task, hydra, folder, show_progress=False)
    labels = read_predictions(folder.path) or {}
    metrics = (folder.path / "metrics.csv").read_bytes()
    return {
        "overrides": overrides,
        "config_hash": result.config_hash,
        "condition": result.condition,
        "steps": str(result.steps),
        "train_loss": result.train.loss.hex(),
        "test_loss": result.test.loss.hex(),
        "predictions": hashlib.sha256(b"".join(map(bytes, labels.values()))).hexdigest()[:16],
        "metrics": hashlib.sha256(metrics).hexdigest()[:16],
        "device": result.device,
        "torch": result.versions["torch"],
    }


def rows() -> list[Any]:
    with FILE.open(newline="") as file:
        return [
            pytest.param(row, id=row["overrides"], marks=[] if n in QUICK else [pytest.mark.slow])
            for n, row in enumerate(csv.DictReader(file))
        ]


@pytest.mark.parametrize("row", rows())
def test_a_short_run_ends_as_before(row: dict[str, str], tmp_path: Path) -> None:
    ended = outcome(row["overrides"], tmp_path)
    if all(ended[key] == row[key] for key in ("device", "torch")):
        assert ended == row
    else:  # other kernels round otherwise
        for key in ("config_hash", "condition", "steps"):
            assert ended[key] == row[key]
        for key in ("train_loss", "test_loss"):
            known = float.fromhex(row[key])
            assert float.fromhex(ended[key]) == pytest.approx(known, rel=1e-3)


if __name__ == "__main__":
    import tempfile

    with FILE.open(newline="") as file:
        known = [row["overrides"] for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as place:
        ended = [outcome(row, Path(place) / str(n)) for n, row in enumerate(known)]
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, ended[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(ended)
