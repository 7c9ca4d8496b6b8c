"""What the reader sees for the names that the code uses."""

GROUP_COLORS = {"0-4": "#d95f02", "5-9": "#1f78b4", "all": "#7f7f7f"}
MODELS = {"lstm": "LSTM", "cnn": "CNN"}
CONDITIONS = {
    "original": "original",
    "imbalanced": "imbalanced",
    "augmented_40": "augmented 40 %",
    "augmented_100": "augmented 100 %",
    "weighted": "report's weights",
    "weighted_chosen": "validated weights",
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
    """Name a condition for a reader."""
    return CONDITIONS.get(condition, condition.replace("weight_", "weight "))
