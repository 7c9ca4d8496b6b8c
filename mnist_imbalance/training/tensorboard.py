"""The pictures and the HPARAMS row that TensorBoard shows of a finished run."""

from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from mnist_imbalance.data import MNISTData
from mnist_imbalance.records.result import Result


def draw_confusion(confusion: list[list[int]]) -> Figure:
    """Draw the share, in %, of each true label's images (AI3607, Figures 1 and 2)."""
    counts = torch.tensor(confusion)
    shares = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for true, predicted in (shares >= 1).nonzero().tolist():
        share = shares[true, predicted].item()
        color = "white" if share > 50 else "black"
        axes.text(predicted, true, f"{share:.0f}", color=color, ha="center", va="center", size=14)
    labels = range(len(confusion))
    axes.set_xticks(labels, map(str, labels), size=14)
    axes.set_yticks(labels, map(str, labels), size=14)
    axes.set_xlabel("predicted label", size=14)
    axes.set_ylabel("true label, %", size=14)
    return figure


def show_in_tensorboard(logger: TensorBoardLogger, result: Result, data: MNISTData) -> None:
    """Add the confusion matrix, a sample of the images, the test scores and the HPARAMS row."""
    writer = logger.experiment
    writer.add_figure("test/confusion", draw_confusion(result.test.confusion), result.epochs)
    large = data.sample().repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    grid = make_grid(large, nrow=len(data.shown), pad_value=96)
    writer.add_image("data/copies", grid, result.epochs)
    scores = {
        f"{split}/{name}": value
        for split in ("val", "test")
        for name, value in getattr(result, split).named(result.groups).items()
    }
    logger.log_metrics({n: v for n, v in scores.items() if n.startswith("test/")}, result.epochs)
    chosen: dict[str, Any] = {
        key: str(value) if isinstance(value, list) else value
        for key, value in result.config.items()
        if key.startswith(("loss.", "model.", "optimizer.")) and not key.endswith("_")
    }
    names = ("condition", "model", "data", "loss", "optimizer", "seed", "data_seed", "epochs")
    chosen |= {name: getattr(result, name) for name in names}
    for summary in hparams(chosen, dict.fromkeys(sorted(scores))):
        writer.file_writer.add_summary(summary, result.epochs)
    logger.finalize("success")
