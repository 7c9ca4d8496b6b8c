"""The answer to "what restores the rare labels?" in sentences and tables."""

import math
from typing import Any

import pandas

from mnist_imbalance.report.gather import STEPS
from mnist_imbalance.report.names import model_title, optimizer_title
from mnist_imbalance.report.remedies import BY_COUNT, MARKS
from mnist_imbalance.report.verdicts import CONTRADICTED, HOLDS, NO_DIFFERENCE, UNDECIDED
from mnist_imbalance.report.wording import Table, points

COPIES, AUGMENTED, WEIGHTED = "duplicated_100", "augmented_100", f"weighted{BY_COUNT}"
BEYOND = "noise and rotation, 10 copies"
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
    """Return a table for each ground and optimizer, SGD at equal steps first."""
    rows = restored[restored.n > 0]
    tables = []
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        cells = [
            [
                model_title(row.model),
                row.remedy,
                fraction(row),
                *(REACHED.get(getattr(row, f"above_{m:g}".replace(".", "_")), "?") for m in MARKS),
                REACHED.get(row.not_below_original, "?"),
                f"{100 * row.minority:.1f}",
                f"{100 * row.majority:.1f}",
                str(row.n),
            ]
            for row in shown.rename(columns=lambda name: name.replace(".", "_")).itertuples()
        ]
        tables.append(
            Table(
                f"{optimizer_title(optimizer)}, {ground}: fraction restored of what the imbalance "
                "took from labels 0–4, with Fieller's 95 % interval over n seeds; whether it lies "
                "above ½, 0.8 and 0.95 of the loss; whether the accuracy is within the margin of "
                "the original data's, or above (yes, no, or ? for undecided); accuracy %.",
                [
                    *("model", "remedy", "restored", "above ½", "above 0.8", "above 0.95"),
                    *("not below original", "labels 0–4", "labels 5–9", "n"),
                ],
                cells,
            )
        )
    return tables


