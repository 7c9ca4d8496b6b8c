"""Metrics beside accuracy: a split's logits (N, K) and labels (N,) → a number."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

Group = Literal["all", "minority", "majority"]


def recalls(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracy of each label that has images, each in [0, 1]."""
    right = (logits.argmax(dim=1) == labels).float()
    images = labels.bincount()
    return labels.bincount(right)[images > 0] / images[images > 0]


def balanced_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of the labels' accuracies, in [0, 1]."""
    return recalls(logits, labels).mean()


def g_mean(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the geometric mean of the labels' accuracies, in [0, 1] (Kubat and Matwin, 1997)."""
    return recalls(logits, labels).log().mean().exp()


def worst_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the lowest accuracy of any label, in [0, 1]."""
    return recalls(logits, labels).min()


def auroc(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean area under the ROC curve, in [0, 1], of the labels that have images."""
    present = labels.unique()
    p = logits.softmax(dim=1)
    several = present if len(present) > 1 else []  # one label alone has no area: nan
    return torch.tensor([binary_auroc(p[:, y], (labels == y).long()) for y in several]).mean()


def select_group(
    logits: Tensor, labels: Tensor, minority: Sequence[int], of: Group
) -> tuple[Tensor, Tensor]:
    """Return the logits and labels of the images of a group."""
    if of not in get_args(Group):
        raise ValueError(f"of must be one of {', '.join(get_args(Group))}, got {of}")
    is_rare = torch.isin(labels, labels.new_tensor(minority))
    chosen = is_rare if of == "minority" else ~is_rare | (of == "all")
    return logits[chosen], labels[chosen]


def nll(logits: Tensor, labels: Tensor, minority: Sequence[int] = (), of: Group = "all") -> Tensor:
    """Return the mean of −log p of the true label, in nats; nan without images."""
    return functional.cross_entropy(*select_group(logits, labels, minority, of))


def ece(logits: Tensor, labels: Tensor, minority: Sequence[int] = (), of: Group = "all") -> Tensor:
    """Return the expected calibration error with 15 bins, in [0, 1]; nan without images.

    Naeini et al., 2015; Guo et al., 2017, "On calibration of modern neural networks".
    """
    logits, labels = select_group(logits, labels, minority, of)
    return multiclass_calibration_error(logits.softmax(dim=1), labels, logits.shape[1], n_bins=15)
