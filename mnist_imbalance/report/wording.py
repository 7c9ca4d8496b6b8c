"""Tables of words, for pages, from tidy ones."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pandas

from mnist_imbalance.published import published_accuracy
from mnist_imbalance.report.gather import STEPS
from mnist_imbalance.report.names import (
    CONDITIONS,
    TITLES,
    condition_title,
    group_title,
    in_line,
    model_title,
    optimizer_title,
    titled,
)
from mnist_imbalance.report.remedies import BY_COUNT, REFERENCES, REMEDIES
from mnist_imbalance.report.statistics import Estimate
from mnist_imbalance.report.verdicts import CONTRADICTED, HOLDS, NO_DIFFERENCE, UNDECIDED
from mnist_imbalance.scores import ALL

BETTER = {
    HOLDS: "better",
    CONTRADICTED: "worse",
    NO_DIFFERENCE: "no difference",
    UNDECIDED: "undecided",
}
BOTH = "both models"
DIVISORS = {
    "weight_sum": "by weights",
    "count": "by images",
    "count - weight_sum": "by images − by weights",
}
HEADLINE = (  # the remedies that the README shows
    "duplicated_100",
    "rotation_100",
    "augmented_100",
    "weighted",
    f"weighted{BY_COUNT}",
    "per_label",
)
REACHED = {HOLDS: "yes", CONTRADICTED: "no"}


@dataclass(frozen=True)
class Table:
    """A table of words; a line break in a cell stays one.

    Attributes:
        caption: What the table is of.
        columns: What stands above them.
        rows: Their cells.
        note: How the numbers came about.
    """

    caption: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    @cached_property
    def is_numeric(self) -> list[bool]:
        """Tell which columns hold numbers."""
        return [
            all(re.match(r"[+−]?\d|$", row[place]) for row in self.rows)
            for place in range(len(self.columns))
        ]


def table(caption: str, columns: Mapping[str, Iterable[object]], note: str = "") -> Table:
    """Return a table of columns, by what stands above them."""
    rows = zip(*columns.values(), strict=True)
    return Table(caption, [*columns], [[str(cell) for cell in row] for row in rows], note)


@dataclass(frozen=True)
class Judged:
    """A claim with one model and one optimizer.

    Attributes:
        model: As a reader calls it.
        optimizer: As a reader calls it.
        verdict: One of `verdicts.VERDICTS`, not corrected.
        said: The effect with its interval.
        hover: All that is known of it.
        effect: In points; nan where there are no runs.
        low: End of its interval; nan where there is none.
        high: The other end.
    """

    model: str
    optimizer: str
    verdict: str
    said: str
    hover: str
    effect: float
    low: float
    high: float


def seeds_said(seeds: pandas.Series) -> str:
    """Say how many seeds there are, "3 to 5"."""
    return " to ".join(map(str, sorted({seeds.min(), seeds.max()})))


def numbers(values: Iterable[float], form: str) -> list[str]:
    """Say numbers; nothing where they are nan."""
    return ["" if math.isnan(value) else form.format(value) for value in values]


def percent(row: Any, signed: bool = False) -> str:
    """Say a mean in % and half the width of its interval: "55.1 ± 3.6"."""
    mean = f"{100 * row.mean:{'+' if signed else ''}.1f}".replace("-", "−")
    if not row.n:
        return "missing"
    return mean if row.n < 2 else f"{mean} ± {50 * (row.high - row.low):.1f}"


def points(value: float) -> str:
    """Say a difference of accuracies in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def with_interval(value: float, low: float, high: float) -> str:
    """Say a difference of accuracies in points, with its interval where there is one."""
    return points(value) + ("" if math.isnan(low) else f" [{points(low)}, {points(high)}]")


def fraction(value: float, low: float, high: float) -> str:
    """Say what fraction of the loss is restored, in %, with Fieller's interval."""
    said = "unknown" if math.isnan(value) else f"{100 * value:.0f} %"
    if math.isinf(low):
        said += " [any]"
    elif not math.isnan(low):
        said += f" [{100 * low:.0f}, {100 * high:.0f}]"
    return said.replace("-", "−")


