"""What the reader sees for the names that the code uses."""

MODELS = {"lstm": "LSTM", "cnn": "CNN", "both": "both"}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
GROUP_COLORS = {"0-4": "#d95f02", "5-9": "#1f78b4", "all": "#7f7f7f"}
MODEL_COLORS = {"lstm": "#d95f02", "cnn": "#1f78b4"}
CONDITIONS = {
    "original": "original",
    "imbalanced": "imbalanced",
    "augmented_40": "augmented 40 %",
    "augmented_100": "augmented 100 %",
    "weighted": "report's weights",
    "weighted_chosen": "validated weights",
}


def condition_title(condition: str) -> str:
    """Name a condition for a reader."""
    return CONDITIONS.get(condition, condition.replace("weight_", "weight "))
