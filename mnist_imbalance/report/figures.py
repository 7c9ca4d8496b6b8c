"""The figures, each described once, for files and, wide and narrow, for the page."""

import base64
import io
import re
from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import altair as alt
import numpy
import pandas
import vl_convert
from PIL import Image

from mnist_imbalance.published import published_accuracy
from mnist_imbalance.report import tables
from mnist_imbalance.report.gather import Gathered
from mnist_imbalance.report.names import (
    CONDITIONS,
    MODELS,
    TITLES,
    condition_title,
    group_title,
    model_title,
    titled,
)
from mnist_imbalance.scores import ALL

Figure = alt.FacetChart
Described = dict[str, Any]  # in Vega-Lite's words

alt.data_transformers.disable_max_rows()

HOVER = alt.Description("hover:N")
TOLD = [*TITLES, "remedy", "ground", "weight", "epoch", "step", "component", "n"]
# One meaning a colour.
GROUP_COLORS = ["#d95f02", "#1f78b4", "#7b9e2f", "#b0447c"]
ALL_COLOR = "#7f7f7f"
PALETTES = {
    "model": ["#8a5cc4", "#12987a", "#cf3d86", "#8a6d1d"],
    "condition": [
        *["#7d7d7d", "#c0392b", "#e3b04b", "#a87400", "#93c54b", "#4c8f2f"],
        *["#c98bc0", "#53b0bd", "#b08968"],
    ],
    "component": ["#7f9fc4", "#b3c7dd", "#dde5ee"],
}
KNOWN = {
    "model": [*map(model_title, MODELS)],
    "condition": [*map(condition_title, CONDITIONS)],
}
PHONE = 350  # pixels
SPARE = 12  # pixels beside the labels, for a browser's wider font
WIDTH_OF_RANKED = 260
PLACES = r' (?:d|transform|[xy][12])="[^"]*"'  # where an SVG file has more decimals than it needs
SUPERFLUOUS = (  # that is not seen
    r'<path class="(?:fore|back)ground"[^>]*/>| role="graphics-[^"]*"| pointer-events="none"'
    r'| aria-(?:roledescription|hidden)="[^"]*"'
)
PUBLISHED = "LSTM, published"
ACCURACY = "test accuracy"
ENDS = {"at": "mean", "from": "low", "to": "high"}  # what is drawn of which column
CONFUSION = ["model", "group", "true", "predicted", "mean", "text", "images"]
STYLE: dict[str, Any] = {
    "font": "Helvetica, Arial, Liberation Sans, sans-serif",
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        **{"domain": False, "ticks": False, "labelPadding": 6, "titlePadding": 10},
        **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        **{"gridOpacity": 0.7, "labelLimit": 220, "labelFlush": False},
    },
    "legend": {"orient": "top", "title": None, "labelFontSize": 12, "symbolOpacity": 1},
    "facet": {"spacing": 40},
    "background": "white",
    "header": {"title": None, "labelFontSize": 13, "labelFontWeight": "bold", "labelPadding": 8},
    "line": {"strokeWidth": 2},
    "circle": {"size": 40, "opacity": 1},
}


def colors(rows: pandas.DataFrame, column: str) -> dict[str, str]:
    """Return the colours of a column's names, the same in every figure for those in `KNOWN`."""
    shown = rows[column].unique()
    order = dict.fromkeys([*KNOWN.get(column, []), *shown])
    by_name = dict(zip(order, cycle(PALETTES[column]), strict=False))
    return {name: by_name[name] for name in shown}


def color(column: str, by_name: dict[str, str]) -> alt.Color:
    """Return a column's colours."""
    scale = alt.Scale(domain=list(by_name), range=list(by_name.values()))
    return alt.Color(f"{column}:N", scale=scale)


