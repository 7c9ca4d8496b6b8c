"""The figures to hover over, one a model, so that they fit a phone."""

import numpy
import pandas
from plotly import graph_objects as go

from mnist_imbalance.labels import MINORITY, NUM_LABELS
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

CLEAR = "rgba(0,0,0,0)"  # the page's own colours show through


def figure(title: str, x: str, y: str) -> go.Figure:
    """Make an empty figure in the page's style."""
    made = go.Figure()
    made.update_layout(
        title={"text": title, "font": {"size": 15}},
        xaxis={"title": x},
        yaxis={"title": y},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        margin={"l": 50, "r": 10, "t": 40, "b": 40},
        legend={"orientation": "h", "y": -0.25},
        hoverlabel={"namelength": -1},
    )
    return made


def bars(rows: pandas.DataFrame) -> dict[str, object]:
    """Give error bars in points."""
    return {
        "array": 100 * (rows.high - rows["mean"]),
        "arrayminus": 100 * (rows["mean"] - rows.low),
        "symmetric": False,
    }


def hover(rows: pandas.DataFrame) -> list[str]:
    """Say mean, interval and n."""
    return [
        "missing"
        if row.n == 0
        else f"{100 * row.mean:.2f}, n = 1"
        if row.n == 1
        else f"{100 * row.mean:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}], n = {row.n}"
        for row in rows.itertuples()
    ]


def confusion(gathered: Gathered, model: str, condition: str) -> go.Figure:
    """A confusion matrix, % of the true label, all seeds together (Figures 1 and 2)."""
    counts = tables.confusion(gathered, model, condition)
    totals = counts.sum(axis=1, keepdims=True)
    share = tables.percent_of_rows(counts)
    made = figure(model_title(model), "predicted label", "true label")
    made.add_heatmap(
        z=share,
        customdata=numpy.stack([counts, totals.repeat(NUM_LABELS, axis=1)], axis=-1),
        colorscale="Blues",
        zmin=0,
        zmax=100,
        showscale=False,
        hovertemplate=(
            "true %{y}, predicted %{x}<br>%{z:.1f} %: %{customdata[0]} of %{customdata[1]}"
            "<extra></extra>"
        ),
        text=numpy.where(share >= 0.5, numpy.char.mod("%.0f", share), ""),
        texttemplate="%{text}",
    )
    made.update_xaxes(dtick=1, constrain="domain", showgrid=False, zeroline=False)
    made.update_yaxes(showgrid=False, zeroline=False)
    made.update_yaxes(dtick=1, autorange="reversed", scaleanchor="x", constrain="domain")
    return made


def labels_over_weight(sweep: pandas.DataFrame, model: str) -> go.Figure:
    """Every label's accuracy over the weight of labels 0-4 (Figure 4)."""
    made = figure(model_title(model), "weight of labels 0-4", "test accuracy %")
    for label in range(NUM_LABELS):
        rows = sweep[(sweep.model == model) & (sweep.label == str(label))]
        made.add_scatter(
            x=rows.weight,
            y=100 * rows["mean"],
            text=hover(rows),
            name=f"label {label}",
            line={"dash": "solid" if label in MINORITY else "dot"},
            mode="lines+markers",
            hovertemplate="%{text}",
        )
    return made


def groups_over_weight(sweep: pandas.DataFrame, model: str) -> go.Figure:
    """The groups' accuracies over the weight, with their 95 % intervals (Figure 5)."""
    made = figure(model_title(model), "weight of labels 0-4", "test accuracy %")
    for group, color in GROUP_COLORS.items():
        rows = sweep[(sweep.model == model) & (sweep.label == group)]
        band = rows.dropna(subset="low")
        made.add_scatter(
            x=[*band.weight, *band.weight[::-1]],
            y=[*(100 * band.high), *(100 * band.low[::-1])],
            fill="toself",
            fillcolor=color,
            opacity=0.25,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
        made.add_scatter(
            x=rows.weight,
            y=100 * rows["mean"],
            text=hover(rows),
            name=group_title(group),
            line={"color": color},
            mode="lines+markers",
            hovertemplate="%{text}",
        )
    return made


def models(conditions: pandas.DataFrame, group: str) -> go.Figure:
    """CNN against LSTM in every condition, the report's LSTM beside (Figure 6)."""
    made = figure(group_title(group), "", "test accuracy %")
    rows = conditions[
        (conditions.optimizer == "sgd")
        & (conditions.label == group)
        & conditions.condition.isin(CONDITIONS)
    ]
    for model, color in MODEL_COLORS.items():
        shown = rows[rows.model == model]
        made.add_scatter(
            x=[condition_title(name) for name in shown.condition],
            y=100 * shown["mean"],
            error_y=bars(shown),
            text=hover(shown),
            name=model_title(model),
            mode="markers",
            marker={"color": color, "size": 9},
            hovertemplate="%{text}",
        )
    names = list(dict.fromkeys(rows.condition))
    made.update_xaxes(tickangle=-40)
    made.add_scatter(
        x=[condition_title(name) for name in names],
        y=[100 * published_accuracy(name, group) for name in names],
        name="LSTM, published",
        mode="markers",
        marker={"color": "gray", "symbol": "x", "size": 9},
        hovertemplate="%{y:.1f}",
    )
    return made


def differences(paired: pandas.DataFrame, model: str) -> go.Figure:
    """Every condition's paired difference to ``imbalanced`` with its 95 % interval."""
    made = figure(model_title(model), "points more than imbalanced, test accuracy", "")
    for group, color in GROUP_COLORS.items():
        rows = paired[
            (paired.model == model) & (paired.optimizer == "sgd") & (paired.label == group)
        ]
        made.add_scatter(
            x=100 * rows["mean"],
            y=[condition_title(name) for name in rows.condition],
            error_x=bars(rows),
            text=hover(rows),
            name=group_title(group),
            mode="markers",
            marker={"color": color, "size": 8},
            hovertemplate="%{text}",
        )
    made.update_yaxes(autorange="reversed")
    made.update_layout(height=560)
    return made


def learning_curves(curves: pandas.DataFrame, model: str) -> go.Figure:
    """Validation accuracy of labels 0-4 by epoch, mean over seeds."""
    made = figure(model_title(model), "epoch", "validation accuracy of labels 0-4 %")
    for condition, rows in curves[curves.model == model].groupby("condition", sort=False):
        made.add_scatter(
            x=rows.epoch,
            y=100 * rows["0-4"],
            name=condition_title(condition),
            mode="lines",
            hovertemplate="epoch %{x}: %{y:.1f}",
        )
    return made
