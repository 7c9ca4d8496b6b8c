"""The tables in words and the finding in sentences, for pages."""

import math
from dataclasses import dataclass
from typing import Any

import pandas

from mnist_imbalance.published import published_accuracy
from mnist_imbalance.report.claims import NOT_JUDGED
from mnist_imbalance.report.gather import ALL
from mnist_imbalance.report.names import (
    CONDITIONS,
    condition_title,
    group_title,
    in_line,
    model_title,
    optimizer_title,
)


@dataclass(frozen=True)
class Table:
    """A table of words; a line break in a cell stays one."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


def percent(row: Any, signed: bool = False) -> str:
    """Say a mean in % and half the width of its interval: "55.1 ± 3.6"."""
    mean = f"{100 * row.mean:+.1f}" if signed else f"{100 * row.mean:.1f}"
    if not row.n:
        return "missing"
    return mean if row.n < 2 else f"{mean} ± {50 * (row.high - row.low):.1f}"


def points(value: float) -> str:
    """Say a difference of accuracies in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def short_title(group: str) -> str:
    """Name a group of labels above a column."""
    return group if group == ALL else group_title(group)


def summary(conditions: pandas.DataFrame) -> Table:
    """The models in the conditions of Table 1, by group, with one optimizer."""
    shown = conditions[conditions.condition.isin(CONDITIONS)]
    named = list(dict.fromkeys(shown.label))
    optimizers = ", ".join(map(optimizer_title, dict.fromkeys(shown.optimizer)))
    rows = []
    for (model, condition), of_condition in shown.groupby(["model", "condition"], sort=False):
        groups = {row.label: row for row in of_condition.itertuples()}
        published = published_accuracy(condition, named[0]) if model == "lstm" else math.nan
        rows.append(
            [
                model_title(model),
                condition_title(condition),
                *(percent(groups[group]) if group in groups else "" for group in named),
                "" if math.isnan(published) else f"{100 * published:.1f}",
                str(groups[named[-1]].n),
            ]
        )
    return Table(
        f"Test accuracy %, mean ± half of the 95 % interval over n seeds ({optimizers}).",
        [
            *("model", "condition", *map(short_title, named)),
            *(f"{in_line(named[0])}, published", "n"),
        ],
        rows,
    )


def claims_table(claims: pandas.DataFrame, optimizer: str) -> Table:
    """The verdicts over the claims with one optimizer."""
    rows = []
    for row in claims[claims.optimizer == optimizer].itertuples():
        say = (lambda value: f"{value:+.1f}") if row.unit == "labels" else points
        effect = "" if row.n == 0 else say(row.effect)
        if row.n > 1:
            effect += f" [{say(row.low)}, {say(row.high)}]"
        rows.append(
            [
                row.sentence,
                model_title(row.model),
                row.verdict,
                row.corrected,
                f"{effect} {row.unit}" if effect else "none",
                str(row.n),
                "" if math.isnan(row.p) else f"{row.p:.2g}",
                "" if math.isnan(row.p_corrected) else f"{row.p_corrected:.2g}",
                f"{row.comparisons}: {row.deciding}" if row.deciding else "1",
                "" if math.isnan(row.seeds_to_decide) else f"{row.seeds_to_decide:.0f}",
                row.statistic,
                row.section,
            ]
        )
    return Table(
        f"AI3607's claims with {optimizer_title(optimizer)}, at equal epochs, given this test set: "
        "an effect above zero speaks for the claim; 95 % interval over n seeds, of the comparison "
        "that decides where there are several (how many, and which); two-sided p, raw and after "
        "Holm's correction within the model; seeds that would decide what is undecided, roughly.",
        [
            *("claim", "model", "verdict", "corrected", "effect", "n", "p", "p corrected"),
            *("comparisons", "seeds needed", "what the effect is", "section"),
        ],
        rows,
    )


def not_judged_table() -> Table:
    """The sentences that no run can judge, and why."""
    rows = [[sentence, section, why] for sentence, (section, why) in NOT_JUDGED.items()]
    return Table(
        "What AI3607 says and no run here can judge.", ["sentence", "section", "why"], rows
    )


