"""The answer to "what restores the rare labels?" in sentences and tables."""

import math
from typing import Any

import pandas

from mnist_imbalance.published import OPTIMIZER
from mnist_imbalance.report.gather import STEPS
from mnist_imbalance.report.names import (
    OPTIMIZERS,
    condition_title,
    group_title,
    in_line,
    model_title,
    optimizer_title,
    place_of_optimizer,
)
from mnist_imbalance.report.remedies import BY_COUNT, MARKS, REFERENCES
from mnist_imbalance.report.verdicts import CONTRADICTED, HOLDS, NO_DIFFERENCE, UNDECIDED
from mnist_imbalance.report.wording import Table, points

COPIES, WEIGHTED = "duplicated_100", f"weighted{BY_COUNT}"
CHANGED = "10 copies: noise and rotations − unchanged"
INSTEAD = "weight 7, by images − 10 unchanged copies"
CHANGING = {
    HOLDS: "better for {}",
    CONTRADICTED: "worse for {}",
    NO_DIFFERENCE: "no difference within the margin",
    UNDECIDED: "undecided",
}
BETTER = {HOLDS: "better", CONTRADICTED: "worse", NO_DIFFERENCE: "no difference"}
AGAINST = {
    HOLDS: "better than",
    CONTRADICTED: "worse than",
    NO_DIFFERENCE: "within the margin of",
    UNDECIDED: "not told apart from",
}
REACHED = {HOLDS: "yes", CONTRADICTED: "no"}


def fraction(row: Any) -> str:
    """Say what fraction of the loss is restored, in %, with Fieller's interval."""
    said = "unknown" if math.isnan(row.fraction) else f"{100 * row.fraction:.0f} %"
    said = said.replace("-", "−")
    if math.isinf(row.low):
        return f"{said} [any]"
    interval = f"[{100 * row.low:.0f}, {100 * row.high:.0f}]".replace("-", "−")
    return said if math.isnan(row.low) else f"{said} {interval}"


def restored_tables(restored: pandas.DataFrame) -> list[Table]:
    """Return a table for each ground and optimizer, the first optimizer at equal steps first."""
    rows = restored[restored.n > 0]
    rows = rows.rename(columns={f"above_{mark:g}": f"above_{i}" for i, mark in enumerate(MARKS)})
    tables = []
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        if set(shown.condition) <= set(REFERENCES):
            continue
        rare, frequent = shown.rare.iloc[0], shown.frequent.iloc[0]
        cells = []
        for row in shown.itertuples():
            said = [fraction(row), *(row.above_0, row.above_1, row.above_2), row.not_below_original]
            said = [said[0], *(REACHED.get(verdict, "?") for verdict in said[1:])]
            if row.condition in REFERENCES:
                said = ["", "", "", "", ""]
            accuracies = (row.minority, row.majority, row.overall)
            shown_accuracies = [f"{100 * accuracy:.1f}" for accuracy in accuracies]
            named = [model_title(row.model), row.remedy]
            if row.condition in REFERENCES:
                named[1] = condition_title(row.condition)
            cells.append([*named, *said, *shown_accuracies, str(row.n)])
        tables.append(
            Table(
                f"{optimizer_title(optimizer)}, {ground}: fraction restored of what the imbalance "
                f"took from {group_title(rare)}, from imbalanced (0) to original (1) on the same "
                "ground, with Fieller's 95 % interval over n seeds, given this test set; whether "
                "it lies above ½, 0.8 and 0.95 of the loss; whether the accuracy is within the "
                "margin of the original data's, or above (yes, no, or ? for undecided, not "
                f"corrected for their number); accuracy % of {group_title(rare)}, "
                f"{in_line(frequent)} and all.",
                [
                    *("model", "remedy", "restored", "above ½", "above 0.8", "above 0.95"),
                    *("not below original", group_title(rare), group_title(frequent), "all", "n"),
                ],
                cells,
            )
        )
    return tables