def across(
    tidy: pandas.DataFrame, by: list[str], column: str, say: Callable[[Any], str] = percent
) -> dict[str, list[str]]:
    """Return estimates as columns of words: what tells rows apart, then one a value of another key.

    Args:
        tidy: A row an estimate.
        by: Keys that tell the rows apart.
        column: Key that tells the columns apart.
        say: Says an estimate.
    """
    words: dict[str, list[str]] = {name: [] for name in [*by, *tidy[column].unique()]}
    for keys, rows in tidy.groupby(by, sort=False):
        cells = {getattr(row, column): say(row) for row in rows.itertuples()}
        cells |= {name: key_title(name, key) for name, key in zip(by, keys, strict=True)}
        for name, said in words.items():
            said.append(cells.get(name, ""))
    return words


def key_title(name: str, key: object) -> str:
    """Return what a reader calls a value of a column; numbers and what has no title as they are."""
    return f"{key:g}" if isinstance(key, float) else TITLES.get(name, str)(str(key))


def summary(conditions: pandas.DataFrame) -> Table:
    """The models in the conditions of Table 1, by group, with one optimizer."""
    shown = conditions[conditions.condition.isin(CONDITIONS)]
    rare = shown.label.iloc[0]
    each = shown.drop_duplicates(["model", "condition"], keep="last")
    published = [
        published_accuracy(row.condition, rare) if row.model == "lstm" else math.nan
        for row in each.itertuples()
    ]
    optimizers = ", ".join(map(optimizer_title, shown.optimizer.unique()))
    named = shown.assign(label=[name if name == ALL else group_title(name) for name in shown.label])
    return table(
        f"Test accuracy %, mean ± half of the 95 % interval over n seeds ({optimizers}).",
        {
            **across(named, ["model", "condition"], "label"),
            f"{in_line(rare)}, published": numbers([100 * value for value in published], "{:.1f}"),
            "n": each.n,
        },
    )


def effect(row: Any) -> str:
    """Say a claim's effect with its interval and unit."""

    def say(value: float) -> str:
        return f"{value:+.1f}".replace("-", "−") if row.unit == "labels" else points(value)

    interval = f" [{say(row.low)}, {say(row.high)}]" if row.n > 1 else ""
    return f"{say(row.effect)}{interval} {row.unit}" if row.n else "none"


def judged(claims: pandas.DataFrame) -> dict[str, list[Judged]]:
    """Return what is said of each claim, by its sentence."""
    said: dict[str, list[Judged]] = {}
    for row in claims.itertuples():
        told = {"n": row.n, "effect": f"{row.statistic} (AI3607, section {row.section})"}
        deciding = re.sub(r"\w+", lambda name: model_title(condition_title(name[0])), row.deciding)
        told |= {"decides": in_line(deciding)} if deciding else {}
        told |= {"p": f"{row.p:.2g}, corrected {row.p_corrected:.2g}"} if row.p == row.p else {}
        told |= {"after correction": row.corrected}
        if row.seeds_to_decide == row.seeds_to_decide:
            told |= {"seeds that would decide": f"{row.seeds_to_decide:.0f}"}
        scale = 1 if row.unit == "labels" else 100
        ends = [scale * each for each in (row.effect, row.low, row.high)]
        names = BOTH if row.model == "both" else model_title(row.model)
        each = Judged(
            *(names, optimizer_title(row.optimizer), row.verdict, effect(row)),
            *("\n".join(f"{name}: {value}" for name, value in told.items()), *ends),
        )
        said.setdefault(row.sentence, []).append(each)
    return said


def claims_table(claims: pandas.DataFrame, optimizer: str) -> Table:
    """The verdicts over the claims with one optimizer."""
    shown = claims[claims.optimizer == optimizer]
    return table(
        f"AI3607's claims with {optimizer_title(optimizer)}, at equal epochs, given this test set.",
        {
            "claim": shown.sentence,
            **titled(shown, "model"),
            "verdict": shown.verdict,
            "corrected": shown.corrected,
            "effect": map(effect, shown.itertuples()),
            "n": shown.n,
            "p": numbers(shown.p, "{:.2g}"),
            "p corrected": numbers(shown.p_corrected, "{:.2g}"),
            "comparisons": [
                f"{row.comparisons}: {row.deciding}" if row.deciding else "1"
                for row in shown.itertuples()
            ],
            "seeds needed": numbers(shown.seeds_to_decide, "{:.0f}"),
            "what the effect is": shown.statistic,
            "section": shown.section,
        },
        "An effect above zero speaks for the claim; 95 % interval over n seeds, of the comparison "
        "that decides where there are several (how many, and which); two-sided p, raw and after "
        "Holm's correction within the model; seeds that would decide what is undecided, roughly.",
    )


