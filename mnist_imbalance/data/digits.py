"""The digits of scikit-learn: 8 × 8 pixels, real images that come with the package."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from mnist_imbalance.data.source import Images


def read_digits(dir: Path) -> Images:
    """Return the 1,797 digits, of every label the last fifth as the test set.

    They are part of "Optical recognition of handwritten digits" (Alpaydin and Kaynak, 1998).

    Args:
        dir: Not looked at.
    """
    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    for_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        of_label = (labels == label).nonzero().flatten()
        for_test[of_label[-(len(of_label) // 5) :]] = True
    return Images(
        (images[~for_test], labels[~for_test]), (images[for_test], labels[for_test]), num_classes=10
    )
