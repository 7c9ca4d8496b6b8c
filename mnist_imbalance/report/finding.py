"""The answer to "what restores the rare labels?" in sentences."""

import pandas

from mnist_imbalance.published import OPTIMIZER
from mnist_imbalance.report.gather import STEPS
from mnist_imbalance.report.method_runs import PLAIN
from mnist_imbalance.report.methods import ORACLE, RULES, TOGETHER
from mnist_imbalance.report.names import (
    OPTIMIZERS,
    group_title,
    in_line,
    model_title,
    optimizer_title,
    place_of_optimizer,
)
from mnist_imbalance.report.remedies import BY_COUNT
from mnist_imbalance.report.verdicts import CONTRADICTED, HOLDS, NO_DIFFERENCE, UNDECIDED
from mnist_imbalance.report.wording import BETTER, fraction, place_title, seeds_said, with_interval

COPIES, WEIGHTED = "duplicated_100", f"weighted{BY_COUNT}"
CHANGED = "10 copies: noise and rotations − unchanged"
ROTATED = "10 copies: rotations alone − unchanged"
NOISED = "10 copies: noise alone − unchanged"
INSTEAD = "weight 7, by images − 10 unchanged copies"
NO_FINDING = (
    "There is no finding yet: it takes two seeds of the original, the imbalanced and the copied "
    "set with as many optimizer steps."
)
CHANGING = {
    HOLDS: "better for {}",
    CONTRADICTED: "worse for {}",
    NO_DIFFERENCE: "no difference within the margin",
    UNDECIDED: "undecided",
}
AGAINST = {
    HOLDS: "better than",
    CONTRADICTED: "worse than",
    NO_DIFFERENCE: "within the margin of",
    UNDECIDED: "not told apart from",
}


def in_words(verdict: str, corrected: str) -> str:
    """Return a comparison's verdict in words, and after correction if that is another one."""
    raw, after = BETTER[verdict], BETTER[corrected]
    return raw if raw == after else f"{raw}, after correction {after}"


