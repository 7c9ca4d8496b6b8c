"""From a source's images to batches; a file for each step of the way."""

from mnist_imbalance.data.module import MNISTData

__all__ = ["MNISTData"]
