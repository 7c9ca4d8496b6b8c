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

from mnist_imbalance.report.claims import CONDITIONS, GROUPS, TRAINING, margin_of
from mnist_imbalance.report.tables import ALIKE
from mnist_imbalance.report.words import file_name, group, keep_title, method, sort_key, title

Figure = alt.FacetChart
Layout = tuple[str, int, int]  # the column that names the panels, panels in a row, width of one
alt.data_transformers.disable_max_rows()

GREY = "#7a7a7a"  # as legible on white as on a dark background (4.3 to 1)
IN_SCHEME = f':where(text[fill="{GREY}"]){{fill:%s}}'  # any rule of a page goes before
SCHEMES = f"{IN_SCHEME % '#6a6a6a'}@media(prefers-color-scheme:dark){{{IN_SCHEME % '#8c8c8c'}}}"
COLORS = {"LSTM": "#8a5cc4", "CNN": "#12987a", "LSTM without ReLU": "#cf3d86"}
ITS_LSTM = "the course report's LSTM"
COLORS |= {ITS_LSTM: "#c25100", "all labels": GREY, "all images": "#7d7d7d"}
COLORS |= {"imbalanced": "#c0392b", "ten augmented copies": "#a87400"}
COLORS |= {"ten plain copies": "#2b83d6", "weight 7, divided by images": "#2f9e44"}
SPARE = ["#c25100", "#1f78b4", "#7b9e2f", "#b0447c", "#3f9aa8", "#b08968"]  # of others
READABLE = {"model": title, "optimizer": title, "condition": title, "label": group, "group": group}
READABLE |= {"method": method, "setting": title}
FACTS = ["model", "optimizer", "panel", "training", "condition", "method", "setting"]  # of a mark
FACTS += ["label", "weight", "step", "true label", "predicted label", "images", "n"]
ACCURACY = "test accuracy"
LINES = "split(datum.label, '; ')"  # of a panel's name
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
    "legend": {
        **{**GREY_TEXT, "labelLimit": 0},
        **{"orient": "top", "title": None, "symbolOpacity": 1, "columns": 3, "columnPadding": 30},
    },
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
        return format(estimate, form).replace("-", "−").replace("%", " %")

    rows = rows.assign(**{name: rows[name].map(f) for name, f in READABLE.items() if name in rows})
    rows[quantity] = rows["mean"].map(number)
    if "low" in rows:
        rows[["low", "high"]] = rows[["low", "high"]].mask(rows.n == 2)  # which says nothing
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
    facet = alt.Facet(f"{by}:N", sort=names, header=alt.Header(labelExpr=LINES))
    faceted = layered.facet(facet, columns=min(columns, len(names)))
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
    rows: pd.DataFrame, y: str, axis: alt.Axis, line: str, layout: Layout, over: bool = False
) -> Figure:
    """Return points with intervals, coloured ``line``, side by side within ``y`` or over it."""
    grid = alt.Axis(grid=True, tickBand="extent")
    names = alt.Y(f"{y}:N", sort=None, title=None, scale=alt.Scale(padding=0), axis=grid)
    base, height = alt.Chart().encode(names, color(rows, line)), 19
    if not over and rows.dropna(subset="mean").duplicated([layout[0], y]).any():
        lines = rows[line].unique().tolist()
        offset = alt.YOffset(f"{line}:N", sort=lines, scale=alt.Scale(padding=1))
        base, height = base.encode(offset), 10 + 9 * len(lines)
    rule = base.mark_rule(strokeWidth=12 if over else 2, opacity=0.6)
    rule = rule.encode(alt.X("low:Q"), alt.X2("high:Q")).transform_filter("isValid(datum.low)")
    x = alt.X("mean:Q", axis=axis, scale=alt.Scale(zero=False))
    point = base.mark_circle(aria=True).encode(x, HOVER).transform_filter("isValid(datum.mean)")
    return panels([rule, point], rows, layout, height * rows[y].nunique())


