"""The report as a page to open and a page to read: what stands where, and in which words."""

import base64
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_imbalance.report import figures, interactive, tables
from mnist_imbalance.report.claims import TABLE_1
from mnist_imbalance.report.gather import LABELS, Gathered
from mnist_imbalance.report.names import CONDITIONS, MODELS, OPTIMIZERS, condition_title

MISSING = "Missing runs"
VERDICTS = ["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Table:
    """A table of words; a line break in a cell stays one."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A figure, still and to hover over."""

    name: str
    caption: str
    still: Figure
    interactive: list[go.Figure] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: paragraphs, then tables, then pictures."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def percent(row: Any, signed: bool = False) -> str:
    """Say a mean in % and half the width of its interval: "55.1 ± 3.6"."""
    if row.n == 0:
        return "missing"
    mean = f"{100 * row.mean:+.1f}" if signed else f"{100 * row.mean:.1f}"
    return mean if row.n == 1 else f"{mean} ± {50 * (row.high - row.low):.1f}"


def summary(conditions: pandas.DataFrame) -> Table:
    """Both models in the conditions of Table 1, by group."""
    shown = conditions[(conditions.optimizer == "sgd") & conditions.condition.isin(CONDITIONS)]
    rows = []
    for (model, condition), of_condition in shown.groupby(["model", "condition"], sort=False):
        groups = {row.label: row for row in of_condition.itertuples()}
        published = tables.published_accuracy(condition, "0-4") if model == "lstm" else math.nan
        rows.append(
            [
                MODELS[model],
                condition_title(condition),
                *(percent(groups[group]) for group in tables.GROUPS),
                "" if math.isnan(published) else f"{100 * published:.1f}",
                str(groups["all"].n),
            ]
        )
    return Table(
        "Test accuracy %, mean ± half of the 95 % interval over n seeds (SGD).",
        ["model", "condition", "labels 0–4", "labels 5–9", "all", "0–4, published", "n"],
        rows,
    )


def finding(conditions: pandas.DataFrame, claims: pandas.DataFrame) -> str:
    """Say in two sentences what came out."""
    shown = conditions[
        (conditions.optimizer == "sgd")
        & (conditions.label == "0-4")
        & conditions.condition.isin(TABLE_1)
    ]
    mean = shown.set_index(["model", "condition"])["mean"]
    if mean.isna().any():
        return "Runs of the report's own conditions are missing, so there is no finding yet."
    lost = mean["lstm", "original"] - mean["lstm", "imbalanced"]
    seeds = " to ".join(map(str, sorted({shown.n.min(), shown.n.max()})))

    def fall(model: str) -> str:
        before, after = (100 * mean[model, name] for name in ("original", "imbalanced"))
        return f"{MODELS[model]}'s from {before:.1f} to {after:.1f} %"

    def regained(condition: str) -> str:
        share = (mean["lstm", condition] - mean["lstm", "imbalanced"]) / lost
        return f"{100 * share:.0f} %" if lost > 0 else "nothing"

    augmentation = claims[
        (claims.claim == "augmented_100_does_not_restore")
        & (claims.model == "lstm")
        & (claims.optimizer == "sgd")
    ].verdict.item()
    judged = {
        "holds": "holds here, too",
        "does not hold": "does not hold here",
        "undecided": "is undecided at this number of seeds",
    }[augmentation]
    return (
        f"Without 90 % of the training images of labels 0–4, accuracy on them falls, the "
        f"{fall('lstm')} and the {fall('cnn')} (test set, n = {seeds} seeds). Of what the LSTM "
        f"lost, the report's loss weights bring back {regained('weighted')} and augmentation to "
        f"100 % brings back {regained('augmented_100')}: the report's conclusion that augmentation "
        f"cannot restore these labels {judged}."
    )


def claims_table(claims: pandas.DataFrame, optimizer: str) -> Table:
    """The verdicts over the claims with one optimizer."""
    rows = []
    for row in claims[claims.optimizer == optimizer].itertuples():
        scale = 1 if row.unit == "steps" else 100
        effect = "" if row.n == 0 else f"{scale * row.effect:+.2f}"
        if row.n > 1:
            effect += f" [{scale * row.low:+.2f}, {scale * row.high:+.2f}]"
        rows.append(
            [
                row.sentence,
                MODELS[row.model],
                row.verdict,
                f"{effect} {row.unit}" if effect else "missing",
                str(row.n),
                row.statistic,
                row.section,
            ]
        )
    return Table(
        f"The report's claims with {OPTIMIZERS[optimizer]}: an effect above zero speaks for the "
        "claim; 95 % interval over n seeds.",
        ["claim", "model", "verdict", "effect", "n", "what the effect is", "section"],
        rows,
    )


def table_1(tidy: pandas.DataFrame, model: str) -> Table:
    """Table 1 side by side: ours, the report's and the difference."""
    of_model = tidy[tidy.model == model]
    names = list(dict.fromkeys(of_model.condition))
    cells = {(row.condition, row.label): row for row in of_model.itertuples()}

    def cell(condition: str, label: str) -> str:
        row = cells[condition, label]
        lines = [percent(row)]
        if not math.isnan(row.published):
            lines.append(f"report {100 * row.published:.1f}")
            if not math.isnan(row.published_in_text):
                lines[-1] += f" (text {100 * row.published_in_text:.1f})"
            if row.n:
                lines.append(f"difference {100 * row.difference:+.1f}")
        return "\n".join(lines)

    return Table(
        f"{MODELS[model]}: test accuracy % by label, mean ± half of the 95 % interval over seeds.",
        ["label", *map(condition_title, names)],
        [[label, *(cell(name, label) for name in names)] for label in LABELS],
    )


def estimates_table(
    tidy: pandas.DataFrame, caption: str, by: list[str], columns: str, signed: bool = False
) -> Table:
    """Lay estimates out with a column a value of one key.

    Args:
        tidy: A row an estimate.
        caption: Of the table.
        by: Keys that tell the rows apart.
        columns: Key that tells the columns apart.
        signed: Show the sign of positive values, too.
    """
    names = list(dict.fromkeys(tidy[columns]))
    rows = []
    for keys, group in tidy.groupby(by, sort=False):
        cells = {getattr(row, columns): row for row in group.itertuples()}
        shown = [f"{key:g}" if isinstance(key, float) else str(key) for key in keys]
        shown = [MODELS.get(key, condition_title(key)) for key in shown]
        rows.append([*shown, *(percent(cells[name], signed) for name in names)])
        rows[-1].append(str(max(row.n for row in cells.values())))
    return Table(caption, [*by, *names, "n"], rows)


def selection_table(tidy: pandas.DataFrame) -> Table:
    """What choosing on the test set adds."""
    rows = [
        [
            MODELS[row.model],
            row.choice,
            "missing" if row.n == 0 else f"{100 * row.on_validation:.2f}",
            "missing" if row.n == 0 else f"{100 * row.on_test:.2f}",
            percent(row, signed=True),
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Test accuracy % of labels 0–4 at the weights that are best on validation or on test data.",
        ["model", "chosen", "on validation", "on test", "difference", "n"],
        rows,
    )


def dead_labels_table(tidy: pandas.DataFrame) -> Table:
    """How many labels the output ReLU kills."""
    rows = [
        [
            "yes" if row.output_relu else "no",
            "PyTorch's" if math.isnan(row.output_bias) else f"{row.output_bias:g}",
            row.by_seed.replace(" ", ", ") or "missing",
            "missing" if row.n == 0 else f"{row.mean:.1f}",
            "missing" if row.n == 0 else f"{100 * row.accuracy:.1f}",
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "LSTM, imbalanced, plain loss: labels without a positive output on any training image of "
        "the last epoch and with test accuracy 0.",
        ["ReLU on the outputs", "output bias", "dead labels by seed", "mean", "accuracy %", "n"],
        rows,
    )


def copy_names(copies: list[dict[str, float]]) -> list[str]:
    """Say what was done to each copy."""
    return [f"{copy['angle']:+g}°" + (", noise" if copy["noise"] else "") for copy in copies]


def missing_section(gathered: Gathered) -> Section:
    """Which runs are missing, and which records are damaged."""
    groups = gathered.missing.groupby(["model", "optimizer", "experiment", "condition"], sort=False)
    rows = [
        [
            MODELS[model],
            OPTIMIZERS[optimizer],
            experiment,
            condition_title(condition),
            ", ".join(map(str, sorted(set(group.seed)))),
        ]
        for (model, optimizer, experiment, condition), group in groups
    ]
    columns = ["model", "optimizer", "overlay", "condition", "seeds"]
    return Section(
        MISSING,
        [f"Damaged record: {line}" for line in gathered.damaged],
        [
            Table(
                "Runs without a result; `python -m mnist_imbalance.study` trains them.",
                columns,
                rows,
            )
        ],
    )


def method_section(gathered: Gathered) -> Section:
    """How the numbers came about."""
    results = list(gathered.results.values())

    def counted(values: list[str]) -> str:
        return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common())

    made = Section(
        "Method",
        [
            "A run trains on MNIST less 500 held-out images a label, which are the validation set; "
            "the test set is scored once, after the last epoch. A seed changes the initial "
            "weights, the order of the images and the choice of the images that are held out and "
            "kept; all conditions of a seed share them, and differences are paired by seed.",
            "An interval is Student's t-interval of the mean over seeds, 95 % each, not corrected "
            "for their number. One seed gives no interval and no verdict. A claim holds if the "
            "interval of its effect lies above zero, does not hold if it reaches nowhere above "
            "zero, and is undecided otherwise.",
            "Every run has the same number of epochs, as in the report. The augmented sets hold "
            "more images than the imbalanced one, so that their runs take more steps.",
        ],
    )
    if results:
        machines = [f"{result.device}, torch {result.versions['torch']}" for result in results]
        epochs = [f"{result.epochs} epochs" for result in results]
        hours = sum(result.seconds.fit for result in results) / 3600
        made.paragraphs.append(
            f"{len(results)} runs: {counted(epochs)}; {counted(machines)}; "
            f"{hours:.1f} hours of training in all, one thread a run."
        )
    return made


def sections(
    gathered: Gathered, claims: pandas.DataFrame, tidy: dict[str, pandas.DataFrame], samples: Any
) -> list[Section]:
    """Put everything in order.

    Args:
        gathered: The study's runs.
        claims: From `claims.judge_claims`.
        tidy: The tables of `tables`, by name.
        samples: The picture of Figure 3, or the reason why there is none.
    """
    models = list(dict.fromkeys(gathered.runs.model))

    sweep, paired, curves = tidy["weight_sweep"], tidy["differences"], tidy["learning_curves"]
    conditions = tidy["all_conditions"]
    confusions = [
        Picture(
            name,
            f"{title}: confusion matrices of the test set, % of the true label, all seeds together "
            f"(report, {name.replace('figure_', 'Figure ')}).",
            figures.draw_confusion(gathered, condition),
            [interactive.confusion(gathered, model, condition) for model in figures.SHOWN],
        )
        for name, condition, title in (
            ("figure_1", "original", "Trained on all images"),
            ("figure_2", "imbalanced", "Trained on imbalanced images"),
        )
    ]
    figure_6 = Picture(
        "figure_6",
        "CNN and LSTM in every condition, with 95 % intervals over seeds, and the report's LSTM "
        "(report, Figure 6).",
        figures.draw_models(conditions),
        [interactive.models(conditions, group) for group in tables.GROUPS],
    )
    over_weight = [
        Picture(
            "figure_4",
            "Test accuracy of every label over the weight of labels 0–4; weight 1 is the plain "
            "loss (report, Figure 4).",
            figures.draw_labels_over_weight(sweep),
            [interactive.labels_over_weight(sweep, model) for model in figures.SHOWN],
        ),
        Picture(
            "figure_5",
            "Mean test accuracy of labels 0–4 and 5–9 over the weight of labels 0–4, with 95 % "
            "intervals over seeds (report, Figure 5).",
            figures.draw_groups_over_weight(sweep),
            [interactive.groups_over_weight(sweep, model) for model in figures.SHOWN],
        ),
    ]
    verdicts = Counter(claims.verdict)
    counted = ", ".join(f"{verdicts[verdict]} × {verdict}" for verdict in VERDICTS)
    made = [
        Section("Finding", [finding(conditions, claims)], [summary(conditions)], [figure_6]),
        Section(
            "Claims",
            [
                "Every claim of the report, judged for each model by an effect paired over seeds: "
                f"{counted}. To restore labels 0–4 means to regain at least half of what the "
                "imbalance took."
            ],
            [claims_table(claims, name) for name in dict.fromkeys(claims.optimizer)],
        ),
        Section(
            "Table 1",
            [
                "The report contradicts itself: its sections give other accuracies than its Table "
                "1 averages to. Differences are to the table; the text's numbers stand beside it."
            ],
            [table_1(tidy["table_1"], model) for model in models],
        ),
        Section(
            "Differences to the imbalanced set",
            pictures=[
                Picture(
                    "differences",
                    "Test accuracy of every condition less that of imbalanced, paired over seeds, "
                    "with 95 % intervals.",
                    figures.draw_differences(paired),
                    [interactive.differences(paired, model) for model in figures.SHOWN],
                )
            ],
            tables=[
                estimates_table(
                    paired[paired.optimizer == name],
                    f"{OPTIMIZERS[name]}: points more than imbalanced, paired over n seeds.",
                    ["model", "condition"],
                    "label",
                    signed=True,
                )
                for name in dict.fromkeys(paired.optimizer)
            ],
        ),
        Section("Confusion", pictures=confusions),
        Section("Weights", pictures=over_weight),
        Section(
            "Choosing on the test set",
            [
                "The report picks the weights that are best on the test set. Chosen on validation "
                "data instead, the same weights must prove themselves on images that did not "
                "choose them; the difference is what choosing on the test set adds."
            ],
            [selection_table(tidy["selection"])],
        ),
        Section(
            "Learning",
            pictures=[
                Picture(
                    "learning_curves",
                    "Validation accuracy of labels 0–4 by epoch, SGD, mean over seeds.",
                    figures.draw_learning_curves(curves),
                    [interactive.learning_curves(curves, model) for model in figures.SHOWN],
                )
            ],
        ),
        Section(
            "The ReLU on the outputs",
            [
                "The report puts a ReLU after its last layer; where that layer's bias starts "
                "decides which labels live."
            ],
            [dead_labels_table(tidy["dead_labels"])],
        ),
        Section(
            "Weights or step size",
            [
                "PyTorch divides a weighted batch by the sum of its weights; divided by its images "
                "(count), larger weights also mean larger steps."
            ],
            [
                estimates_table(
                    tidy["normalization"],
                    "LSTM, test accuracy % by the divisor of the weighted loss, and the "
                    "difference paired over n seeds.",
                    ["weight", "label"],
                    "normalize",
                )
            ],
        ),
        Section(
            "Augmentation",
            pictures=[samples] if isinstance(samples, Picture) else [],
            paragraphs=[] if isinstance(samples, Picture) else [f"Figure 3 is missing: {samples}"],
        ),
        method_section(gathered),
    ]
    if len(gathered.missing) or gathered.damaged:
        made.append(missing_section(gathered))
        made[0].paragraphs.append(f"{gathered.how_complete()}: see {MISSING}.")
    return made


def anchor(text: str) -> str:
    """Give a heading's address within the page."""
    return text.lower().replace(" ", "-")


def lines(text: str) -> Markup:
    """Keep line breaks and `code` in HTML."""
    escaped = Markup("<br>").join(escape(line) for line in text.split("\n"))
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", escaped))


def data_url(figure: Figure) -> str:
    """Give a figure as the address of an image that needs no file."""
    return "data:image/png;base64," + base64.b64encode(figures.render(figure, "png")).decode()


def plot_json(plot: go.Figure) -> Markup:
    """Give a plot as JSON that may stand in a script element."""
    return Markup(plot.to_json().replace("</", "<\\/"))


def markdown(table: Table) -> str:
    """Write a table for a repository's page."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    laid_out = [
        "| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in rows
    ]
    return "\n".join([f"{table.caption}\n", *laid_out])


def render(name: str, made: list[Section]) -> str:
    """Fill a template of this folder."""
    environment = Environment(
        loader=PackageLoader("mnist_imbalance.report", "."),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    filters = (anchor, lines, data_url, plot_json, markdown)
    environment.filters.update({each.__name__: each for each in filters})
    return environment.get_template(name).render(
        sections=made, verdicts=VERDICTS, plotly_js=Markup(get_plotlyjs())
    )
