"""Tidy tables → figures, one SVG each; the background is transparent, so any page may hold them."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from mnist_imbalance.report.claims import CONDITIONS, margin_of
from mnist_imbalance.report.tables import REMEDIES
from mnist_imbalance.report.words import file_name, group, keep_title, method, title

Figure = alt.FacetChart
Limits = tuple[float, float] | None
Layout = tuple[str, int, int]  # the column that names the panels, panels in a row, width of one
alt.data_transformers.disable_max_rows()

GREY = "#7a7a7a"  # as legible on white as on GitHub's dark background (4.3 to 1)
COLORS = {"LSTM": "#8a5cc4", "CNN": "#12987a", "LSTM without ReLU": "#cf3d86"}
COLORS |= {"AI3607's LSTM": "#8c8c8c", "all labels": GREY, "all images": "#7d7d7d"}
COLORS |= {"imbalanced": "#c0392b", "ten augmented copies": "#a87400"}
COLORS |= {"ten plain copies": "#93c54b"}
SPARE = ["#d95f02", "#1f78b4", "#7b9e2f", "#b0447c", "#53b0bd", "#b08968"]  # of others
READABLE = {"model": title, "optimizer": title, "condition": title, "label": group, "group": group}
READABLE |= {"method": method, "setting": title}
FACTS = ["model", "optimizer", "ground", "panel", "condition", "remedy", "method", "setting"]
FACTS += ["label", "weight", "step", "true label", "predicted label", "images", "n"]  # of a mark
ACCURACY = "test accuracy"
HOVER = alt.Description("hover:N")
GREY_TEXT = {"labelColor": GREY, "labelFontSize": 12}
STYLE: dict[str, Any] = {
    "font": "Helvetica, Arial, Liberation Sans, sans-serif",
    "background": "transparent",
    "padding": {"left": 30, "top": 5, "right": 10, "bottom": 5},  # for a browser's wider font
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        **GREY_TEXT,
        **{"titleColor": GREY, "titleFontSize": 12, "titleFontWeight": "normal"},
        **{"domain": False, "ticks": False, "labelPadding": 6, "titlePadding": 10},
        **{"labelLimit": 260, "labelFlush": False, "gridColor": GREY, "gridOpacity": 0.3},
    },
    "legend": {**GREY_TEXT, "orient": "top", "title": None, "symbolOpacity": 1},
    "header": {**GREY_TEXT, "title": None, "labelFontWeight": "bold", "labelPadding": 8},
    "facet": {"spacing": 40},
    "circle": {"size": 50, "opacity": 1},
}


def color(rows: pd.DataFrame, column: str) -> alt.Color:
    """Return the encoding of a column by colours, known names alike in every figure."""
    names, spare = [*rows[column].dropna().unique()], cycle(SPARE)
    scale = alt.Scale(domain=names, range=[COLORS.get(name) or next(spare) for name in names])
    return alt.Color(f"{column}:N", scale=scale)


def add_descriptions(rows: pd.DataFrame, quantity: str, form: str = ".1%") -> pd.DataFrame:
    """Return rows with names for a reader, and ``hover``: the facts of a mark, one per line."""

    def number(estimate: float) -> str:
        return format(estimate, form).replace("-", "−").replace("%", " %").replace("inf", "∞")

    rows = rows.assign(**{name: rows[name].map(f) for name, f in READABLE.items() if name in rows})
    rows[quantity] = rows["mean"].map(number)
    if "low" in rows:
        ends = rows.low.map(number) + " to " + rows.high.map(number)
        rows["95 % interval"] = ends.where(rows.low.notna(), "none")
    cells = rows.filter([*FACTS, quantity, "95 % interval"]).astype(str).fillna("")
    facts = cells.apply(lambda column: f"{column.name}: " + column.str.removesuffix(".0"))
    return rows.assign(hover=facts.agg("\n".join, axis=1))


def panels(layers: list[alt.Chart], rows: pd.DataFrame, layout: Layout, height: int) -> Figure:
    """Return a panel for each value of a column, all with the same scales."""
    by, columns, width = layout
    names = rows[by].unique().tolist()
    layered = alt.LayerChart(layer=layers, data=rows, width=width, height=height)
    faceted = layered.facet(alt.Facet(f"{by}:N", sort=names), columns=min(columns, len(names)))
    figure: Figure = faceted.configure(**STYLE)
    return figure


def line_panels(
    rows: pd.DataFrame, x: alt.X, y: str, line: str, layout: Layout, height: int, every: int = 1
) -> Figure:
    """Return lines with bands; every n-th point has a description."""
    axis = alt.Axis(format="%", tickCount=5, title=y)
    mean = alt.Y("mean:Q", axis=axis, scale=alt.Scale(zero=False))
    base = alt.Chart().encode(x, color(rows, line))
    band = base.mark_area(opacity=0.18).encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    band = band.transform_filter("isValid(datum.low)")
    dots = base.mark_circle(aria=True, opacity=int(every == 1)).encode(mean, HOVER)
    layers = [band, base.mark_line().encode(mean), dots.transform_filter("datum.has_dot")]
    at = rows.groupby([layout[0], line]).cumcount()
    return panels(layers, rows.assign(has_dot=at % every == every // 2), layout, height)


def interval_panels(
    rows: pd.DataFrame, y: str, axis: alt.Axis, line: str, layout: Layout, limits: Limits = None
) -> Figure:
    """Return points with intervals, coloured ``line`` within ``y``; an arrow is beyond limits."""
    scale = alt.Scale(domain=limits, nice=False, clamp=True) if limits else alt.Scale(zero=False)
    grid = alt.Axis(grid=True, tickBand="extent")
    names = alt.Y(f"{y}:N", sort=None, title=None, scale=alt.Scale(padding=0), axis=grid)
    base, height = alt.Chart().encode(names, color(rows, line)), 19
    if rows.dropna(subset="mean").duplicated([layout[0], y]).any():
        lines = rows[line].unique().tolist()
        offset = alt.YOffset(f"{line}:N", sort=lines, scale=alt.Scale(padding=1))
        base, height = base.encode(offset), 10 + 9 * len(lines)
    rule = base.mark_rule(strokeWidth=2, opacity=0.6).encode(alt.X("low:Q"), alt.X2("high:Q"))
    point = base.mark_circle(aria=True).encode(alt.X("mean:Q", axis=axis, scale=scale), HOVER)
    layers = [rule.transform_filter("isValid(datum.low)")]
    layers += [point.transform_filter("isValid(datum.mean)")]
    if limits:
        left, right = alt.datum.low < limits[0], alt.datum.high > limits[1]
        for end, shape, beyond in (("low", "left", left), ("high", "right", right)):
            arrow = base.mark_point(shape=f"triangle-{shape}", filled=True, size=50, opacity=1)
            layers.append(arrow.encode(alt.X(f"{end}:Q")).transform_filter(beyond))
    return panels(layers, rows, layout, height * rows[y].nunique())


def draw_confusion_matrices(confusion: pd.DataFrame) -> Figure:
    """Draw confusion matrices, % of the true label (AI3607, Figures 1 and 2)."""
    rows = confusion.assign(mean=confusion["count"] / confusion.total)
    rows["images"] = rows["count"].astype(str) + " of " + rows.total.astype(str)
    rows["text"] = (100 * rows["mean"]).map("{:.0f}".format)
    rows = add_descriptions(rows, "fraction")
    labels = alt.Axis(labelAngle=0, grid=False)
    x, y = alt.X("predicted label:O", axis=labels), alt.Y("true label:O", axis=labels)
    base = alt.Chart().encode(x, y, HOVER)
    # above one half a cell is dark enough for a white number, below light enough for a grey one
    steps = alt.Scale(domain=[0, 0.5, 0.501, 1], range=[0.04, 0.3, 0.85, 1])
    cells = base.mark_rect(aria=True).encode(
        color(rows, "group").legend(None), alt.Opacity("mean:Q", scale=steps, legend=None)
    )
    numbers = base.mark_text(fontSize=11, color=GREY).encode(alt.Text("text:N"))
    grey = numbers.transform_filter("datum.mean >= 0.005 && datum.mean <= 0.5")
    white = numbers.encode(color=alt.value("white")).transform_filter("datum.mean > 0.5")
    return panels([cells, grey, white], rows, ("model", 2, 330), 330)


def draw_samples(samples: pd.DataFrame) -> Figure:
    """Draw images in all their copies (AI3607, Figure 3)."""
    rows = samples.assign(angle=samples.angle.map("{:+g}°".format).str.replace("-", "−"))
    rows["panel"] = np.where(samples.noise > 0, "noise", "without noise")
    rows["hover"] = "label: " + rows.label.astype(str) + "\nangle: " + rows.angle
    image = alt.Chart().mark_image(aria=True, width=52, height=52, smooth=False)
    x = alt.X("label:O", axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("angle:N", sort=None, title=None, axis=alt.Axis(grid=False))
    layout, height = ("panel", 2, 56 * rows.label.nunique()), 56 * rows.angle.nunique()
    return panels([image.encode(x, y, alt.Url("image:N"), HOVER)], rows, layout, height)


def draw_over_weight(sweep: pd.DataFrame, by_label: bool) -> Figure:
    """Draw labels' or groups' accuracies over the rare labels' weight (AI3607, Figures 4, 5)."""
    rows = add_descriptions(sweep[sweep.label.str.isdigit() == by_label], ACCURACY)
    axis = alt.Axis(grid=False, values=sorted({*sweep.weight}), labelSeparation=6)
    x = alt.X("weight:Q", axis=axis, scale=alt.Scale(zero=False)).title("weight of the rare labels")
    if by_label:
        return line_panels(rows, x, ACCURACY, "model", ("label", 5, 120), 120)
    return line_panels(rows, x, ACCURACY, "label", ("model", 2, 360), 250)


