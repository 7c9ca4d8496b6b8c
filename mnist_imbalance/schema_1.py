"""What records of schema 1 do not say, worked out from what they do say.

They were written by versions 0.1 and 0.2. The values below are those that their choices had then;
they stay as they are, whatever ``conf/`` says today.
"""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from mnist_imbalance.conditions import CHOICES, changes, name_condition

CLEAN = {"angle": 0, "noise": 0}
ROTATIONS = (0, 7.5, -7.5, 15, -15)
COPIES = {
    "augmented_40": [
        CLEAN,
        {"angle": 0, "noise": 0.1},
        {"angle": 15, "noise": 0},
        {"angle": -15, "noise": 0},
    ],
    "augmented_100": [
        {"angle": angle, "noise": noise} for noise in (0, 0.1) for angle in ROTATIONS
    ],
}
LSTM: dict[str, Any] = {"model.output_bias": 5.0, "model.output_relu": True}
RATES = {"optimizer.lr": 0.001, "optimizer.weight_decay": 0.0001}
DIVISOR: dict[str, Any] = {"loss.normalize": "weight_sum"}
LOSSES = {
    "weighted": DIVISOR | {"loss.minority_weight": 7},
    "per_label": DIVISOR | {"loss.weights": [6, 7, 7, 7, 5, 1, 1, 1, 1, 1]},
    "per_label_chosen": DIVISOR | {"loss.weights": "???"},
}


def plain(choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that these choices had, but for paths of classes and the seeds."""
    return {
        "data.batch_size": 128,
        "data.copies": COPIES.get(choices["data"], [CLEAN]),
        "data.keep": 1.0 if choices["data"] == "original" else 0.1,
        "data.redraw": False,
        "data.val_per_label": 500,
        **LOSSES.get(choices["loss"], {}),
        **(LSTM if choices["model"] == "lstm" else {}),
        **RATES,
        **({"optimizer.momentum": 0.9} if choices["optimizer"] == "sgd" else {}),
        "trainer.deterministic": True,
    }


def batches(train_counts: Iterable[int], values: Mapping[str, Any]) -> int:
    """Return the optimizer steps of an epoch.

    Args:
        train_counts: Images of each label.
        values: All that determines the run, by dotted key.
    """
    return ceil(sum(train_counts) / int(values["data.batch_size"]))


def complete(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of schema 2 that a record of schema 1 lacks."""
    values: Mapping[str, Any] = record["config"]
    choices = {group: record[group] for group in CHOICES}
    told = {key: value for key, value in values.items() if not key.endswith("_")}
    return {
        "condition": name_condition(choices, changes(told, plain(choices))),
        "steps": record["epochs"] * batches(record["train_counts"], values),
        "groups": {"0-4": [0, 1, 2, 3, 4], "5-9": [5, 6, 7, 8, 9], "all": list(range(10))},
        "data_sha256": None,
    }
