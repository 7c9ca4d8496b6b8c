"""The pictures and the HPARAMS row that TensorBoard shows of a finished run."""

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torchmetrics.utilities.plot import plot_confusion_matrix
from torchvision.utils import make_grid

from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.records.result import Result


def draw_confusion(confusion: list[list[int]]) -> Figure:
    """Draw the share, in %, of each true label's images (AI3607, Figures 1 and 2)."""
    counts = torch.tensor(confusion)
    shares = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(5, 5), layout="constrained")
    text = len(counts) <= 20
    plot_confusion_matrix(shares.round().long(), figure.subplots(), text, cmap="Blues")
    return figure


def show_in_tensorboard(logger: TensorBoardLogger, result: Result, data: MNISTData) -> None:
    """Add the confusion matrix, a sample of the training images and the HPARAMS row."""
    writer, step = logger.experiment, result.epochs
    writer.add_figure("test/confusion", draw_confusion(result.test.confusion), step)
    sample = data.sample()
    large = sample.flatten(0, 1).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    writer.add_image("data/copies", make_grid(large, sample.shape[1], pad_value=96), step)
    names = ("condition", "model", "data", "loss", "optimizer", "seed", "data_seed", "epochs")
    chosen = {name: getattr(result, name) for name in names} | {
        key: str(value) if isinstance(value, list) else value
        for key, value in result.config.items()
        if key.startswith(("loss.", "model.", "optimizer.")) and not key.endswith("_")
    }
    scores = {
        f"{split}/{name}": value
        for split in ("val", "test")
        for name, value in getattr(result, split).named(result.groups).items()
    }
    logger.log_hyperparams(chosen, scores, step)