def draw_confusion_matrices(confusion: pd.DataFrame) -> Figure:
    """Draw confusion matrices, % of the true label (AI3607, Figures 1 and 2)."""
    images = confusion["count"].astype(str) + " of " + confusion.total.astype(str)
    rows = confusion.assign(images=images, shade=confusion.group.map(group))
    rows["text"] = (100 * rows["mean"]).map("{:.0f}".format)
    rows = add_descriptions(rows, "fraction")
    labels = alt.Axis(labelAngle=0, grid=False)
    x, y = alt.X("predicted label:O", axis=labels), alt.Y("true label:O", axis=labels)
    base = alt.Chart().encode(x, y, HOVER)
    # a cell is dark enough for a white number, or light enough for a grey one
    steps = alt.Scale(domain=[0, 0.5, 0.505, 1], range=[0.04, 0.3, 0.9, 1])
    cells = base.mark_rect(aria=True).encode(
        color(rows, "shade").legend(None), alt.Opacity("mean:Q", scale=steps, legend=None)
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


def draw_models(conditions: pd.DataFrame, published: pd.DataFrame, over: bool = False) -> Figure:
    """Draw the models in AI3607's conditions, and its own LSTM beside or over them (Figure 6)."""
    own = conditions[["condition", "label"]].drop_duplicates().merge(published.dropna())
    own = own.assign(model=ITS_LSTM, optimizer="unknown", training=TRAINING, n="unknown")
    own = own.rename(columns={"published": "mean"})
    axis = alt.Axis(format="%", title=ACCURACY, tickCount=3)
    rows = add_descriptions(pd.concat([conditions, own]), ACCURACY)
    return interval_panels(rows, "condition", axis, "model", ("label", 3, 190), over=over)


def draw_curves(by_step: pd.DataFrame) -> Figure:
    """Draw validation accuracy over optimizer steps with bands over seeds."""
    within = by_step[["low", "high"]].clip(0, 1)
    rows = add_descriptions(by_step.assign(**within), "validation accuracy")
    rows["panel"] = rows.model + ", " + rows.label
    x = alt.X("step:Q", axis=alt.Axis(grid=False, tickCount=5)).title("optimizer steps")
    return line_panels(rows, x, "validation accuracy", "condition", ("panel", 2, 360), 250, every=5)


def draw_restored_steps(curves: pd.DataFrame) -> Figure:
    """Draw the fraction restored over optimizer steps."""
    family = curves.model.str.partition("_")[0].rename("model")  # a model and its variants
    rows = curves.loc[family.sort_values(key=sort_key, kind="stable").index]
    rows = add_descriptions(rows, "restored", ".0%")
    rows["panel"] = rows.model + "; " + rows.training.str.split(",").str[0]
    rows[["low", "high"]] = rows[["low", "high"]].clip(-0.25, 1.5)
    axis = alt.Axis(grid=False, values=[500, 1000, 2000, 5000, 10000], format=",d")
    x = alt.X("step:Q", axis=axis, scale=alt.Scale(type="log", nice=False)).title("optimizer steps")
    return line_panels(rows, x, "fraction restored", "condition", ("panel", 3, 220), 200)


def draw_ranked(ranked: pd.DataFrame) -> Figure:
    """Draw the methods' distances to plain; those that may be the best are shaded."""
    dataset = ranked.dataset.map(title) + ", " if ranked.dataset.nunique() > 1 else ""
    panel = dataset + ranked.model.map(title) + ", " + ranked.keep.map(keep_title)
    by = ranked["mean"].where(ranked.method == "plain").groupby(panel)
    known = ranked.effect.fillna(ranked["mean"] - by.transform("max"))  # of plain and for reference
    rows = ranked.assign(mean=known, margin=ranked.model.map(margin_of), n=ranked.seeds)
    rows = rows.assign(**(100 * rows[["mean", "low", "high", "margin"]])).dropna(subset="mean")
    rows = add_descriptions(rows, "points above plain", "+.2f")
    axis = alt.Axis(title="points above the plain loss", tickCount=5)
    drawn = interval_panels(rows.assign(panel=panel), "method", axis, "model", ("panel", 2, 280))
    shade = alt.condition("datum.best", alt.value(0.12), alt.value(0))
    area, line = alt.Chart().mark_rect(), alt.Y("method:N", sort=None)
    best = area.encode(line, color(rows, "model"), opacity=shade)
    band = area.transform_calculate(less="-datum.margin").encode(color=alt.value(GREY))
    margin = band.encode(alt.X("mean(less):Q"), alt.X2("mean(margin):Q"), opacity=alt.value(0.1))
    drawn.spec.layer[:0] = [best, margin]  # the first has all methods, in their order
    independent: Figure = drawn.resolve_scale(x="independent", y="independent")
    return independent


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return all figures by name, but for those without rows."""
    sweep = tables["weight_sweep"]
    sweep = sweep[sweep.groupby(["model", "optimizer"]).weight.transform("nunique") > 2]
    table = tables["table_1"].query("model == 'lstm'")
    published, one = table[["condition", "label", "published"]], table.dropna(subset="published")
    one = one[~one.label.str.isdigit()].assign(low=one.low_one, high=one.high_one)
    every = tables["all_conditions"]
    names = [", ".join(keys) for keys in every[ALIKE].itertuples(index=False)]
    few = every.assign(model=names, low=every.low.clip(0), high=every.high.clip(upper=1))
    few = few[:0] if few.label.eq("balanced").sum() > 40 else few  # too many to tell apart
    its_own = every.condition.isin(CONDITIONS) & every.label.isin(GROUPS)
    conditions = every[its_own & (every.training == TRAINING) & (every.dataset == "mnist")]
    confusion, curves = tables["confusion"].eval("mean = count / total"), tables["restored_curves"]
    certain = curves[np.isfinite(curves.low.astype(float))]  # that anything was lost
    figures: dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame], Figure]]] = {
        "restored_steps": (certain, draw_restored_steps),
        "figure_3": (tables["samples"], draw_samples),
        "published": (one, partial(draw_models, published=published, over=True)),
        "ranking": (tables["ranked"], draw_ranked),
        "conditions": (few, partial(draw_models, published=published[:0])),
    }
    for name, table, make in (
        ("learning", tables["learning_curves"], draw_curves),
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
    drawn = drawn.replace(">", f"><style>{SCHEMES}</style>", 1)
    drawn = re.sub(' aria-label="Title text [^"]*"', "", drawn)  # what is read there anyway
    coordinates = r' (?:d|transform|[xy][12])="[^"]*"'
    return re.sub(coordinates, lambda at: re.sub(r"(?<=\.\d\d)\d+", "", at[0]), drawn)
