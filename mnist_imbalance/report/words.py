"""How numbers and names are written, and in which order: the filters of the templates."""

import math
import re
from typing import Any

import pandas as pd

WEIGHT = "loss.minority_weight="
NAMES = {  # what a reader calls it, in the order of the tables
    **{"lstm": "LSTM", "cnn": "CNN", "lstm_no_relu": "LSTM without ReLU"},
    **{"sgd": "SGD", "adam": "Adam"},
    **{"original": "original", "imbalanced": "imbalanced", "augmented_40": "augmented 40 %"},
    **{"augmented_100": "augmented 100 %", "per_label": "AI3607's weights"},
    **{"per_label_chosen": "validated weights", "duplicated_40": "4 copies"},
    **{"duplicated_100": "10 copies", "noise_100": "10 copies, noise"},
    **{"rotation_100": "10 copies, rotated", "augmented_original": "original, augmented"},
    **{"weighted": "weight 7", "loss.normalize=count": "by images"},
    **{"model.output_bias=None": "PyTorch's output bias"},
    **{"model.output_relu=False": "no output ReLU", "both": "both models"},
    **{"weight_sum": "by weights", "count": "by images"},
    "count - weight_sum": "by images − by weights",
}
BETTER = {"holds": "better", "contradicted": "worse"}
YES = {"holds": "yes", "contradicted": "no", "undecided": "?", "no difference": "?"}


def place(column: pd.Series) -> pd.Series:
    """Return the sort key of models, optimizers and conditions; other columns as they are."""
    if column.name not in ("model", "optimizer", "condition"):
        return column
    known = list(NAMES)

    def key(name: str) -> tuple[Any, ...]:
        first, *changed = name.split(", ")
        weight = [part.removeprefix(WEIGHT) for part in changed if part.startswith(WEIGHT)] or ["7"]
        size = float(weight[0]) if re.fullmatch(r"[\d.]+", weight[0]) else math.inf
        rest = [part for part in changed if not part.startswith(WEIGHT)]
        return known.index(first) if first in known else len(known), first, rest, size, name

    names = sorted(column.unique(), key=key)
    return column.map({name: rank for rank, name in enumerate(names)})


def title(name: object) -> str:
    """Return what a reader calls a model, an optimizer, a condition or a divisor of the loss."""
    parts = str(name).split(", ")
    weights = [part for part in parts if part.startswith(WEIGHT)]
    if weights and "weighted" in parts:
        parts.remove(weights[0])
        parts[parts.index("weighted")] = f"weight {weights[0].removeprefix(WEIGHT)}"
    return ", ".join(NAMES.get(part, part) for part in parts)


def group(name: str, inline: bool = False) -> str:
    """Return what a reader calls a label or a group: "labels 0–4", "label 3", "all labels"."""
    dashed = name.replace("-", "–")
    if name == "all":
        return "all labels"
    return dashed if inline else f"{'label' if name.isdigit() else 'labels'} {dashed}"


def number(value: float, form: str = ".1f", scale: float = 100) -> str:
    """Return a number in points or %; nothing for nan."""
    return "" if math.isnan(value) else format(scale * value, form).replace("-", "−")


def interval(row: Any, name: str = "effect", form: str = "+.2f", scale: float = 100) -> str:
    """Return an estimate with its interval, where there is one: "+0.92 [+0.02, +1.82]"."""
    prefix = {"effect": "", "fraction": ""}.get(name, f"{name}_")
    value, low, high = (row[key] for key in (name, f"{prefix}low", f"{prefix}high"))
    if math.isnan(low):
        return number(value, form, scale)
    ends = f"{number(low, form, scale)}, {number(high, form, scale)}"
    return f"{number(value, form, scale)} [{ends}]"