def compared_tables(compared: pandas.DataFrame) -> list[Table]:
    """Return a table of comparisons for each ground and optimizer."""
    rows = compared[compared.n > 0]
    tables = []
    for (ground, optimizer), shown in rows.groupby(["ground", "optimizer"], sort=False):
        cells = []
        for row in shown.itertuples():
            wide, images = "no predictions", ""
            if row.n_images:
                images = f"{row.gained:.0f} : {row.lost:.0f} (p {row.p_images:.1g})"
                wide = f"[{points(row.low_images)}, {points(row.high_images)}]"
                wide = f"{wide}, n = {row.n_images}" if row.n_images > 1 else "one seed"
            verdicts = [BETTER.get(v, "undecided") for v in (row.verdict, row.corrected)]
            cells.append(
                [
                    model_title(row.model),
                    row.added,
                    *verdicts,
                    f"{points(row.effect)} [{points(row.low)}, {points(row.high)}]"
                    if row.n > 1
                    else points(row.effect),
                    wide,
                    images,
                    str(row.n),
                    "" if math.isnan(row.seeds_to_decide) else f"{row.seeds_to_decide:.0f}",
                ]
            )
        tables.append(
            Table(
                f"{optimizer_title(optimizer)}, {ground}: what it adds to the accuracy of labels "
                "0–4, in points, paired over n seeds, given this test set; after Holm's correction "
                "within the model; over seeds and test images together; test images that more and "
                "fewer seeds get right (McNemar's p, given these networks); seeds that would "
                "decide what is undecided.",
                [
                    *("model", "what is added", "verdict", "corrected", "points"),
                    *("seeds × images", "images won : lost", "n", "seeds needed"),
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


def with_optimizer(
    optimizer: str,
    conditions: pandas.DataFrame,
    restored: pandas.DataFrame,
    compared: pandas.DataFrame,
) -> list[str]:
    """Say what came out with one optimizer at equal steps; nothing where no remedy is known."""
    on = [STEPS, optimizer]
    restored = restored[(restored[["ground", "optimizer"]] == on).all(axis=1) & (restored.n > 0)]
    compared = compared[(compared[["ground", "optimizer"]] == on).all(axis=1) & (compared.n > 1)]
    models = list(dict.fromkeys(restored.model))
    if not models:
        return []
    rows = conditions[(conditions.optimizer == optimizer) & (conditions.label == "0-4")]
    rows = rows[rows.model.isin(models) & rows.condition.isin(["original", "imbalanced"])]
    means = rows.set_index(["model", "condition"])["mean"]
    changes = joined(
        [
            f"from {100 * means[model, 'original']:.1f} to {100 * means[model, 'imbalanced']:.1f} "
            f"% with the {model_title(model)}"
            for model in models
        ]
    )
    n = " to ".join(map(str, sorted({rows.n.min(), rows.n.max()})))
    sentences = [
        f"With {optimizer_title(optimizer)} and as many optimizer steps for every set, test "
        f"accuracy on labels 0–4 goes {changes} without 90 % of their training images (n = {n})."
    ]
    for condition, named in (
        (COPIES, "Ten unchanged copies of the images that are left bring back"),
        (WEIGHTED, "Weight 7, the loss divided by its images, brings back"),
    ):
        if said := joined([of_remedy(restored, model, condition) for model in models]):
            sentences.append(f"{named} {said}.")
    added = joined(
        [
            f"{points(row.effect)} points [{points(row.low)}, {points(row.high)}] with the "
            f"{model_title(row.model)} ({BETTER.get(row.verdict, 'undecided')})"
            for row in compared[compared.added == BEYOND].itertuples()
        ]
    )
    return [*sentences, f"Noise and rotation add to the copies {added}."] if added else sentences


def finding(
    conditions: pandas.DataFrame, restored: pandas.DataFrame, compared: pandas.DataFrame
) -> str:
    """Say in a few sentences what came out, for the models and optimizers for which it is known.

    Args:
        conditions: Means of every condition on the ground of equal steps.
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    optimizers = sorted(set(restored.optimizer), key=lambda name: (name != "sgd", name))
    said = [with_optimizer(each, conditions, restored, compared) for each in optimizers]
    return " ".join(sentence for sentences in said for sentence in sentences) or (
        "Runs of the original, the imbalanced and a remedied set with as many optimizer steps are "
        "missing, so there is no finding yet."
    )


def literature(restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say what AI3607 had right that it could not show, and where the numbers agree with others'.

    Args:
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    steps = restored[(restored.ground == STEPS) & (restored.n > 1)]
    of = steps.set_index(["optimizer", "model", "condition"])
    verdicts = compared[(compared.ground == STEPS) & (compared.n > 1)]
    verdicts = verdicts.set_index(["optimizer", "model", "added"]).verdict
    said = [
        "AI3607 concludes that these augmentations cannot restore the rare labels and that loss "
        "weights can. Its augmented sets repeat the rare images four and ten times, and it has no "
        "set of unchanged copies, so that its experiment could not tell the images' change from "
        "their repetition."
    ]
    added = [verdicts.get(("sgd", model, BEYOND)) for model in ("lstm", "cnn")]
    if all(verdict in (CONTRADICTED, NO_DIFFERENCE) for verdict in added):
        said.append(
            "In that it was right, though for another reason than its own: what restores the "
            "labels here is the repetition, to which noise and rotation add nothing."
        )
    elif HOLDS in added:
        said.append("Noise and rotation do add to the copies for at least one of the models.")
    weights = verdicts.get(("sgd", "cnn", "weight 7 instead of 10 copies"))
    if weights is not None:
        agrees = "disagree" if weights == HOLDS else "agree"
        said.append(
            "Buda, Maki and Mazurowski (2018, Neural Networks 106) found oversampling at least as "
            f"good as the other remedies in convolutional networks; the CNN's numbers {agrees}: "
            f"weight 7, divided by images, is {AGAINST[weights]} ten copies."
        )
    fades = [
        (of.fraction.get(("sgd", model, "weighted")), of.fraction.get(("adam", model, "weighted")))
        for model in ("lstm", "cnn")
    ]
    if all(before is not None and after is not None for before, after in fades):
        told = " and ".join(f"{100 * a:.0f} % instead of {100 * b:.0f} %" for b, a in fades)
        agrees = "agree" if all(after < before for before, after in fades) else "do not all agree"
        said.append(
            "Byrd and Lipton (2019, ICML) found that the effect of loss weights fades as a network "
            f"is trained on; the runs with Adam, which are trained out, {agrees}: weight 7 "
            f"restores {told} with SGD (LSTM and CNN)."
        )
    return " ".join(said)