def with_interval(row: Any, mean: str, low: str, high: str) -> str:
    """Say a difference in points, with its interval where there is one."""
    value, ends = getattr(row, mean), (getattr(row, low), getattr(row, high))
    if math.isnan(ends[0]):
        return points(value)
    return f"{points(value)} [{points(ends[0])}, {points(ends[1])}]"


def compared_tables(compared: pandas.DataFrame) -> list[Table]:
    """Return a table of comparisons for each ground and optimizer."""
    rows = compared[compared.n > 0]
    tables = []
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        rare, frequent = shown.rare.iloc[0], shown.frequent.iloc[0]
        cells = []
        for row in shown.itertuples():
            wide, images = "no predictions", ""
            if row.n_images:
                images = f"{row.gained:.0f} : {row.lost:.0f} (p {row.p_images:.1g})"
                wide = f"[{points(row.low_images)}, {points(row.high_images)}]"
                wide = f"{wide}, n = {row.n_images}" if row.n_images > 1 else "one seed"
            verdicts = [BETTER.get(v, "undecided") for v in (row.verdict, row.corrected)]
            decide, find = (
                "many" if math.isnan(seeds) else f"{seeds:.0f}"
                for seeds in (row.seeds_to_decide, row.seeds_for_margin)
            )
            decide = decide if row.verdict == UNDECIDED else "decided"
            cells.append(
                [
                    *(model_title(row.model), row.comparison, *verdicts),
                    with_interval(row, "effect", "low", "high"),
                    with_interval(row, "majority", "majority_low", "majority_high"),
                    with_interval(row, "overall", "overall_low", "overall_high"),
                    *(wide, images, str(row.n)),
                    f"{decide} / {find}",
                ]
            )
        tables.append(
            Table(
                f"{optimizer_title(optimizer)}, {ground}: differences in points, paired over n "
                f"seeds, given this test set. Judged are {group_title(rare)} (is the first "
                "better?), raw and after Holm's correction within the model; beside it what the "
                f"same change does to {group_title(frequent)} and to all. Seeds × images: the "
                f"interval of {in_line(rare)} over seeds and test images together (conservative). "
                f"Images: test images of {in_line(rare)} that more : fewer "
                "seeds of the first get right (McNemar's p, given these networks). Seeds: those "
                "that would decide what is undecided / find a difference as large as the margin.",
                [
                    *("model", "comparison", "verdict", "corrected", group_title(rare)),
                    *(group_title(frequent), "all", "seeds × images", "images", "n", "seeds"),
                ],
                cells,
            )
        )
    return tables


def joined(said: list[str]) -> str:
    """Return phrases as one, those that are empty left out."""
    return " and ".join(filter(None, said))


def of_remedy(restored: pandas.DataFrame, model: str, condition: str) -> str:
    """Say what fraction a remedy restores with a model; nothing where it is unknown."""
    rows = restored[(restored.model == model) & (restored.condition == condition)]
    return f"{fraction(rows.iloc[0])} with the {model_title(model)}" if len(rows) else ""


