"""Rows of `records.table.read` with known accuracies, without a file."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mnist_imbalance.records import table as records

IMAGES = 1000  # of each label
GROUPS = {"0-4": [*range(5)], "5-9": [*range(5, 10)], "all": [*range(10)]}
LABELS = np.repeat(np.arange(10), IMAGES)  # of the test set
KEYS = count()


def groups(minority: float, majority: float) -> list[float]:
    return [minority] * 5 + [majority] * 5


def confusion(per_label: Sequence[float]) -> np.ndarray:
    """Every label's errors are taken for the next label."""
    right = (IMAGES * np.array(per_label)).round().astype(int)
    return np.diag(right) + np.roll(np.diag(IMAGES - right), 1, axis=1)


def predictions(run: Any) -> np.ndarray:
    """Predicted labels, (N,), that give a run's confusion matrix; label by label."""
    counts = np.asarray(run.test_confusion)
    return np.repeat(np.tile(np.arange(len(counts)), len(counts)), counts.ravel())


def run(
    condition: str,
    seed: int,
    test: Sequence[float],
    val: Sequence[float] | None = None,
    model: str = "lstm",
    optimizer: str = "sgd",
    data_seed: int | None = None,
    epochs: int = 50,
    per_epoch: int = 233,
    config: dict[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """A run of as many steps as ``per_epoch`` and ``epochs`` make, or ``trainer.max_steps``."""
    data_seed = seed if data_seed is None else data_seed
    values = {"seed": seed, "data.seed": data_seed, "data.batch_size": 128}
    values |= {"data.val_per_label": 500, "trainer.max_epochs": epochs} | (config or {})
    labels = len(test)
    row = {
        **{"config_hash": f"{next(KEYS):064}", "condition": condition, "model": model},
        **{"loss": "plain" * (condition == "imbalanced"), "optimizer": optimizer},
        **{"seed": seed, "data_seed": data_seed},
        **{"epochs": epochs, "steps": values.get("trainer.max_steps", epochs * per_epoch)},
        **{"train_counts": [per_epoch * 128 // labels] * labels, "groups": GROUPS},
        **{"seconds": 100.0, "device": "cpu", "threads": 1, "versions": {}, "config": values},
        "dataset": records.dataset_of(values),
    }
    for split, accuracies in (("train", test), ("val", val or test), ("test", test)):
        row |= {f"{split}_confusion": confusion(accuracies), f"{split}_metrics": {}}
        row |= {f"{split}_positive": None, f"{split}_positive_of_own": [IMAGES] * labels}
    return row | others


def weighted(
    weight: float, seed: int, test: Sequence[float], val: Sequence[float] | None, **others: Any
) -> dict[str, Any]:
    """A run of the weight sweep."""
    condition = "weighted" if weight == 7 else f"weighted, loss.minority_weight={weight}"
    config = {"loss.minority_weight": weight, "loss.normalize": "weight_sum"}
    return run(condition, seed, test, val, config=config, **others)


@pytest.fixture
def kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run have predictions that fit its record, and two epochs."""

    def predicted(runs: pd.DataFrame, split: str = "test") -> dict[str, np.ndarray]:
        return {row.config_hash: predictions(row) for row in runs.itertuples()}

    def epochs(runs: pd.DataFrame) -> pd.DataFrame:
        accuracies = records.accuracies(runs, "val").filter(regex=r"^\d+$|^all$")
        accuracies = accuracies.add_prefix("accuracy_").rename(columns={"accuracy_all": "accuracy"})
        last = accuracies.assign(config_hash=runs.config_hash, epoch=runs.epochs - 1)
        return pd.concat([last.assign(stage=stage) for stage in ("train", "val")])

    monkeypatch.setattr(records, "predictions", predicted)
    monkeypatch.setattr(records, "epochs", epochs)
