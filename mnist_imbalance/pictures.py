"""Pictures for TensorBoard."""

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.utilities.plot import plot_confusion_matrix
from torchvision.utils import make_grid


def draw_confusion(confusion: list[list[int]]) -> Figure:
    """Draw a confusion matrix, true labels down, predicted across (AI3607, Figures 1 and 2)."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    plot_confusion_matrix(torch.tensor(confusion), ax=axes, cmap="Blues")
    axes.tick_params(labelrotation=0)
    return figure


def lay_out(images: Tensor, columns: int) -> Tensor:
    """Return images (N, C, H, W) uint8 in a grid (3, H, W), four times as large."""
    large = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    grid: Tensor = make_grid(large, nrow=columns, pad_value=96)
    return grid