def with_optimizer(optimizer: str, restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say what came out with one optimizer at equal steps; nothing where no remedy is known."""
    on = [STEPS, optimizer]
    restored = restored[(restored[["ground", "optimizer"]] == on).all(axis=1) & (restored.n > 1)]
    compared = compared[(compared[["ground", "optimizer"]] == on).all(axis=1) & (compared.n > 1)]
    copied = restored[restored.condition == COPIES]
    if copied.empty:
        return ""
    losses = joined(
        [
            f"{100 * row.lost:.1f} points [{100 * row.lost_low:.1f}, {100 * row.lost_high:.1f}] "
            f"with the {model_title(row.model)}"
            for row in copied.itertuples()
        ]
    )
    rare, frequent = group_title(copied.rare.iloc[0]), group_title(copied.frequent.iloc[0])
    n = " to ".join(map(str, sorted({copied.n.min(), copied.n.max()})))
    sentences = [
        f"With {optimizer_title(optimizer)} and as many optimizer steps for every set, losing 90 % "
        f"of their training images costs {rare} {losses} of test accuracy (n = {n})."
    ]
    for condition, named in (
        (COPIES, "Ten unchanged copies of the images that are left bring back"),
        (WEIGHTED, "Weight 7, the loss divided by its images, brings back"),
    ):
        if said := joined([of_remedy(restored, model, condition) for model in copied.model]):
            sentences.append(f"{named} {said}.")
    for names, first in (
        (CHANGED, f"Noise and rotations instead of unchanged copies change {rare} by"),
        (INSTEAD, f"That weight instead of the copies changes {rare} by"),
    ):
        told = joined(
            [
                f"{with_interval(row, 'effect', 'low', 'high')} points and {frequent} by "
                f"{with_interval(row, 'majority', 'majority_low', 'majority_high')} with the "
                f"{model_title(row.model)} ({in_line(row.rare)}: "
                f"{BETTER.get(row.corrected, 'undecided')})"
                for row in compared[compared.comparison == names].itertuples()
            ]
        )
        if told:
            sentences.append(f"{first} {told}.")
    return " ".join(sentences)


def finding(restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say in a few sentences what came out, for the models and optimizers for which it is known.

    Args:
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    optimizers = sorted(set(restored.optimizer), key=place_of_optimizer)
    said = [with_optimizer(optimizer, restored, compared) for optimizer in optimizers]
    return "\n\n".join(filter(None, said)) or (
        "There is no finding yet: it takes two seeds of the original, the imbalanced and the "
        "copied set with as many optimizer steps."
    )


def literature(restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say what AI3607 had right that it could not show, and where the numbers agree with others'.

    Args:
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    on_steps = restored[(restored.ground == STEPS) & (restored.n > 1)]
    of = on_steps.set_index(["optimizer", "model", "condition"])
    pairs = compared[(compared.ground == STEPS) & (compared.n > 1)]
    verdicts = pairs.set_index(["optimizer", "model", "comparison"]).corrected
    said = [
        "AI3607 concludes that its augmentations cannot restore the rare labels. Its augmented "
        "sets repeat the rare images four and ten times, and it has no set of unchanged copies, so "
        "its experiment could not tell what changing the images does from what repeating them does."
    ]
    for (optimizer, model, comparison), verdict in verdicts.items():
        if comparison == CHANGED and (optimizer, model, COPIES) in of.index:
            copies = of.loc[(optimizer, model, COPIES), "above_0.5"]
            repeated = {HOLDS: "restores more than half of the loss"}
            said.append(
                f"{model_title(model)} with {optimizer_title(optimizer)}: repeating "
                f"{repeated.get(copies, 'does not surely restore half of the loss')}, and changing "
                f"the copies is {CHANGING[verdict].format(group_title(pairs.rare.iloc[0]))}."
            )
    weights = verdicts.get((OPTIMIZER, "cnn", INSTEAD))
    if weights is not None:
        said.append(
            "Buda, Maki and Mazurowski (2018, Neural Networks 106) found that imbalance harms "
            "convolutional networks and that oversampling, which ten copies are, was the best of "
            "the remedies that they compared in almost all cases, without overfitting; they did "
            "not compare loss weights. Here weight 7, by images, is "
            f"{AGAINST[weights]} ten copies for the CNN."
        )
    both = on_steps[(on_steps.condition == WEIGHTED) & on_steps.optimizer.isin(OPTIMIZERS)]
    pairs_of = [rows for _, rows in both.groupby("model", sort=False) if len(rows) == 2]
    for first, second in (rows.itertuples() for rows in pairs_of):
        apart = second.high < first.low or second.low > first.high
        said.append(
            f"{model_title(first.model)}: weight 7, by images, restores {fraction(first)} with "
            f"{optimizer_title(first.optimizer)} and {fraction(second)} with "
            f"{optimizer_title(second.optimizer)}"
            + (", which differ." if apart else "; the intervals overlap.")
        )
    if pairs_of:
        said.append(
            "Byrd and Lipton (2019, ICML) found that the effect of loss weights fades as a network "
            "is trained on; Adam trains these further in as many steps, but differs in more."
        )
    return " ".join(said)
