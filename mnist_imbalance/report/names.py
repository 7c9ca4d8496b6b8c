"""What the reader sees for the names that the code uses, and in which order."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pandas

MODELS = {"lstm": "LSTM", "cnn": "CNN", "lstm_no_relu": "LSTM without ReLU"}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
CONDITIONS = {
    "original": "original",
    "imbalanced": "imbalanced",
    "augmented_40": "augmented 40 %",
    "augmented_100": "augmented 100 %",
    "per_label": "AI3607's weights",
    "per_label_chosen": "validated weights",
}
OTHERS = {
    "duplicated_40": "4 copies",
    "duplicated_100": "10 copies",
    "noise_100": "10 copies, noise",
    "rotation_100": "10 copies, rotated",
    "augmented_original": "original, augmented",
    "weighted": "weight 7",
    "loss.normalize=count": "by images",
    "model.output_bias=None": "PyTorch's output bias",
    "model.output_relu=False": "no output ReLU",
}
WEIGHT = "loss.minority_weight="


def place(name: str, known: Iterable[str]) -> tuple[int, str]:
    """Return what sorts known names as they stand, and all others behind, by name."""
    order = list(known)
    return (order.index(name) if name in order else len(order), name)


place_of_model = partial(place, known=MODELS)
place_of_optimizer = partial(place, known=OPTIMIZERS)


def place_of_condition(condition: str) -> tuple[Any, ...]:
    """Return what sorts conditions: by data and loss, what else was changed, and the weight."""
    first, *changed = condition.split(", ")
    weights = [part.removeprefix(WEIGHT) for part in changed if part.startswith(WEIGHT)]
    rest = tuple(part for part in changed if not part.startswith(WEIGHT))
    weight = weights[0] if weights else "7"
    size = float(weight) if re.fullmatch(r"\d+(\.\d+)?", weight) else math.inf
    return (*place(first, CONDITIONS | OTHERS), rest, size, condition)


def in_line(name: str) -> str:
    """Return a group's name as a line says it: "0–4", "all"."""
    return name.replace("-", "–")


def group_title(group: str) -> str:
    """Return what a reader calls a group of labels."""
    return "all labels" if group == "all" else f"labels {in_line(group)}"


def model_title(model: str) -> str:
    """Return what a reader calls a model."""
    return MODELS.get(model, model)


def optimizer_title(optimizer: str) -> str:
    """Return what a reader calls an optimizer."""
    return OPTIMIZERS.get(optimizer, optimizer)


def condition_title(condition: str) -> str:
    """Return what a reader calls a condition, "weight 3, by images"."""
    parts = condition.split(", ")
    named = CONDITIONS | OTHERS
    if "weighted" in parts:
        weights = [part for part in parts if part.startswith(WEIGHT)]
        parts = [part for part in parts if part not in weights]
        if weights:
            named = named | {"weighted": f"weight {weights[0].removeprefix(WEIGHT)}"}
    return ", ".join(named.get(part, part) for part in parts)


def label_title(label: str) -> str:
    """Return what a reader calls a label or a group of labels."""
    return f"label {label}" if label.isdigit() else group_title(label)


TITLES: dict[str, Callable[[str], str]] = {
    "model": model_title,
    "optimizer": optimizer_title,
    "condition": condition_title,
    "label": label_title,
}


def titled(rows: pandas.DataFrame, *columns: str) -> dict[str, list[str]]:
    """Return some columns, of those in `TITLES`, as a reader calls what they name."""
    return {column: [*map(TITLES[column], rows[column])] for column in columns}


def copy_names(copies: Iterable[Mapping[str, float]]) -> list[str]:
    """Return what was done to each copy of an image, "+15°, noise"."""
    return [f"{copy['angle']:+g}°" + (", noise" if copy["noise"] else "") for copy in copies]
