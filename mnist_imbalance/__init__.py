"""Class imbalance on MNIST: train, sweep and judge."""

from importlib.metadata import version

__version__ = version("mnist_imbalance")