def with_optimizer(optimizer: str, restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say what came out with one optimizer at equal steps; nothing where no remedy is known."""
    restored, compared = (
        rows[(rows.ground == STEPS) & (rows.optimizer == optimizer) & (rows.n > 1)]
        for rows in (restored, compared)
    )
    copied = restored[restored.condition == COPIES]
    if copied.empty:
        return ""
    losses = " and ".join(
        f"{100 * row.lost:.1f} points [{100 * row.lost_low:.1f}, {100 * row.lost_high:.1f}] "
        f"with the {model_title(row.model)}"
        for row in copied.itertuples()
    )
    rare, frequent = group_title(copied.rare.iloc[0]), group_title(copied.frequent.iloc[0])
    n = " to ".join(map(str, sorted({copied.n.min(), copied.n.max()})))
    sentences = [
        f"With {optimizer_title(optimizer)} and as many optimizer steps for every set, losing 90 % "
        f"of their training images costs {rare} {losses} of test accuracy (n = {n})."
    ]
    for condition, first in (
        (COPIES, "Ten unchanged copies of the images that are left bring back"),
        (WEIGHTED, "Weight 7, the loss divided by its images, brings back"),
    ):
        rows = restored[(restored.condition == condition) & restored.model.isin(copied.model)]
        told = [
            f"{fraction(row.fraction, row.low, row.high)} with the {model_title(row.model)}"
            for row in rows.itertuples()
        ]
        sentences += [f"{first} {' and '.join(told)}."] if told else []
    changes = []
    for comparison, first in (
        (CHANGED, "Noise and rotations instead of unchanged copies change"),
        (ROTATED, "Rotations alone instead of unchanged copies change"),
        (NOISED, "Noise alone instead of unchanged copies changes"),
        (INSTEAD, "That weight instead of the copies changes"),
    ):
        told = [
            f"{with_interval(row.effect, row.low, row.high)} points and {frequent} by "
            f"{with_interval(row.majority, row.majority_low, row.majority_high)} with the "
            f"{model_title(row.model)} ({in_line(row.rare)}: "
            f"{in_words(row.verdict, row.corrected)})"
            for row in compared[compared.comparison == comparison].itertuples()
        ]
        changes += [f"{first} {rare} by {' and '.join(told)}."] if told else []
    return "\n\n".join(filter(None, [" ".join(sentences), " ".join(changes)]))


def answer(restored: pandas.DataFrame) -> list[str]:
    """Say in at most three plain sentences what restores the rare labels at equal steps.

    Args:
        restored: As `remedies.restored`.
    """
    said: list[str] = []
    for optimizer in sorted(set(restored.optimizer), key=place_of_optimizer)[:2]:
        rows = restored[(restored.ground == STEPS) & (restored.optimizer == optimizer)]
        rows = rows[(rows.n > 1) & rows.fraction.notna()]
        copied, weighted = (rows[rows.condition == each] for each in (COPIES, WEIGHTED))
        if copied.empty:
            continue
        lost, copies, weights = (
            " and ".join(
                form.format(100 * value, model_title(model)).replace("-", "−")
                for model, value in zip(rows.model, rows[column], strict=True)
            )
            for rows, column, form in (
                (copied, "lost", "{:.1f} points with the {}"),
                (copied, "fraction", "{:.0f} % with the {}"),
                (weighted, "fraction", "{:.0f} % with the {}"),
            )
        )
        rare, name = group_title(copied.rare.iloc[0]), optimizer_title(optimizer)
        if said:
            then = f", and the weight {weights}" if weights else ""
            said.append(f"With {name} they lose {lost}; the copies bring back {copies}{then}.")
        else:
            then = f"; weight 7, the loss divided by its images, {weights}" if weights else ""
            said = [
                f"Without 90 % of their training images, {rare} lose test accuracy: {lost} "
                f"({name}, as many optimizer steps for every set).",
                f"Ten unchanged copies of the images that are left bring back {copies}{then}.",
            ]
    return said or [NO_FINDING]


def finding(restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say in a few sentences what came out, for the models and optimizers for which it is known.

    Args:
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    optimizers = sorted(set(restored.optimizer), key=place_of_optimizer)
    said = [with_optimizer(optimizer, restored, compared) for optimizer in optimizers]
    return "\n\n".join(filter(None, said)) or NO_FINDING


def literature(restored: pandas.DataFrame, compared: pandas.DataFrame) -> str:
    """Say what AI3607 had right that it could not show, and where the numbers agree with others'.

    Args:
        restored: As `remedies.restored`.
        compared: As `remedies.compared`.
    """
    on_steps = restored[(restored.ground == STEPS) & (restored.n > 1)]
    above_half = on_steps.set_index(["optimizer", "model", "condition"])["above_0.5"]
    pairs = compared[(compared.ground == STEPS) & (compared.n > 1)]
    verdicts = pairs.set_index(["optimizer", "model", "comparison"]).corrected
    said = [
        "AI3607 concludes that its augmentations cannot restore the rare labels. Its augmented "
        "sets repeat the rare images four and ten times, and it has no set of unchanged copies, so "
        "its experiment could not tell what changing the images does from what repeating them does."
    ]
    for (optimizer, model, comparison), verdict in verdicts.items():
        copies = above_half.get((optimizer, model, COPIES))
        if comparison == CHANGED and copies:
            surely = "restores more than" if copies == HOLDS else "does not surely restore"
            said.append(
                f"{model_title(model)} with {optimizer_title(optimizer)}: repeating {surely} half "
                f"of the loss, and changing the copies is "
                f"{CHANGING[verdict].format(group_title(pairs.rare.iloc[0]))}."
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
        restoring = " and ".join(
            f"{fraction(row.fraction, row.low, row.high)} with {optimizer_title(row.optimizer)}"
            for row in (first, second)
        )
        apart = second.high < first.low or second.low > first.high
        said.append(
            f"{model_title(first.model)}: weight 7, by images, restores {restoring}"
            + (", which differ." if apart else "; the intervals overlap.")
        )
    if pairs_of:
        said.append(
            "Byrd and Lipton (2019, ICML) found that the effect of loss weights fades as a network "
            "is trained on; Adam trains these further in as many steps, but differs in more."
        )
    return " ".join(said)


def ranking(ranked: pandas.DataFrame, pairs: pandas.DataFrame) -> list[str]:
    """Say for each model and imbalance which methods are best, and what can be told apart.

    Args:
        ranked: As `methods.ranked`.
        pairs: As `methods.pairs`.
    """
    told = []
    ranked = ranked[ranked.groupby(["model", "keep"]).seeds.transform("max") > 1]
    if ranked.empty:
        return ["So far every method was trained with one seed, which ranks none."]
    for (model, keep), rows in ranked.groupby(["model", "keep"], sort=False):
        competing = rows[rows["rank"].notna()]
        best, plain = competing.head(3), competing[competing.method == PLAIN]
        of_place = pairs[(pairs.model == model) & (pairs.keep == keep)]
        apart = int((of_place.p_corrected < TOGETHER).sum())
        first = ", ".join(
            f"{method} {100 * mean:.1f} %"
            for method, mean in zip(best.method, best["mean"], strict=True)
        )
        told.append(
            f"{place_title(str(model), float(str(keep)))}: first of {len(competing)} are {first}"
            + (f"; plain has {100 * plain.iloc[0]['mean']:.1f} %" if len(plain) else "")
            + f". Better than plain after correction: {sum(competing.corrected == HOLDS)}; pairs "
            f"told apart: {apart} of {len(of_place)} ({seeds_said(competing.seeds)} seeds)."
        )
    return told + mean_ranks(ranked)


def selected(rules: pandas.DataFrame) -> list[str]:
    """Say how much test accuracy each rule of selection costs against choosing by the test set.

    Args:
        rules: As `methods.rules`.
    """
    if rules.empty:
        return []
    lost = {rule: 100 * (rules[f"{ORACLE} scores"] - rules[f"{rule} scores"]) for rule in RULES}
    costs = " and ".join(
        f"{points.mean():.2f} points (at most {points.max():.2f}) by {rule}"
        for rule, points in lost.items()
        if rule != ORACLE
    )
    return [
        f"Of {len(rules)} choices of a setting, one seed each, the test set's own choice scores "
        f"better there than that by validation: on average by {costs} accuracy. So much does a "
        "score flatter that was chosen on the test set."
    ]


def mean_ranks(ranked: pandas.DataFrame) -> list[str]:
    """Name the methods with the best mean rank over models and imbalances, if there are several."""
    ranks = ranked.pivot(index=["model", "keep"], columns="method", values="rank").dropna(axis=1)
    if len(ranks) < 2 or ranks.empty:
        return []
    best = ranks.mean().sort_values(kind="stable").head(3)
    named = ", ".join(f"{method} ({rank:.1f})" for method, rank in best.items())
    return [
        f"The best mean ranks of the {len(ranks.columns)} methods over these {len(ranks)} cases, "
        f"which are no sample and are not tested: {named}."
    ]
