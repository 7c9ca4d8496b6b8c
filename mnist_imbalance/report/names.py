"""What the reader sees for the names that the code uses."""

GROUP_COLORS = {"0-4": "#d95f02", "5-9": "#1f78b4", "all": "#7f7f7f"}
MODELS = {"lstm": "LSTM", "cnn": "CNN"}
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
    "loss.normalize=count": "by images",
    "model.output_bias=None": "PyTorch's output bias",
    "model.output_relu=False": "no output ReLU",
}


def group_title(group: str) -> str:
    """Name a group of labels for a reader."""
    return "all labels" if group == "all" else f"labels {group.replace('-', '–')}"


def model_title(model: str) -> str:
    """Name a model for a reader."""
    return MODELS.get(model, model)


def optimizer_title(optimizer: str) -> str:
    """Name an optimizer for a reader."""
    return {"sgd": "SGD", "adam": "Adam"}.get(optimizer, optimizer)


def condition_title(condition: str) -> str:
    """Name a condition for a reader, "weight 3, by images"."""
    parts = condition.split(", ")
    named = CONDITIONS | OTHERS
    if "weighted" in parts:
        weights = [part for part in parts if part.startswith("loss.minority_weight=")]
        parts = [part for part in parts if part not in weights]
        named = named | {"weighted": f"weight {weights[0].partition('=')[2] if weights else 7}"}
    return ", ".join(named.get(part, part) for part in parts)
