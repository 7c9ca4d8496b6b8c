"""Class imbalance on MNIST: train, sweep and judge."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("mnist_imbalance")
PLACES = {  # loaded when they are first used, for PyTorch takes seconds
    "Classifier": ("training.classifier", "Classifier"),
    "MNISTData": ("data.module", "MNISTData"),
    "load_run": ("training.run", "load_run"),
    "read_records": ("records.table", "read"),
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'mnist_imbalance' has no attribute '{name}'")
    module, attribute = PLACES[name]
    return getattr(import_module(f"mnist_imbalance.{module}"), attribute)
