"""What TensorBoard shows of a run: curves, pictures and a row of HPARAMS."""

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.utilities.plot import plot_confusion_matrix
from torchvision.utils import make_grid

from mnist_imbalance.conditions import CHOICES
from mnist_imbalance.data import MNISTData
from mnist_imbalance.runs import Result, RunFolder


def make_logger(folder: RunFolder, done: int) -> TensorBoardLogger:
    """Return the logger of a run; what it logged after ``done`` whole epochs is dropped."""
    return TensorBoardLogger(
        folder.path,
        name=None,
        version=folder.tensorboard.name,
        default_hp_metric=False,
        purge_step=done,
    )


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


def show_in_tensorboard(logger: TensorBoardLogger, result: Result, data: MNISTData) -> None:
    """Add what is known at the end: the confusion matrix, a sample, the HPARAMS row."""
    writer = logger.experiment
    writer.add_figure("test/confusion", draw_confusion(result.test.confusion), result.epochs)
    sample = lay_out(data.sample(), columns=len(data.shown))
    writer.add_image("data/copies", sample, result.epochs)
    parts = ("model.", "loss.", "optimizer.")
    logger.log_hyperparams(
        {
            **{group: getattr(result, group) for group in CHOICES},
            **{
                key: str(value) if isinstance(value, list) else value
                for key, value in result.config.items()
                if key.startswith(parts) and not key.endswith("_")
            },
            "condition": result.condition,
            "data.seed": result.data_seed,
            "seed": result.seed,
            "epochs": result.epochs,
        },
        {f"test/{name}": value for name, value in result.test.named(result.groups).items()},
        step=result.epochs,
    )
    logger.finalize("success")