def draw_models(conditions: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw the models in the conditions of AI3607, and its own LSTM (its Figure 6)."""
    own = conditions[["condition", "label"]].drop_duplicates().merge(published.dropna())
    own = own.assign(model="AI3607's LSTM", n="unknown").rename(columns={"published": "mean"})
    axis = alt.Axis(format="%", title=ACCURACY, tickCount=3)
    rows = add_descriptions(pd.concat([conditions, own]), ACCURACY)
    return interval_panels(rows, "condition", axis, "model", ("label", 3, 190))


def draw_differences(differences: pd.DataFrame) -> Figure:
    """Draw the paired differences of every condition to ``imbalanced``."""
    rows = differences.assign(**(100 * differences[["mean", "low", "high"]]))
    rows = add_descriptions(rows, "points more", "+.1f")
    at_zero = alt.condition(alt.datum.value == 0, alt.value(2), alt.value(0.5))
    axis = alt.Axis(title="points more than imbalanced", gridWidth=at_zero, tickCount=5)
    return interval_panels(rows, "condition", axis, "label", ("model", 2, 280))


def draw_curves(by_step: pd.DataFrame) -> Figure:
    """Draw validation accuracy over optimizer steps with bands over seeds."""
    within = by_step[["low", "high"]].clip(0, 1)
    rows = add_descriptions(by_step.assign(**within), "validation accuracy")
    rows["panel"] = rows.model + ", " + rows.label
    x = alt.X("step:Q", axis=alt.Axis(grid=False, tickCount=5)).title("optimizer steps")
    return line_panels(rows, x, "validation accuracy", "condition", ("panel", 2, 360), 250, every=5)


def draw_restored(restored: pd.DataFrame) -> Figure:
    """Draw the fraction of the loss that each remedy restores, the remedies in their order."""
    order = [*REMEDIES].index
    known = restored.sort_values("condition", key=lambda names: names.map(order), kind="stable")
    rows = add_descriptions(known.rename(columns={"fraction": "mean"}), "restored", ".2f")
    rows = rows.assign(panel=rows.optimizer + ", " + rows.ground, low=rows.low.clip(-9))
    rows["high"] = rows.high.clip(upper=9)  # JSON has no infinity
    least, most = rows["mean"].min() - 0.1, rows["mean"].max() + 0.1
    marks = "{'0': ['0', 'imbalanced'], '0.5': '½', '1': ['1', 'original']}[datum.value]"
    axis = alt.Axis(values=[0, 0.5, 1], labelExpr=marks, gridWidth=1.5, title="fraction restored")
    limits = max(-1, min(-0.25, least)), min(2, max(1.25, most))
    return interval_panels(rows, "remedy", axis, "model", ("panel", 2, 280), limits)


def draw_ranked(ranked: pd.DataFrame) -> Figure:
    """Draw the methods' distances to plain; those that may be the best are shaded."""
    by = ranked["mean"].where(ranked.method == "plain").groupby([ranked.model, ranked.keep])
    known = ranked.effect.fillna(ranked["mean"] - by.transform("max"))  # of plain and original
    rows = ranked.assign(mean=known, margin=ranked.model.map(margin_of), n=ranked.seeds)
    rows = rows.assign(**(100 * rows[["mean", "low", "high", "margin"]])).dropna(subset="mean")
    rows = add_descriptions(rows, "points above plain", "+.2f")
    rows["panel"] = rows.model + ", " + rows.keep.map(keep_title)
    axis = alt.Axis(title="points above the plain loss", tickCount=5)
    drawn = interval_panels(rows, "method", axis, "model", ("panel", 2, 280))
    shade = alt.condition("datum.best", alt.value(0.12), alt.value(0))
    best = (
        alt.Chart()
        .mark_rect()
        .encode(alt.Y("method:N", sort=None), color(rows, "model"), opacity=shade)
    )
    band = alt.Chart().mark_rect(color=GREY, opacity=0.1).transform_calculate(less="-datum.margin")
    margin = band.encode(alt.X("mean(less):Q"), alt.X2("mean(margin):Q"))
    drawn.spec.layer[:0] = [best, margin]  # the first has all methods, in their order
    independent: Figure = drawn.resolve_scale(x="independent", y="independent")
    return independent


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return all figures by name, but for those without rows."""
    restored = tables["restored"].query("n > 0 and condition not in ['original', 'imbalanced']")
    sweep = tables["weight_sweep"].query("normalize == 'weight_sum'")
    sweep = sweep[sweep.groupby(["model", "optimizer"]).weight.transform("nunique") > 2]
    published = tables["table_1"].query("model == 'lstm'")[["condition", "label", "published"]]
    conditions = tables["all_conditions"]
    conditions = conditions[conditions.condition.isin(CONDITIONS)]
    differences, confusion = tables["differences"], tables["confusion"]
    differences = differences[~differences.condition.str.contains("model.")]
    figures: dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame], Figure]]] = {
        "restored": (restored.query("ground == 'equal steps'"), draw_restored),
        "restored_epochs": (restored.query("ground == 'equal epochs'"), draw_restored),
        "figure_3": (tables["samples"], draw_samples),
        "ranking": (tables["ranked"], draw_ranked),
    }
    for name, table, make in (
        ("learning", tables["learning_curves"], draw_curves),
        ("differences", differences, draw_differences),
        ("figure_1", confusion.query("condition == 'original'"), draw_confusion_matrices),
        ("figure_2", confusion.query("condition == 'imbalanced'"), draw_confusion_matrices),
        ("figure_4", sweep, partial(draw_over_weight, by_label=True)),
        ("figure_5", sweep, partial(draw_over_weight, by_label=False)),
        ("figure_6", conditions, partial(draw_models, published=published)),
    ):
        for optimizer, rows in table.groupby("optimizer", sort=False):
            unnamed = "" if name == "learning" else "sgd"
            figures[file_name(name, optimizer, unnamed)] = (rows, make)
    return {name: make(rows) for name, (rows, make) in figures.items() if len(rows)}


def svg(figure: Figure) -> str:
    """Return a figure as the content of an SVG file, two decimals per coordinate."""
    drawn = vl_convert.vegalite_to_svg(figure.to_dict(validate=False))
    drawn = re.sub(' aria-label="Title text [^"]*"', "", drawn)  # what is read there anyway
    coordinates = r' (?:d|transform|[xy][12])="[^"]*"'
    return re.sub(coordinates, lambda at: re.sub(r"(?<=\.\d\d)\d+", "", at[0]), drawn)