def table_1(tidy: pandas.DataFrame, model: str) -> Table:
    """Table 1 side by side: ours, the report's and the difference."""
    of_model = tidy[tidy.model == model]
    names = list(dict.fromkeys(of_model.condition))
    cells = {(row.condition, row.label): row for row in of_model.itertuples()}

    def cell(condition: str, label: str) -> str:
        row = cells.get((condition, label))
        if row is None:
            return ""
        lines = [percent(row)]
        if not math.isnan(row.published):
            lines.append(f"AI3607 {100 * row.published:.1f}")
            if not math.isnan(row.published_in_text):
                lines[-1] += f" (text {100 * row.published_in_text:.1f})"
            if row.n > 1:
                inside = row.low_one <= row.published <= row.high_one
                where = "inside" if inside else "outside"
                lines.append(f"{where} {100 * row.low_one:.1f} to {100 * row.high_one:.1f}")
        return "\n".join(lines)

    return Table(
        f"{model_title(model)}: test accuracy % by label, mean ± half of the 95 % interval over "
        "seeds; AI3607's one run, and between which accuracies one run of ours lies in 95 % of "
        "cases (prediction interval).",
        ["label", *map(condition_title, names)],
        [
            [label, *(cell(name, label) for name in names)]
            for label in dict.fromkeys(of_model.label)
        ],
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
        shown = [optimizer_title(model_title(condition_title(key))) for key in shown]
        rows.append(
            [*shown, *(percent(cells[name], signed) if name in cells else "" for name in names)]
        )
        counts = [row.n for row in cells.values()]
        rows[-1].append(" to ".join(map(str, sorted({min(counts), max(counts)}))))
    return Table(caption, [*by, *names, "n"], rows)


def components_table(tidy: pandas.DataFrame) -> Table:
    """Where the spread of equal runs comes from."""
    rows = [
        [
            model_title(row.model),
            optimizer_title(row.optimizer),
            condition_title(row.condition),
            row.component,
            f"{100 * row.sd:.2f}",
            f"{100 * row.share:.0f} %",
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Standard deviation, in points, of the rare labels' test accuracy over n runs with crossed "
        "seeds, by a mixed model (REML).",
        ["model", "optimizer", "condition", "from", "standard deviation", "of the variance", "n"],
        rows,
    )


def selection_table(tidy: pandas.DataFrame) -> Table:
    """What choosing on the test set adds."""
    rows = [
        [
            model_title(row.model),
            optimizer_title(row.optimizer),
            row.choice,
            f"{100 * row.on_validation:.2f}",
            f"{100 * row.on_test:.2f}",
            percent(row, signed=True),
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Test accuracy % of the rare labels at the weight that is best on validation or test data; "
        "for a weight a label, the mean of each label's accuracy at its own best weight.",
        ["model", "optimizer", "chosen", "on validation", "on test", "difference", "n"],
        rows,
    )


def optimum_table(tidy: pandas.DataFrame) -> Table:
    """Where the best weight lies."""
    rows = [
        [
            model_title(row.model),
            optimizer_title(row.optimizer),
            {"weight_sum": "its weights", "count": "its images"}.get(row.normalize, row.normalize),
            row.by_seed.replace(" ", ", "),
            f"{row.largest:g}",
            f"{row.at_largest} of {row.n}",
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "The weight of the rare labels with the best balanced accuracy on validation data, seed by "
        "seed; where it is the largest tried, the sweep does not tell where the best weight lies.",
        [
            *("model", "optimizer", "a batch is divided by", "best weight", "largest tried"),
            "best at the largest",
        ],
        rows,
    )


def dead_labels_table(tidy: pandas.DataFrame) -> Table:
    """How many labels the output ReLU kills."""
    rows = [
        [
            model_title(row.model),
            optimizer_title(row.optimizer),
            "yes" if row.output_relu else "no",
            "PyTorch's" if pandas.isna(row.output_bias) else f"{row.output_bias:g}",
            row.by_seed or "no seed has all",
            f"{row.mean:.1f}",
            f"{100 * row.accuracy:.1f}",
            str(row.n),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Imbalanced, plain loss: labels of whose own training images under 1 % get a "
        "positive output in the last epoch, or with test accuracy 0. Records of schema 1 do not "
        "tell the own images apart; there, images of all labels are counted against that 1 %.",
        [
            *("model", "optimizer", "ReLU on the outputs", "output bias", "seed: dead labels"),
            *("mean", "accuracy %", "n"),
        ],
        rows,
    )


def left_out_table(tidy: pandas.DataFrame) -> Table:
    """The runs that stand in no comparison."""
    rows = [
        [
            row.why,
            model_title(row.model),
            optimizer_title(row.optimizer),
            condition_title(row.condition),
            *(str(row.epochs), str(row.steps), row.seeds),
        ]
        for row in tidy.itertuples()
    ]
    return Table(
        "Runs of another length, and others that are in no comparison.",
        ["why", "model", "optimizer", "condition", "epochs", "steps", "seeds"],
        rows,
    )


def copy_names(copies: list[dict[str, float]]) -> list[str]:
    """Say what was done to each copy."""
    return [f"{copy['angle']:+g}°" + (", noise" if copy["noise"] else "") for copy in copies]
