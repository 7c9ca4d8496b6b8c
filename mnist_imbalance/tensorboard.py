"""What TensorBoard shows of a run: curves, pictures and a row of HPARAMS."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from mnist_imbalance.data import MNISTData
from mnist_imbalance.runs import Result, RunFolder

GROUPS = ("val", "val_per_label", "train", "train_per_label", "test", "data")


def tag(name: str) -> str:
    """Return a name, ``val/loss``, as TensorBoard, which sorts them, is given it: ``1_val/loss``.

    So it opens on what one chooses by.
    """
    group, _, rest = name.partition("/")
    return f"{GROUPS.index(group) + 1}_{group}/{rest}" if group in GROUPS else name


class InOrder(TensorBoardLogger):
    """Lightning's logger, with tags in the order of `GROUPS`."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scores by the names that the code has for them."""
        super().log_metrics({tag(name): value for name, value in metrics.items()}, step)


def make_logger(folder: RunFolder, done: int) -> TensorBoardLogger:
    """Return the logger of a run; what it logged after ``done`` whole epochs is dropped."""
    return InOrder(
        folder.path,
        name=None,
        version=folder.tensorboard.name,
        default_hp_metric=False,
        purge_step=done,
    )


def draw_confusion(confusion: list[list[int]]) -> Figure:
    """Draw a confusion matrix, true labels down, predicted across (AI3607, Figures 1 and 2).

    A cell is the share of the true label's images, in %, where it is one at least; large enough to
    be read on TensorBoard's cards.
    """
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


def lay_out(images: Tensor, columns: int) -> Tensor:
    """Return images (N, C, H, W) uint8 in a grid (3, H, W), four times as large."""
    large = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    grid: Tensor = make_grid(large, nrow=columns, pad_value=96)
    return grid


def show_in_tensorboard(logger: TensorBoardLogger, result: Result, data: MNISTData) -> None:
    """Add what is known at the end: the confusion matrix, a sample, the HPARAMS row."""
    writer = logger.experiment
    writer.add_figure(tag("test/confusion"), draw_confusion(result.test.confusion), result.epochs)
    sample = lay_out(data.sample(), columns=len(data.shown))
    writer.add_image(tag("data/copies"), sample, result.epochs)
    curves = {
        name: ["Multiline", [f"{tag(f'{split}/{name}')}$" for split in ("val", "train")]]
        for name in result.val.named(result.groups)
    }
    writer.add_custom_scalars({"val beside train": curves})
    scores = {split: getattr(result, split).named(result.groups) for split in ("val", "test")}
    logger.log_metrics(
        {f"test/{name}": value for name, value in scores["test"].items()}, step=result.epochs
    )
    shown = sorted(tag(f"{split}/{name}") for split, named in scores.items() for name in named)
    summaries: Any = hparams(hyperparameters(result), dict.fromkeys(shown))
    for summary in summaries:
        writer.file_writer.add_summary(summary, result.epochs)
    logger.finalize("success")


def hyperparameters(result: Result) -> dict[str, Any]:
    """Return what HPARAMS shows beside the scores, by names that sort what is compared first."""
    parts = ("loss.", "model.", "optimizer.")
    return {
        "condition": result.condition,
        "loss": result.loss,
        "model": result.model,
        "optimizer": result.optimizer,
        **{
            key: str(value) if isinstance(value, list) else value
            for key, value in result.config.items()
            if key.startswith(parts) and not key.endswith("_")
        },
        "seed": result.seed,
        "seed_of_data": result.data_seed,
        "trained_epochs": result.epochs,
        "training_set": result.data,
    }
