"""The figures as still pictures, the two models side by side."""

import io
from collections.abc import Callable

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_imbalance.labels import GROUPS, MINORITY, NUM_LABELS
from mnist_imbalance.published import published_accuracy
from mnist_imbalance.report import tables
from mnist_imbalance.report.gather import Gathered
from mnist_imbalance.report.names import (
    CONDITIONS,
    GROUP_COLORS,
    MODEL_COLORS,
    condition_title,
    group_title,
    model_title,
)

matplotlib.rcParams["svg.hashsalt"] = "mnist_imbalance"  # the same picture, the same file
LABEL_COLORS = [matplotlib.colormaps["tab10"](label) for label in range(NUM_LABELS)]


def side_by_side(height: float, draw: Callable[[Axes, str], None], share: bool = True) -> Figure:
    """Draw something for each model."""
    figure = Figure(figsize=(10, height), layout="constrained")
    grid = figure.subplots(1, 2, sharex=share, sharey=share)
    for axes, model in zip(grid, MODEL_COLORS, strict=True):
        axes.set_title(model_title(model))
        draw(axes, model)
    return figure


def errors(rows: pandas.DataFrame) -> numpy.ndarray:
    """Give the lengths of error bars in points, (2, N); none where there is no interval."""
    lengths = numpy.stack([rows["mean"] - rows.low, rows.high - rows["mean"]]).astype(float)
    return 100 * numpy.where(numpy.isnan(lengths), 0, lengths)


def draw_confusion(gathered: Gathered, condition: str) -> Figure:
    """Draw the confusion matrices of a condition, % of the true label (Figures 1 and 2)."""

    def draw(axes: Axes, model: str) -> None:
        share = tables.percent_of_rows(tables.confusion(gathered, model, condition))
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in numpy.ndindex(share.shape):
            if share[row, column] >= 0.5:
                color = "white" if share[row, column] > 50 else "black"
                text = f"{share[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        axes.set(xticks=range(NUM_LABELS), yticks=range(NUM_LABELS))
        axes.set(xlabel="predicted label", ylabel="true label")

    return side_by_side(5.2, draw)


def draw_samples(samples: numpy.ndarray, copies: list[str]) -> Figure:
    """Draw a kept image of each of labels 0-4 in all its copies (Figure 3).

    Args:
        samples: (copies, 5, 28, 28) uint8.
        copies: What was done to each.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    grid = figure.subplots(len(MINORITY), len(copies))
    for (row, column), axes in numpy.ndenumerate(grid):
        axes.imshow(samples[column, row], cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        if row == 0:
            axes.set_title(copies[column], fontsize=9)
    return figure


def draw_labels_over_weight(sweep: pandas.DataFrame) -> Figure:
    """Draw every label's accuracy over the weight of labels 0-4 (Figure 4)."""

    def draw(axes: Axes, model: str) -> None:
        for label in range(NUM_LABELS):
            rows = sweep[(sweep.model == model) & (sweep.label == str(label))]
            style = "-" if label in MINORITY else "--"
            axes.plot(
                rows.weight, 100 * rows["mean"], style, color=LABEL_COLORS[label], label=label
            )
        axes.set(xlabel="weight of labels 0-4", ylabel="test accuracy %")
        axes.grid(alpha=0.3)
        if model == list(MODEL_COLORS)[-1]:
            axes.legend(title="label", loc="center left", bbox_to_anchor=(1, 0.5))

    return side_by_side(4, draw, share=False)


def draw_groups_over_weight(sweep: pandas.DataFrame) -> Figure:
    """Draw the groups' accuracies over the weight with their 95 % intervals (Figure 5)."""

    def draw(axes: Axes, model: str) -> None:
        for group, color in GROUP_COLORS.items():
            rows = sweep[(sweep.model == model) & (sweep.label == group)]
            axes.plot(rows.weight, 100 * rows["mean"], marker="o", color=color, label=group)
            low, high = (rows[end].astype(float) for end in ("low", "high"))
            axes.fill_between(rows.weight, 100 * low, 100 * high, color=color, alpha=0.2, lw=0)
        axes.set(xlabel="weight of labels 0-4", ylabel="test accuracy %")
        axes.grid(alpha=0.3)
        axes.legend(title="labels")

    return side_by_side(4, draw, share=False)


def draw_models(conditions: pandas.DataFrame) -> Figure:
    """Draw CNN against LSTM in every condition, the report's LSTM beside (Figure 6)."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    rows = conditions[(conditions.optimizer == "sgd") & conditions.condition.isin(CONDITIONS)]
    names = list(dict.fromkeys(rows.condition))
    for axes, group in zip(figure.subplots(1, 3, sharey=True), GROUPS, strict=True):
        for shift, model in ((-0.1, "lstm"), (0.1, "cnn")):
            shown = rows[(rows.model == model) & (rows.label == group)]
            places = [names.index(name) + shift for name in shown.condition]
            axes.errorbar(
                places,
                100 * shown["mean"],
                errors(shown),
                fmt="o",
                capsize=3,
                color=MODEL_COLORS[model],
                label=model_title(model),
            )
        published = [100 * published_accuracy(name, group) for name in names]
        axes.plot(published, "x", color="gray", label="LSTM, published")
        axes.set_xticks(range(len(names)), map(condition_title, names), rotation=40, ha="right")
        axes.set_title(group_title(group))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy %")
    figure.axes[1].legend(loc="lower center")
    return figure


def draw_differences(differences: pandas.DataFrame) -> Figure:
    """Draw every condition's paired difference to ``imbalanced`` with its 95 % interval."""

    def draw(axes: Axes, model: str) -> None:
        of_model = differences[(differences.model == model) & (differences.optimizer == "sgd")]
        names = list(dict.fromkeys(of_model.condition))[::-1]
        for shift, (group, color) in zip((0.2, 0, -0.2), GROUP_COLORS.items(), strict=True):
            rows = of_model[of_model.label == group].set_index("condition").loc[names]
            axes.errorbar(
                100 * rows["mean"],
                numpy.arange(len(names)) + shift,
                xerr=errors(rows),
                fmt="o",
                markersize=4,
                capsize=2,
                color=color,
                label=group_title(group),
            )
        axes.axvline(0, color="black", lw=0.8)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticks(range(len(names)), map(condition_title, names))
        axes.set_xlabel("points more than imbalanced")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(GROUP_COLORS))

    return side_by_side(6, draw, share=False)


def draw_learning_curves(curves: pandas.DataFrame) -> Figure:
    """Draw the validation accuracy of labels 0-4 by epoch."""

    def draw(axes: Axes, model: str) -> None:
        of_model = curves[curves.model == model]
        for condition, rows in of_model.groupby("condition", sort=False):
            axes.plot(rows.epoch, 100 * rows["0-4"], marker=".", label=condition_title(condition))
        axes.set(xlabel="epoch", ylabel="validation accuracy of labels 0-4 %")
        axes.grid(alpha=0.3)
        if not of_model.empty:
            axes.legend()

    return side_by_side(4, draw, share=False)


def render(figure: Figure, kind: str) -> bytes:
    """Give a figure as the content of a file, "png" or "svg", alike at every call."""
    image = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}[kind]
    figure.savefig(image, format=kind, dpi=120, metadata=metadata)
    return image.getvalue()