def table_1(tidy: pandas.DataFrame, model: str) -> Table:
    """Table 1 side by side: ours, the report's and the difference."""

    def cell(row: Any) -> str:
        lines = [percent(row)]
        if not math.isnan(row.published):
            lines.append(f"AI3607 {100 * row.published:.1f}")
            if not math.isnan(row.published_in_text):
                lines[-1] += f" (text {100 * row.published_in_text:.1f})"
            if row.n > 1:
                inside = row.low_one <= row.published <= row.high_one
                where = "inside" if inside else "outside"
                ends = f"{100 * row.low_one:.1f} to {100 * row.high_one:.1f}"
                lines.append(f"{where} {ends}".replace("-", "−"))
        return "\n".join(lines)

    shown = tidy[tidy.model == model]
    shown = shown.assign(**titled(shown, "condition"))
    return table(
        f"{model_title(model)}: test accuracy % by label, mean ± half of the 95 % interval over "
        "seeds.",
        across(shown, ["label"], "condition", cell),
        "Below it, AI3607's one run, and between which accuracies one run of ours lies in 95 % of "
        "cases (prediction interval).",
    )


def estimates_table(
    tidy: pandas.DataFrame, caption: str, by: list[str], columns: str, signed: bool = False
) -> Table:
    """Lay estimates out with a column a value of one key, see `across`.

    Args:
        tidy: A row an estimate.
        caption: Of the table.
        by: Keys that tell the rows apart.
        columns: Key that tells the columns apart.
        signed: Show the sign of positive values, too.
    """
    titles = [DIVISORS.get(name, in_line(name)) for name in tidy[columns]]
    tidy = tidy.assign(**{columns: titles})
    ends = [{rows.n.min(), rows.n.max()} for _, rows in tidy.groupby(by, sort=False)]
    n = [" to ".join(map(str, sorted(each))) for each in ends]
    cells = across(tidy, by, columns, partial(percent, signed=signed))
    return table(caption, {**cells, "n": n})


def selection_table(tidy: pandas.DataFrame) -> Table:
    """What choosing on the test set adds."""
    return table(
        "Test accuracy % of the rare labels at the weight that is best on validation or test data; "
        "for a weight a label, the mean of each label's accuracy at its own best weight.",
        {
            **titled(tidy, "model", "optimizer"),
            "chosen": tidy.choice,
            "on validation": numbers(100 * tidy.on_validation, "{:.2f}"),
            "on test": numbers(100 * tidy.on_test, "{:.2f}"),
            "difference": [percent(row, signed=True) for row in tidy.itertuples()],
            "n": tidy.n,
        },
    )


def headline(restored: pandas.DataFrame) -> Table | None:
    """Return the table of what the main remedies restore at equal steps, a column a model.

    Args:
        restored: As `remedies.restored`.

    Returns:
        None where nothing is known of them.
    """
    rows = restored[(restored.ground == STEPS) & (restored.n > 1)]
    rows = rows[rows.condition.isin(HEADLINE)]
    known = [name for name in HEADLINE if (rows.condition == name).any()]
    if not known:
        return None
    columns: dict[str, list[str]] = {"": ["lost, points", *(REMEDIES[name] for name in known)]}
    for (optimizer, model), shown in rows.groupby(["optimizer", "model"], sort=False):
        by_condition = {row.condition: row for row in shown.itertuples()}
        of_any = next(iter(by_condition.values()))
        ends = (of_any.lost, of_any.lost_low, of_any.lost_high)
        lost, low, high = (f"{100 * end:.1f}".replace("-", "−") for end in ends)
        columns[f"{model_title(str(model))}, {optimizer_title(str(optimizer))}"] = [
            f"{lost} [{low}, {high}]",
            *(
                fraction(row.fraction, row.low, row.high) if row else "not trained"
                for row in map(by_condition.get, known)
            ),
        ]
    return table(
        f"Test accuracy that {group_title(rows.rare.iloc[0])} lose, and the fraction of it that "
        "each remedy brings back, with as many optimizer steps for every set; 95 % intervals over "
        f"{seeds_said(rows.n)} seeds.",
        columns,
    )


