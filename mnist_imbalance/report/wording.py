"""The tables in words and the finding in sentences, for pages."""

import math
from dataclasses import dataclass
from typing import Any

import pandas

from mnist_imbalance.labels import GROUPS
from mnist_imbalance.published import published_accuracy
from mnist_imbalance.report.claims import TABLE_1
from mnist_imbalance.report.gather import LABELS, Gathered
from mnist_imbalance.report.names import (
    CONDITIONS,
    MODELS,
    condition_title,
    model_title,
    optimizer_title,
)


@dataclass(frozen=True)
class Table:
    """A table of words; a line break in a cell stays one."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


def or_missing(row: Any, text: str) -> str:
    """Give the text, unless it is an estimate of no run."""
    return text if row.n else "missing"


def percent(row: Any, signed: bool = False) -> str:
    """Say a mean in % and half the width of its interval: "55.1 ± 3.6"."""
    mean = f"{100 * row.mean:+.1f}" if signed else f"{100 * row.mean:.1f}"
    return or_missing(row, mean if row.n < 2 else f"{mean} ± {50 * (row.high - row.low):.1f}")


def summary(conditions: pandas.DataFrame) -> Table:
    """Both models in the conditions of Table 1, by group."""
    shown = conditions[(conditions.optimizer == "sgd") & conditions.condition.isin(CONDITIONS)]
    rows = []
    for (model, condition), of_condition in shown.groupby(["model", "condition"], sort=False):
        groups = {row.label: row for row in of_condition.itertuples()}
        published = published_accuracy(condition, "0-4") if model == "lstm" else math.nan
        rows.append(
            [
                model_title(model),
                condition_title(condition),
                *(percent(groups[group]) for group in GROUPS),
                "" if math.isnan(published) else f"{100 * published:.1f}",
                str(groups["all"].n),
            ]
        )
    return Table(
        "Test accuracy %, mean ± half of the 95 % interval over n seeds (SGD).",
        ["model", "condition", "labels 0–4", "labels 5–9", "all", "0–4, published", "n"],
        rows,
    )


def finding(gathered: Gathered, claims: pandas.DataFrame) -> str:
    """Say in two sentences what came out, over the seeds that have all that it compares."""
    scores = gathered.conditions
    shown = scores[
        (scores.optimizer == "sgd")
        & (scores.label == "0-4")
        & (scores.scored == "test")
        & scores.condition.isin(TABLE_1)
    ]
    by_seed = shown.pivot(index="seed", columns=["model", "condition"], values="accuracy")
    needed = pandas.MultiIndex.from_product([list(MODELS), TABLE_1])
    by_seed = by_seed.reindex(columns=needed).dropna()
    if by_seed.empty:
        return "Runs of the report's own conditions are missing, so there is no finding yet."
    mean = by_seed.mean()
    lost = mean["lstm", "original"] - mean["lstm", "imbalanced"]
    runs = gathered.runs
    imbalanced = runs[(runs.condition == "imbalanced") & runs.finished].config_hash
    keep = gathered.results[imbalanced.iloc[0]].config["data.keep"]

    def change(model: str) -> str:
        before, after = (100 * mean[model, name] for name in ("original", "imbalanced"))
        return f"from {before:.1f} to {after:.1f} % with the {model_title(model)}"

    def regained(condition: str) -> str:
        return f"{100 * (mean['lstm', condition] - mean['lstm', 'imbalanced']) / lost:.0f} %"

    first = (
        f"Without {100 * (1 - keep):.0f} % of the training images of labels 0–4, test accuracy on "
        f"them goes {change('lstm')} and {change('cnn')} (n = {len(by_seed)}). "
    )
    [augmentation] = claims[
        (claims.claim == "augmented_100_does_not_restore")
        & (claims.model == "lstm")
        & (claims.optimizer == "sgd")
    ].itertuples()
    if lost <= 0 or augmentation.n == 0:
        return f"{first}It is not certain that the LSTM lost anything to be restored."
    done = {
        name: sum(gathered.results[key].train_counts)
        for name in ("imbalanced", "augmented_100")
        for key in runs[(runs.condition == name) & runs.finished].config_hash
    }
    return (
        f"{first}Of what the LSTM lost, the report's loss weights bring back "
        f"{regained('weighted')} and augmentation to 100 % brings back "
        f"{regained('augmented_100')}, by {done['augmented_100'] / done['imbalanced']:.2f} times "
        "the optimizer steps. These runs have no control for more steps or for showing the same "
        "images more often, so they do not tell what the augmentation itself brings back."
    )


def claims_table(claims: pandas.DataFrame, optimizer: str) -> Table:
    """The verdicts over the claims with one optimizer."""
    rows = []
    for row in claims[claims.optimizer == optimizer].itertuples():
        effect = "" if row.n == 0 else f"{100 * row.effect:+.2f}"
        if row.n > 1:
            effect += f" [{100 * row.low:+.2f}, {100 * row.high:+.2f}]"
        rows.append(
            [
                row.sentence,
                model_title(row.model),
                row.verdict,
                f"{effect} {row.unit}" if effect else "none",
                str(row.n),
                row.statistic,
                row.section,
            ]
        )
    return Table(
        f"The report's claims with {optimizer_title(optimizer)}: an effect above zero speaks for "
        "the claim; 95 % interval over n seeds.",
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
        f"{model_title(model)}: test accuracy % by label, mean ± half of the 95 % interval over "
        "seeds.",
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
        shown = [model_title(condition_title(key)) for key in shown]
        rows.append([*shown, *(percent(cells[name], signed) for name in names)])
        rows[-1].append(" to ".join(map(str, sorted({row.n for row in cells.values()}))))
    return Table(caption, [*by, *names, "n"], rows)


def selection_table(tidy: pandas.DataFrame) -> Table:
    """What choosing on the test set adds."""
    rows = [
        [
            model_title(row.model),
            row.choice,
            or_missing(row, f"{100 * row.on_validation:.2f}"),
            or_missing(row, f"{100 * row.on_test:.2f}"),
            percent(row, signed=True),
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Test accuracy % of labels 0–4 at the weight that is best on validation or on test data; "
        "for a weight a label, the mean of each label's accuracy at its own best weight.",
        ["model", "chosen", "on validation", "on test", "difference", "n"],
        rows,
    )


def dead_labels_table(tidy: pandas.DataFrame) -> Table:
    """How many labels the output ReLU kills."""
    rows = [
        [
            "yes" if row.output_relu else "no",
            "PyTorch's" if pandas.isna(row.output_bias) else f"{row.output_bias:g}",
            row.by_seed.replace(" ", ", ") or "missing",
            or_missing(row, f"{row.mean:.1f}"),
            or_missing(row, f"{100 * row.accuracy:.1f}"),
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