def group_colors(groups: Iterable[str]) -> dict[str, str]:
    """Return the colours of groups of labels, in their order, the rare labels' first."""
    names = dict.fromkeys(groups)
    parts = [group_title(name) for name in names if name != ALL]
    by_name = dict(zip(parts, cycle(GROUP_COLORS), strict=False))
    return by_name | ({group_title(ALL): ALL_COLOR} if ALL in names else {})


def in_words(rows: pandas.DataFrame, form: str = "{:.1%}", value: str = "mean") -> pandas.DataFrame:
    """Return the rows with their names for a reader and their estimates in words.

    Args:
        rows: An estimate a row.
        form: How the estimate and its interval are written.
        value: The estimate's column.
    """

    def say(number: float) -> str:
        return form.format(number).replace("-", "−").replace("%", " %").replace("inf", "∞")

    made = rows.assign(**titled(rows, *rows.columns.intersection(list(TITLES))))
    made["said"] = made[value].map(say)
    if "low" in made:
        made["interval"] = [
            "none" if pandas.isna(low) else f"{say(low)} to {say(high)}"
            for low, high in zip(made.low, made.high, strict=True)
        ]
    return made


def with_hover(rows: pandas.DataFrame, said: Mapping[str, str]) -> pandas.DataFrame:
    """Return rows with what is said of each below the pointer, `HOVER`, a line a column.

    Args:
        rows: What is drawn.
        said: The columns that are told, and what each is called.
    """
    columns = [
        [f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in rows[column]]
        for column in said
    ]
    lines = [
        "\n".join(f"{title}: {cell}" for title, cell in zip(said.values(), row, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return rows.assign(hover=pandas.Series(lines, rows.index, dtype=object))


def hovered(rows: pandas.DataFrame, value: str) -> pandas.DataFrame:
    """Return rows with what each is, then its estimate, to be said below the pointer."""
    said = {name: name for name in TOLD if name in rows} | {"said": value}
    return with_hover(rows, said | ({"interval": "95 % interval"} if "interval" in rows else {}))


def panels(
    layers: list[alt.Chart], rows: pandas.DataFrame, by: str, columns: int, width: int, height: int
) -> Figure:
    """Return a picture of some rows for each value of a column, all with the same scales."""
    names = list(dict.fromkeys(rows[by]))
    layered = alt.LayerChart(layer=layers, data=rows, width=width, height=height)
    facet = alt.Facet(f"{by}:N", sort=names)
    faceted = layered.facet(facet, columns=min(columns, max(len(names), 1)))
    figure: Figure = faceted.configure(**STYLE)
    return figure


def curves(
    rows: pandas.DataFrame,
    line: str,
    x: alt.X,
    y: str,
    by_name: dict[str, str],
    *,
    panel: str,
    columns: int = 2,
    size: tuple[int, int] = (370, 250),
    every: int = 1,
) -> Figure:
    """Return lines with bands.

    Args:
        rows: `in_words`.
        line: The column that tells the lines of a panel apart.
        x: What runs to the right.
        y: What is estimated.
        by_name: The lines' colours.
        panel: The column that tells the panels apart.
        columns: How many panels stand beside each other.
        size: Of a panel, in pixels.
        every: One of how many points catches the pointer; all are dots, or none.
    """
    axis = alt.Axis(format="%", tickCount=5, title=y)
    mean = alt.Y("mean:Q", axis=axis, scale=alt.Scale(zero=False))
    base = alt.Chart().encode(x, color(line, by_name))
    band = base.mark_area(opacity=0.18).encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    layers = [band.transform_filter("isValid(datum.low)")] if "low" in rows else []
    layers.append(base.mark_line().encode(mean))
    dots = base.mark_circle(aria=True, opacity=int(every == 1)).encode(mean, HOVER)
    layers.append(dots.transform_filter("datum.caught"))
    rows = hovered(rows, y).assign(
        caught=rows.groupby([panel, line]).cumcount() % every == every // 2
    )
    return panels(layers, rows, panel, columns, *size)


def intervals(
    rows: pandas.DataFrame,
    said: str,
    *,
    axis: alt.Axis,
    y: str,
    dodge: str,
    by_name: dict[str, str],
    panel: str,
    columns: int = 2,
    width: int = 300,
    limits: tuple[float, float] = (-numpy.inf, numpy.inf),
) -> Figure:
    """Return points with intervals, a line for each name.

    Args:
        rows: `in_words`.
        said: What the estimate is called.
        axis: Of the estimates.
        y: The column of the names.
        dodge: The column that tells apart what stands in the same line.
        by_name: Its colours.
        panel: The column that tells the panels apart.
        columns: How many panels stand beside each other.
        width: Of a panel, in pixels.
        limits: What lies beyond is drawn at the edge, with an arrow.
    """
    least, most = limits
    drawn = {at: rows[end].astype(float).clip(*limits) for at, end in ENDS.items()}
    rows = rows.assign(**drawn, left=rows.low < least, right=rows.high > most)
    finite = numpy.isfinite(limits).all()
    scale = alt.Scale(zero=False, domain=limits, nice=False) if finite else alt.Scale(zero=False)
    x = alt.X("at:Q", axis=axis, scale=scale)
    names = alt.Y(
        f"{y}:N",
        sort=list(dict.fromkeys(rows[y])),
        title=None,
        scale=alt.Scale(padding=0),
        axis=alt.Axis(grid=True, tickBand="extent"),
    )
    offset = alt.YOffset(f"{dodge}:N", sort=list(by_name), scale=alt.Scale(padding=1))
    base = alt.Chart().encode(names, offset, color(dodge, by_name))
    line = base.mark_rule(strokeWidth=2, opacity=0.55).encode(alt.X("from:Q"), alt.X2("to:Q"))
    layers = [line.transform_filter("isValid(datum.from)")]
    layers.append(base.mark_circle(aria=True, size=60).encode(x, HOVER))
    for side, edge in (("left", "from:Q"), ("right", "to:Q")):
        arrow = base.mark_point(shape=f"triangle-{side}", filled=True, size=50, opacity=1)
        if rows[side].any():
            layers.append(arrow.encode(alt.X(edge)).transform_filter(alt.datum[side]))
    height = (10 + 9 * len(by_name)) * max(rows[y].nunique(), 1)
    return panels(layers, hovered(rows, said), panel, columns, width, height)


def draw_confusion(gathered: Gathered, optimizer: str, condition: str) -> Figure:
    """Draw the confusion matrices of a condition, % of the true label (AI3607, Figures 1 and 2)."""
    groups = reversed(gathered.groups.items())
    group_of = {label: group_title(group) for group, members in groups for label in members}
    rows = []
    for model in gathered.runs.model.unique():
        counts = tables.confusion(gathered, model, optimizer, condition)
        totals = counts.sum(axis=1)
        rows += [
            {
                **{"model": model, "group": group_of[true], "true": true, "predicted": predicted},
                **{"mean": count / totals[true], "text": f"{100 * count / totals[true]:.0f}"},
                "images": f"{count} of {totals[true]}",
            }
            for (true, predicted), count in numpy.ndenumerate(counts)
            if totals[true]
        ]
    shown = in_words(pandas.DataFrame(rows, columns=CONFUSION))
    said = {"model": "model", "true": "true label", "predicted": "predicted label"}
    shown = with_hover(shown, said | {"said": "fraction", "images": "images"})
    labels = alt.Axis(labelAngle=0, grid=False)
    base = alt.Chart().encode(
        alt.X("predicted:O", title="predicted label", axis=labels),
        alt.Y("true:O", title="true label", axis=labels),
        HOVER,
    )
    cells = base.mark_rect(aria=True).encode(
        color("group", group_colors(gathered.groups)).legend(None),
        alt.Opacity("mean:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 1]), legend=None),
    )
    numbers = base.mark_text(fontSize=11, color="#000").encode(alt.Text("text:N"))
    dark = numbers.transform_filter("datum.mean >= 0.005 && datum.mean <= 0.7")
    white = numbers.encode(color=alt.value("white")).transform_filter("datum.mean > 0.7")
    return panels([cells, dark, white], shown, "model", 2, 350, 350)


def data_url(pixels: numpy.ndarray) -> str:
    """Return an image, (H, W) uint8, as an address that needs no file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def draw_samples(samples: numpy.ndarray, copies: list[str]) -> Figure:
    """Draw an image of each rare label in all its copies (AI3607, Figure 3).

    Args:
        samples: (copies, labels, H, W) uint8, of the first labels.
        copies: What was done to each, as `names.copy_names` says it.
    """
    rows = []
    for name, of_copy in zip(copies, samples, strict=True):
        angle, *noise = name.replace("-", "−").split(", ")
        copy = {"angle": angle, "panel": noise[0] if noise else "without noise"}
        images = enumerate(map(data_url, of_copy))
        rows += [{**copy, "label": label, "image": image} for label, image in images]
    shown = with_hover(pandas.DataFrame(rows), {each: each for each in ("label", "angle", "panel")})
    base = alt.Chart().encode(
        alt.X("label:O", title="label", axis=alt.Axis(labelAngle=0, grid=False)),
        alt.Y("angle:N", sort=None, title=None, axis=alt.Axis(grid=False)),
        HOVER,
    )
    images = base.mark_image(aria=True, width=52, height=52, smooth=False)
    size = 56 * len(samples[0]), 56 * shown.angle.nunique()
    return panels([images.encode(alt.Url("image:N"))], shown, "panel", 2, *size)


def over_weight(sweep: pandas.DataFrame) -> alt.X:
    """Return the axis of the weights of the rare labels."""
    axis = alt.Axis(grid=False, values=sorted({*sweep.weight}), labelSeparation=6)
    title = "weight of the rare labels"
    return alt.X("weight:Q", title=title, axis=axis, scale=alt.Scale(zero=False))


def draw_labels_over_weight(sweep: pandas.DataFrame) -> Figure:
    """Draw every label's accuracy over the weight of the rare ones (AI3607, Figure 4)."""
    rows = in_words(sweep[sweep.label.str.isdigit()])
    x, by_name, size = over_weight(sweep), colors(rows, "model"), (140, 140)
    return curves(rows, "model", x, ACCURACY, by_name, panel="label", columns=5, size=size)


def draw_groups_over_weight(sweep: pandas.DataFrame) -> Figure:
    """Draw the groups' accuracies over the weight with their 95 % intervals (AI3607, Figure 5)."""
    groups = sweep[~sweep.label.str.isdigit()]
    x, by_name = over_weight(sweep), group_colors(groups.label)
    return curves(in_words(groups), "label", x, ACCURACY, by_name, panel="model")


def draw_models(conditions: pandas.DataFrame) -> Figure:
    """Draw the models in every condition, AI3607's LSTM beside (its Figure 6).

    Args:
        conditions: Of one optimizer.
    """
    shown = conditions[conditions.condition.isin(CONDITIONS)]
    published = shown.drop_duplicates(["condition", "label"]).assign(
        model=PUBLISHED, n="unknown", low=numpy.nan, high=numpy.nan
    )
    published["mean"] = [
        published_accuracy(row.condition, row.label) for row in published.itertuples()
    ]
    published = published.dropna(subset="mean")
    by_name = colors(in_words(shown), "model") | {PUBLISHED: "#8c8c8c"}
    return intervals(
        in_words(pandas.concat([shown, published])),
        ACCURACY,
        axis=alt.Axis(format="%", title=ACCURACY, tickCount=3),
        y="condition",
        dodge="model",
        by_name=by_name,
        panel="label",
        columns=3,
        width=225,
    )


def draw_differences(differences: pandas.DataFrame) -> Figure:
    """Draw every condition's paired difference to ``imbalanced`` with its 95 % interval.

    Args:
        differences: Of one optimizer.
    """
    rows = differences.assign(**{e: 100 * differences[e].astype(float) for e in ENDS.values()})
    at_zero = alt.condition(alt.datum.value == 0, alt.value(2), alt.value(0.5))
    return intervals(
        in_words(rows, "{:+.1f}"),
        "points more",
        axis=alt.Axis(title="points more than imbalanced", gridWidth=at_zero, tickCount=5),
        y="condition",
        dodge="label",
        by_name=group_colors(rows.label),
        panel="model",
    )


def with_panel(rows: pandas.DataFrame, *told_apart: str) -> pandas.DataFrame:
    """Return rows with a title for their panel, which names the optimizer if there are several."""
    first, *rest = told_apart
    names = [first, *(["optimizer"] if rows.optimizer.nunique() > 1 else []), *rest]
    return rows.assign(panel=rows[names].agg(", ".join, axis=1))


def draw_curves(by_step: pandas.DataFrame) -> Figure:
    """Draw validation accuracy over optimizer steps with bands over seeds.

    Args:
        by_step: Columns model, optimizer, condition, step, label, n, mean, low, high.
    """
    within = {end: by_step[end].clip(0, 1) for end in ("low", "high")}
    rows = with_panel(in_words(by_step.assign(**within)), "model", "label")
    x = alt.X("step:Q", title="optimizer steps", axis=alt.Axis(grid=False, tickCount=5))
    by_name = colors(rows, "condition")
    return curves(rows, "condition", x, "validation accuracy", by_name, panel="panel", every=5)


def draw_restored(restored: pandas.DataFrame) -> Figure:
    """Draw how much of the imbalance's loss each remedy restores.

    Args:
        restored: Columns model, optimizer, ground, remedy, n, fraction (0 is imbalanced, 1
            original), low, high.
    """
    rows = in_words(restored, "{:.2f}", "fraction").rename(columns={"fraction": "mean"})
    rows["panel"] = rows.optimizer + ", " + rows.ground
    limits = (
        max(-1, min(-0.25, rows["mean"].min() - 0.1)),
        min(2, max(1.25, rows["mean"].max() + 0.1)),
    )
    marks = "{'0': ['0', 'imbalanced'], '0.5': '½', '1': ['1', 'original']}[datum.value]"
    axis = alt.Axis(values=[0, 0.5, 1], labelExpr=marks, gridWidth=1.5)
    axis.title = "fraction restored"
    return intervals(
        rows,
        "restored",
        axis=axis,
        y="remedy",
        dodge="model",
        by_name=colors(rows, "model"),
        panel="panel",
        limits=limits,
    )


def draw_ranked(ranked: pandas.DataFrame, cliques: Mapping[str, list[tuple[str, str]]]) -> Figure:
    """Draw the methods in their order, and join those that are not told apart (Demšar, 2006).

    Args:
        ranked: Columns model, panel, method, setting, mean, low, high and n, the best method first.
        cliques: By panel, the first and the last method of each row of methods to be joined.
    """
    rows = in_words(ranked)
    by_name = colors(rows, "model")
    said = {"panel": "panel", "method": "method", "setting": "setting", "n": "seeds"}
    said |= {"said": ACCURACY, "interval": "95 % interval"}
    joined = [
        {"panel": panel, "method": first, "last": last, "at": WIDTH_OF_RANKED + 10 + 7 * number}
        for panel, of_panel in cliques.items()
        for number, (first, last) in enumerate(of_panel)
    ]
    shown = pandas.concat([with_hover(rows, said), pandas.DataFrame(joined)])
    y = alt.Y("method:N", sort=None, title=None, axis=alt.Axis(grid=True, tickBand="extent"))
    axis = alt.Axis(format="%", title="balanced test accuracy", tickCount=5)
    base = alt.Chart().encode(y)
    points = base.encode(color("model", by_name)).transform_filter("isValid(datum.mean)")
    line = points.mark_rule(strokeWidth=2, opacity=0.55).encode(alt.X("low:Q"), alt.X2("high:Q"))
    x = alt.X("mean:Q", axis=axis, scale=alt.Scale(zero=False, padding=8))
    layers = [
        points.mark_circle(aria=True, size=60).encode(x, HOVER),
        line.transform_filter("isValid(datum.low)"),
    ]
    if joined:
        bars = base.mark_rule(strokeWidth=3, color=ALL_COLOR, clip=False)
        bars = bars.encode(alt.X("at:Q", scale=None), alt.Y2("last:N"))
        layers.append(bars.transform_filter("isValid(datum.last)"))
    height = 16 * max(ranked.groupby("panel").size())
    drawn = panels(layers, shown, "panel", 2, WIDTH_OF_RANKED, height)
    ranking: Figure = drawn.resolve_scale(x="independent", y="independent")
    return ranking


def draw_components(components: pandas.DataFrame) -> Figure:
    """Draw where the variance over runs comes from, as stacked bars.

    Args:
        components: Columns model, optimizer, condition, component, share, sd (in points).
    """
    rows = with_panel(in_words(components, value="share"), "model")
    rows["to"] = rows.groupby(["panel", "condition"], sort=False).share.cumsum()
    rows["from"] = rows.to - rows.share
    rows["middle"] = rows.to - rows.share / 2
    rows["sd"] = rows.sd.map("{:.1f}".format)
    said = ["model", "optimizer", "condition", "component", "sd", "said"]
    titles = [*said[:4], "standard deviation in points", "fraction of the variance"]
    rows = with_hover(rows, dict(zip(said, titles, strict=True)))
    title = ["fraction of the variance;", "numbers: standard deviation in points"]
    share = alt.X("from:Q", axis=alt.Axis(format="%", tickCount=2, title=title))
    by_name = colors(rows, "component")
    names = alt.Y("condition:N", sort=None, title=None, axis=alt.Axis(grid=False))
    base = alt.Chart().encode(names, HOVER)
    bars = base.mark_bar(aria=True).encode(share, alt.X2("to:Q"), color("component", by_name))
    numbers = base.mark_text(color="black", fontSize=12).encode(alt.X("middle:Q"), alt.Text("sd:N"))
    numbers = numbers.transform_filter("datum.share > 0.08")
    height = 30 * rows.condition.nunique()
    return panels([bars, numbers], rows, "panel", 2, 300, height)


def narrow(figure: Described, drawn: str) -> Described:
    """Return a figure whose panels stand below each other on a phone, as wide as it.

    Args:
        figure: Panels beside each other.
        drawn: Its SVG, which tells how wide the labels beside the panels are.
    """
    gap, panel, beside = STYLE["facet"]["spacing"], figure["spec"], figure["columns"]
    columns = 2 if beside > 3 else 1
    [full] = re.findall(r'^<svg [^>]*? width="(\d+)', drawn)
    labels = int(full) - beside * (panel["width"] + gap) + gap
    if "resolve" in figure:  # every panel has labels of its own
        labels //= beside
    width = min(panel["width"], (PHONE - SPARE - labels - (columns - 1) * gap) // columns)
    height = width if panel["height"] == panel["width"] else panel["height"]
    legend = {**STYLE["legend"], "columns": 2}
    return {
        **figure,
        "columns": columns,
        "spec": {**panel, "width": width, "height": height},
        "config": {**figure["config"], "legend": legend},
        "padding": {"left": 5 + SPARE, "top": 5, "right": 5, "bottom": 5},
    }


def svg(figure: Described) -> str:
    """Return a figure as the content of an SVG file, alike at every call."""
    drawn = vl_convert.vegalite_to_svg(figure)
    drawn = re.sub(SUPERFLUOUS, "", drawn)
    return re.sub(PLACES, lambda at: re.sub(r"(?<=\.\d\d)\d+", "", at[0]), drawn)