def restored_tables(restored: pandas.DataFrame) -> list[Table]:
    """Return a table for each ground and optimizer, the first optimizer at equal steps first."""
    tables = []
    rows = restored[restored.n > 0]
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        is_remedy = ~shown.condition.isin(REFERENCES)
        if not is_remedy.any():
            continue
        rare, frequent = shown.rare.iloc[0], shown.frequent.iloc[0]
        ends = zip(shown.fraction, shown.low, shown.high, strict=True)
        of_remedies = {"restored": pandas.Series([fraction(*each) for each in ends], shown.index)}
        for title, verdicts in {
            **{"above ½": "above_0.5", "above 0.8": "above_0.8", "above 0.95": "above_0.95"},
            "not below original": "not_below_original",
        }.items():
            of_remedies[title] = shown[verdicts].map(lambda verdict: REACHED.get(verdict, "?"))
        tables.append(
            table(
                f"{optimizer_title(optimizer)}, {ground}: fraction restored of what the imbalance "
                f"took from {group_title(rare)}.",
                {
                    **titled(shown, "model"),
                    "remedy": shown.remedy.where(is_remedy, shown.condition.map(condition_title)),
                    **{title: cells.where(is_remedy, "") for title, cells in of_remedies.items()},
                    group_title(rare): numbers(100 * shown.minority, "{:.1f}"),
                    group_title(frequent): numbers(100 * shown.majority, "{:.1f}"),
                    "all": numbers(100 * shown.overall, "{:.1f}"),
                    "n": shown.n,
                },
                "From imbalanced (0) to original (1) on the same ground, with Fieller's 95 % "
                "interval over n seeds, given this test set; whether it lies above ½, 0.8 and 0.95 "
                "of the loss; whether the accuracy is within the margin of the original data's, or "
                "above (yes, no, or ? for undecided, not corrected for their number); accuracy % "
                f"of {group_title(rare)}, {in_line(frequent)} and all.",
            )
        )
    return tables


def compared_tables(compared: pandas.DataFrame) -> list[Table]:
    """Return a table of comparisons for each ground and optimizer."""

    def on_images(row: Any) -> str:
        if row.n_images < 2:
            return "one seed" if row.n_images else "no predictions"
        return f"[{points(row.low_images)}, {points(row.high_images)}], n = {row.n_images}"

    def images(row: Any) -> str:
        said = f"{row.gained:.0f} : {row.lost:.0f} (p {row.p_images:.1g})"
        return said if row.n_images else ""

    def seeds(row: Any) -> str:
        decide, find = (
            "many" if math.isnan(needed) else f"{needed:.0f}"
            for needed in (row.seeds_to_decide, row.seeds_for_margin)
        )
        return f"{decide if row.verdict == UNDECIDED else 'decided'} / {find}"

    tables = []
    rows = compared[compared.n > 0]
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        rare, frequent = shown.rare.iloc[0], shown.frequent.iloc[0]
        each = [*shown.itertuples()]
        tables.append(
            table(
                f"{optimizer_title(optimizer)}, {ground}: differences in points, paired over n "
                "seeds, given this test set.",
                {
                    **titled(shown, "model"),
                    "comparison": shown.comparison,
                    "verdict": [BETTER[row.verdict] for row in each],
                    "corrected": [BETTER[row.corrected] for row in each],
                    group_title(rare): [with_interval(r.effect, r.low, r.high) for r in each],
                    group_title(frequent): [
                        with_interval(r.majority, r.majority_low, r.majority_high) for r in each
                    ],
                    "all": [with_interval(r.overall, r.overall_low, r.overall_high) for r in each],
                    "seeds × images": map(on_images, each),
                    "images": map(images, each),
                    "n": shown.n,
                    "seeds": map(seeds, each),
                },
                f"Judged are {group_title(rare)} (is the first "
                "better?), raw and after Holm's correction within the model; beside it what the "
                f"same change does to {group_title(frequent)} and to all. Seeds × images: the "
                f"interval of {in_line(rare)} over seeds and test images together (conservative). "
                f"Images: test images of {in_line(rare)} that more : fewer "
                "seeds of the first get right (McNemar's p, given these networks). Seeds: those "
                "that would decide what is undecided / find a difference as large as the margin.",
            )
        )
    return tables


def ranked_table(ranked: pandas.DataFrame) -> Table:
    """Return the methods of one model and imbalance in their order, each beside the plain loss.

    Args:
        ranked: As `methods.ranked`, of one place.
    """
    of_any = ranked.iloc[0]
    own = ranked[["seeds", "mean", "mean_low", "mean_high"]].set_axis(
        list(Estimate._fields), axis=1
    )
    plain = ranked.n > 0  # compared with it

    def if_compared(words: Iterable[str]) -> list[str]:
        return [word if known else "" for word, known in zip(words, plain, strict=True)]

    effects = zip(ranked.effect, ranked.low, ranked.high, strict=True)
    return table(
        f"{place_title(of_any.model, of_any.keep)}: balanced test accuracy %, mean ± half of the "
        "95 % interval over n seeds.",
        {
            "rank": numbers(ranked["rank"], "{:.0f}"),
            "method": ranked.method,
            "setting": [setting or "as it is" for setting in ranked.setting],
            "tried": ranked.tried,
            "accuracy": map(percent, own.itertuples()),
            "n": ranked.seeds,
            "rare labels": numbers(100 * ranked.rare, "{:.1f}"),
            "others": numbers(100 * ranked.frequent, "{:.1f}"),
            "− plain, points": if_compared(with_interval(*effect) for effect in effects),
            "raw": if_compared(map(BETTER.__getitem__, ranked.verdict)),
            "corrected": if_compared(map(BETTER.__getitem__, ranked.corrected)),
            "seconds": numbers(ranked.seconds, "{:.0f}"),
        },
        f"{of_any.steps} optimizer steps each, {optimizer_title(of_any.optimizer)} at "
        f"{of_any.rate:g}, falling along half a cosine; the setting is the best of those tried by "
        "balanced validation accuracy, with the first seed and the most images. Corrected by Holm "
        "over the methods. Seconds: as measured, on machines that may have done other things, too.",
    )


def metrics_table(metrics: pandas.DataFrame) -> Table:
    """Return what else was scored, see `methods.metrics`, of one place."""
    names = metrics.columns.drop(["model", "keep", "method", "seeds"])
    of_any = metrics.iloc[0]
    return table(
        f"{place_title(of_any.model, of_any.keep)}: other scores of the test set, "
        "means over n seeds (`conf/metrics/` says what they are).",
        {
            "method": metrics.method,
            "n": metrics.seeds,
            **{name.replace("_", " "): numbers(metrics[name], "{:.3f}") for name in names},
        },
    )


def place_title(model: str, keep: float) -> str:
    """Return what a reader calls a model and an imbalance."""
    return f"{model_title(model)}, {100 * keep:g} % kept"


def trainings_table(trainings: pandas.DataFrame) -> Table:
    """Return how plain training was tried, see `methods.trainings`."""
    return table(
        "How the plain loss was tried: balanced validation accuracy %, one seed.",
        {
            **titled(trainings, "model", "optimizer"),
            "rate": [f"{rate:g}" for rate in trainings.rate],
            "steps": trainings.steps,
            "accuracy": numbers(100 * trainings.val, "{:.2f}"),
            "methods": ["compared with it" if chosen else "" for chosen in trainings.chosen],
        },
        "The rule of choice stands in `docs/protocol_methods.md`.",
    )


def rules_table(rules: pandas.DataFrame) -> Table:
    """Return what each rule of selection chooses, see `methods.rules`."""
    scores = [column for column in rules if column.endswith(" scores")]
    return table(
        "Which setting each rule of selection would choose, and its balanced test accuracy %, one "
        "seed; the rule `test` chooses by the test set and shows how optimistic that is.",
        {
            **titled(rules, "model"),
            "method": rules.method,
            **{
                column.removesuffix(" scores"): [
                    f"{setting or 'as it is'}\n{100 * score:.2f}"
                    for setting, score in zip(
                        rules[column.removesuffix(" scores")], rules[column], strict=True
                    )
                ]
                for column in scores
            },
        },
    )
