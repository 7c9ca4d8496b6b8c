"""What AI3607 says, sentence by sentence, each as effects over seeds that runs can contradict.

A claim is a table of effects, a row a seed and a column a comparison, each above zero where the
sentence is true; `verdicts.judge` says what follows. AI3607 trains for equal epochs, so these runs
are compared. The rules and margins are those of ``docs/protocol.md``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy
import pandas

from mnist_imbalance.published import GROUPS, published
from mnist_imbalance.report.gather import Gathered
from mnist_imbalance.report.statistics import DECIMALS, estimate, seeds_to_decide
from mnist_imbalance.report.verdicts import UNDECIDED, Judgement, correct, judge, two_sided
from mnist_imbalance.selection import SWEPT

TABLE_1 = ["original", "imbalanced", "augmented_40", "augmented_100", "per_label"]
AUGMENTED = ["augmented_40", "augmented_100"]
BOTH = "both"
MARGINS = {"lstm": 0.01}  # of "no difference", as fractions
MARGIN = 0.005  # of every other model, and of models compared
PUBLISHED_PEAK = published()["best_uniform_weight"]
PUBLISHED_WEIGHTS = published()["uniform_weights"]


def margin_of(model: str) -> float:
    """Return the largest difference in accuracy that counts as none, as a fraction."""
    return MARGINS.get(model, MARGIN)


def name_weight(weight: float) -> str:
    """Return the condition's name in which labels 0-4 weigh this and 5-9 weigh 1."""
    return "weighted" if weight == PUBLISHED_PEAK else f"weighted, {SWEPT}={weight:g}"


class Accuracies:
    """Accuracy by seed, of the runs with one optimizer on one ground.

    Args:
        scores: As `Gathered.on` returns them.
    """

    def __init__(self, scores: pandas.DataFrame) -> None:
        index = ["model", "condition", "scored", "label", "seed"]
        self.by_condition = scores.set_index(index).accuracy.sort_index()
        self.known = set(self.by_condition.index.droplevel([2, 3, 4]))
        self.models = list(scores.model.unique())

    def __call__(
        self, model: str, condition: str, label: str, scored: str = "test"
    ) -> pandas.Series:
        """Return accuracies in [0, 1] by seed.

        Raises:
            KeyError: There are no such runs.
        """
        return self.by_condition.loc[model, condition, scored, label]

    def over_weights(self, model: str, label: str, scored: str = "test") -> pandas.DataFrame:
        """Return accuracies in [0, 1], a row a seed and a column one of AI3607's weights.

        Raises:
            KeyError: There are no such runs.
        """
        named = {weight: name_weight(weight) for weight in PUBLISHED_WEIGHTS}
        swept = {weight: name for weight, name in named.items() if (model, name) in self.known}
        if len(swept) < 2:
            raise KeyError("weight")
        return pandas.DataFrame(
            {weight: self(model, name, label, scored) for weight, name in swept.items()}
        ).dropna()


def by_optimizer(scores: pandas.DataFrame) -> Iterator[tuple[str, Accuracies]]:
    """Go through the optimizers of the runs on one ground."""
    for optimizer, shown in scores.groupby("optimizer", sort=False):
        yield str(optimizer), Accuracies(shown)


Effects: TypeAlias = pandas.DataFrame | pandas.Series  # rows are seeds, columns are comparisons
Statistic = Callable[[Accuracies, str], Effects]


@dataclass(frozen=True)
class Claim:
    """A sentence of AI3607 that runs can contradict.

    Attributes:
        name: Of the function that computes its effects.
        sentence: What is claimed, in our words.
        section: Of AI3607.
        effect: What the effects are.
        unit: Of the effects.
        statistic: The function.
        of_both: It compares the two models, instead of being about each.
    """

    name: str
    sentence: str
    section: str
    effect: str
    unit: str
    statistic: Statistic
    of_both: bool


CLAIMS: list[Claim] = []
POINTS = "points"
LEFT = "points of the margin left"  # of a claim that says "no difference" itself


def claim(
    sentence: str, section: str, effect: str, unit: str = POINTS, of_both: bool = False
) -> Callable[[Statistic], Statistic]:
    """Enter a function among the claims."""

    def enter(statistic: Statistic) -> Statistic:
        name = statistic.__name__
        CLAIMS.append(Claim(name, sentence, section, effect, unit, statistic, of_both))
        return statistic

    return enter


NOT_JUDGED = {  # sentence: (section, why)
    "Augmentation did well on CIFAR-10; most methods that fit it do not suit MNIST.": (
        "4.1, 4.3",
        "no run flips, crops or uses CIFAR-10; what noise and rotation add is among the remedies",
    ),
    "Each label's best weight is 6, 7, 7, 7 and 5.": (
        "5.2",
        "chosen on the test set of one run; ours are chosen on validation data, seed by seed",
    ),
    "The loss weights restore the balance among all labels.": (
        "5.2",
        "the two groups are compared, since AI3607 gives no measure of the labels' balance",
    ),
    "Throwing most images away may severely influence the accuracy.": (
        "7",
        "no bound is given for severe; the loss itself is judged",
    ),
    "Augmentation fails because it does not enhance the diversity of the data.": (
        "4.3",
        "a cause; beside unchanged copies one sees what diversity adds, not why",
    ),
    "A weighted loss makes the network focus on difficult tasks and learn more from them.": (
        "5.3",
        "an interpretation; the runs tell accuracies, not where a network focuses",
    ),
    "Enormous weights bring huge gradients, hence worse performance.": (
        "5.3",
        "a cause; that large weights cost accuracy is judged, and both divisors are compared",
    ),
    "CNNs win because convolution and pooling suit images, and RNNs suit trajectories.": (
        "6",
        "a cause; the two networks differ in more than that",
    ),
    "The CNN's accuracies, and the size of its change.": (
        "3.2, 6",
        "its numbers are only in a figure that the published text does not give",
    ),
}


def lost(of: Accuracies, model: str) -> pandas.Series:
    """Return what the imbalance took from labels 0-4, by seed."""
    return of(model, "original", "0-4") - of(model, "imbalanced", "0-4")


def regained(of: Accuracies, model: str, condition: str) -> pandas.Series:
    """Return what a condition regains of labels 0-4, less half of what the imbalance took.

    nan where it is not certain that the imbalance took anything.
    """
    loss = lost(of, model)
    if not estimate(loss).low > 0:
        return math.nan * loss
    return of(model, condition, "0-4") - of(model, "imbalanced", "0-4") - loss / 2


def gap(of: Accuracies, model: str, condition: str) -> pandas.Series:
    """Return how far the two groups' accuracies lie apart, by seed."""
    return (of(model, condition, "5-9") - of(model, condition, "0-4")).abs()


@claim("Imbalance lowers the overall accuracy.", "3.2", "original − imbalanced, all")
def imbalance_lowers_all(of: Accuracies, model: str) -> Effects:
    """Compare the first two columns of Table 1."""
    return of(model, "original", "all") - of(model, "imbalanced", "all")


@claim("Imbalance lowers the accuracy of labels 0–4.", "3.2, 7", "original − imbalanced, 0–4")
def imbalance_lowers_0_4(of: Accuracies, model: str) -> Effects:
    """Compare the first two columns of Table 1."""
    return lost(of, model)


@claim("Imbalance raises the accuracy of labels 5–9.", "3.2", "imbalanced − original, 5–9")
def imbalance_raises_5_9(of: Accuracies, model: str) -> Effects:
    """Compare the first two columns of Table 1."""
    return of(model, "imbalanced", "5-9") - of(model, "original", "5-9")


@claim(
    "The change of accuracy is like the CNN's: 0–4 and all fall, 5–9 rise.",
    "3.2",
    "fall of 0–4 and of all, rise of 5–9, each of the two models",
    of_both=True,
)
def change_is_like_the_cnns(of: Accuracies, model: str) -> Effects:
    """Ask whether both models' accuracies change in the same direction."""
    return pandas.DataFrame(
        {
            f"{each}, {label}": sign * (of(each, "imbalanced", label) - of(each, "original", label))
            for each in ("lstm", "cnn")
            for label, sign in (("0-4", -1), ("5-9", 1), ("all", -1))
        }
    )


@claim(
    "Augmentation brings no significant bounce.",
    "4.2",
    "margin − (augmented − imbalanced), all; to 40 % and to 100 %",
    LEFT,
)
def augmentation_brings_no_bounce(of: Accuracies, model: str) -> Effects:
    """Ask whether the overall accuracy gains less than the margin."""
    before = of(model, "imbalanced", "all")
    return pandas.DataFrame(
        {name: margin_of(model) - (of(model, name, "all") - before) for name in AUGMENTED}
    )


@claim(
    "Augmented, labels 0–4 cannot keep up with labels 5–9.",
    "4.2",
    "5–9 − 0–4; to 40 % and to 100 %",
)
def augmented_0_4_cannot_keep_up(of: Accuracies, model: str) -> Effects:
    """Compare the groups in the third and fourth column of Table 1."""
    return pandas.DataFrame(
        {name: of(model, name, "5-9") - of(model, name, "0-4") for name in AUGMENTED}
    )


@claim(
    "Augmentation to 40 % does not restore labels 0–4.",
    "4.3, 7",
    "half of the loss − regained, 0–4",
)
def augmented_40_does_not_restore(of: Accuracies, model: str) -> Effects:
    """Compare the third column of Table 1 with the first two."""
    return -regained(of, model, "augmented_40")


@claim(
    "Augmentation to 100 % does not restore labels 0–4.",
    "4.3, 7",
    "half of the loss − regained, 0–4",
)
def augmented_100_does_not_restore(of: Accuracies, model: str) -> Effects:
    """Compare the fourth column of Table 1 with the first two."""
    return -regained(of, model, "augmented_100")


@claim(
    "Augmentation does not rebalance the groups.",
    "4.3, 7",
    "gap of 5–9 to 0–4 − half of the imbalanced gap; to 40 % and to 100 %",
)
def augmentation_does_not_rebalance(of: Accuracies, model: str) -> Effects:
    """Compare the groups' distance with and without the copies."""
    half = gap(of, model, "imbalanced") / 2
    return pandas.DataFrame({name: gap(of, model, name) - half for name in AUGMENTED})


@claim(
    "Augmented, the accuracy stays below that of the original data.",
    "6",
    "original − augmented, all; to 40 % and to 100 %",
)
def augmented_stays_below_original(of: Accuracies, model: str) -> Effects:
    """Compare the third and fourth column of Table 1 with the first."""
    before = of(model, "original", "all")
    return pandas.DataFrame({name: before - of(model, name, "all") for name in AUGMENTED})


@claim("The weighted loss restores labels 0–4.", "5.2", "regained − half of the loss, 0–4")
def weighting_restores(of: Accuracies, model: str) -> Effects:
    """Compare the last column of Table 1 with the first two."""
    return regained(of, model, "per_label")


@claim(
    "The weighted loss overtakes the plain one on each of labels 0–4.",
    "5.2",
    "weight a label − plain, each of 0 to 4",
)
def weighting_overtakes_on_each(of: Accuracies, model: str) -> Effects:
    """Compare the last column of Table 1 with the second, label by label."""
    return pandas.DataFrame(
        {
            label: of(model, "per_label", label) - of(model, "imbalanced", label)
            for label in map(str, GROUPS["0-4"])
        }
    )


@claim(
    "With the weighted loss most labels keep up with the original data.",
    "5.2",
    "labels within the margin of original, or above − 5 of 10",
    "labels",
)
def most_labels_keep_up(of: Accuracies, model: str) -> Effects:
    """Count the labels of the last column of Table 1 that reach its first column."""
    by_label = pandas.DataFrame(
        {
            label: of(model, "per_label", label) - of(model, "original", label)
            for label in map(str, GROUPS["all"])
        }
    ).dropna()
    return (by_label.round(DECIMALS) >= -margin_of(model)).sum(axis="columns") - len(
        GROUPS["all"]
    ) / 2


@claim(
    "A weight for each label balances the two groups.",
    "5.2",
    "half of the imbalanced gap − the gap, 5–9 against 0–4",
)
def per_label_weights_balance(of: Accuracies, model: str) -> Effects:
    """Compare the groups' distance with and without the weights."""
    return gap(of, model, "imbalanced") / 2 - gap(of, model, "per_label")


@claim(
    "With a reasonable combination of weights the overall accuracy improves.",
    "5.3",
    "weight a label − plain, all",
)
def weights_improve_all(of: Accuracies, model: str) -> Effects:
    """Compare the last column of Table 1 with the second."""
    return of(model, "per_label", "all") - of(model, "imbalanced", "all")


@claim(
    "Labels 5–9 lose accuracy as the weight of 0–4 rises.",
    "5.2",
    "fall for each 1 of weight, 5–9",
    "points a step",
)
def majority_falls_with_weight(of: Accuracies, model: str) -> Effects:
    """Fit a line to each seed's curve in Figure 5."""
    curves = of.over_weights(model, "5-9")
    if curves.empty:
        return pandas.Series(dtype=float)
    slopes = numpy.polyfit(curves.columns.astype(float), curves.to_numpy().T, deg=1)[0]
    return pandas.Series(-slopes, curves.index)


@claim(
    "They lose it slightly: less than labels 0–4 win.",
    "5.2",
    "rise of 0–4 − fall of 5–9, from weight 2 to 10",
)
def majority_falls_slightly(of: Accuracies, model: str) -> Effects:
    """Compare the two curves of Figure 5 from end to end."""
    curves = of.over_weights(model, "0-4") + of.over_weights(model, "5-9")
    return curves[PUBLISHED_WEIGHTS[-1]] - curves[PUBLISHED_WEIGHTS[0]]


@claim(
    "Labels 0–4 are best at weight 7.",
    "5.2",
    "at weight 7 − at every other weight from 2 to 10, 0–4",
)
def the_peak_is_7(of: Accuracies, model: str) -> Effects:
    """Find the peak in Figure 5, on the test set as AI3607 does."""
    curves = of.over_weights(model, "0-4")
    return -curves.drop(columns=PUBLISHED_PEAK).sub(curves[PUBLISHED_PEAK], axis="index")


@claim(
    "Beyond weight 7 the accuracy of labels 0–4 goes down.",
    "5.2",
    "at each weight from 7 to 9 − at the next, 0–4",
)
def minority_falls_after_7(of: Accuracies, model: str) -> Effects:
    """Follow Figure 5 behind the published peak."""
    curves = of.over_weights(model, "0-4")
    after = [weight for weight in PUBLISHED_WEIGHTS if weight >= PUBLISHED_PEAK]
    return pandas.DataFrame(
        {str(weight): curves[weight] - curves[weight + 1] for weight in after[:-1]}
    )


def at_best_lower_less_largest(of: Accuracies, model: str, label: str) -> pandas.Series:
    """Return the accuracy at the lower weight best on validation data, less that at the largest."""
    test = of.over_weights(model, label)
    *lower, largest = test.columns
    best = of.over_weights(model, label, "val")[lower].round(DECIMALS).idxmax(axis="columns")
    at_best = pandas.Series({seed: test.loc[seed, weight] for seed, weight in best.items()})
    return at_best - test[largest]


@claim(
    "The weighted loss is effective in a limited range of weights only.",
    "5.2",
    "at the lower weight best in validation − at the largest, 0–4",
)
def minority_peaks_inside(of: Accuracies, model: str) -> Effects:
    """Look for a fall behind the peak in Figure 5."""
    return at_best_lower_less_largest(of, model, "0-4")


@claim(
    "Large weights cost accuracy overall (up to 10, the largest that AI3607 tries).",
    "5.3",
    "at the lower weight best in validation − at the largest, all",
)
def large_weights_cost(of: Accuracies, model: str) -> Effects:
    """Look for a fall of the overall accuracy at the largest weight."""
    return at_best_lower_less_largest(of, model, "all")


@claim(
    "A weight for each label does better than one for all of 0–4.",
    "7",
    "weight a label − weight 7, all",
)
def per_label_beats_one_weight(of: Accuracies, model: str) -> Effects:
    """Compare Table 1's last column with the published best single weight."""
    return of(model, "per_label", "all") - of(model, "weighted", "all")


@claim(
    "The same, each label's weight being chosen on validation data.",
    "7",
    "validated weight of each label − weight 7, all",
)
def chosen_weights_beat_one_weight(of: Accuracies, model: str) -> Effects:
    """Follow AI3607's procedure, each label's own best weight, but not on the test set."""
    return of(model, "per_label_chosen", "all") - of(model, "weighted", "all")


def others_less_2_3_4(of: Accuracies, model: str, names: Sequence[str]) -> pandas.DataFrame:
    """Return how far every other label lies above each of labels 2, 3 and 4."""
    worst = (2, 3, 4)
    return pandas.DataFrame(
        {
            f"{name}, {other} − {bad}": of(model, name, str(other)) - of(model, name, str(bad))
            for name in names
            for other in GROUPS["all"]
            for bad in worst
            if other not in worst
        }
    )


@claim(
    "Labels 2, 3 and 4 are the worst under imbalance.", "6", "each other label − each of 2, 3, 4"
)
def labels_2_3_4_are_worst(of: Accuracies, model: str) -> Effects:
    """Order the labels in the second column of Table 1."""
    return others_less_2_3_4(of, model, ["imbalanced"])


@claim("They are the worst with augmentation, too.", "6", "each other label − each of 2, 3, 4")
def labels_2_3_4_are_worst_augmented(of: Accuracies, model: str) -> Effects:
    """Order the labels in the third and fourth column of Table 1."""
    return others_less_2_3_4(of, model, AUGMENTED)


@claim(
    "The CNN beats the LSTM in every condition.",
    "6",
    "CNN − LSTM, each of Table 1's conditions, all",
    of_both=True,
)
def cnn_beats_lstm(of: Accuracies, model: str) -> Effects:
    """Compare the models within each condition of Figure 6."""
    return pandas.DataFrame(
        {name: of("cnn", name, "all") - of("lstm", name, "all") for name in TABLE_1}
    )


@claim(
    "Even the best LSTM is below the CNN.",
    "7",
    "CNN − LSTM, even the CNN's worst condition and the LSTM's best, all",
    of_both=True,
)
def best_lstm_is_below_the_cnn(of: Accuracies, model: str) -> Effects:
    """Compare the models across the conditions of Figure 6."""
    return pandas.DataFrame(
        {
            f"{theirs} − {ours}": of("cnn", theirs, "all") - of("lstm", ours, "all")
            for theirs in TABLE_1
            for ours in TABLE_1
        }
    )


def seeds_for(effects: Effects, judgement: Judgement) -> float:
    """Return the seeds that would decide an undecided claim; nan where none or too many would.

    A claim of which some comparison points below zero is decided by the clearest of these, any
    other by its least clear. The means seen are taken for the true ones, so it is a rough guide,
    and more than the seeds that there are.
    """
    table = pandas.DataFrame(effects).dropna()
    if judgement.verdict != UNDECIDED or len(table) < 2:
        return math.nan
    below = table.columns[table.mean() < 0]
    needed = [
        seeds_to_decide(table[name]) or math.inf
        for name in (below if len(below) else table.columns)
    ]
    decisive = min(needed) if len(below) else max(needed)
    return max(decisive, len(table) + 1) if math.isfinite(decisive) else math.nan


def name_deciding(effects: Effects, judgement: Judgement) -> str:
    """Return the name of the comparison that decides; nothing where there is one, or no run."""
    table = pandas.DataFrame(effects)
    several = judgement.n > 0 and table.shape[1] > 1
    return str(table.columns[judgement.deciding]) if several else ""


def judge_claims(gathered: Gathered) -> pandas.DataFrame:
    """Judge every claim for which there are runs, for each model and optimizer.

    A family, within which verdicts are corrected, is the claims about one model with one
    optimizer; those that compare the models belong to the first model's.

    Returns:
        Columns claim, section, model, optimizer, n, effect, low, high, verdict, corrected, p,
        p_corrected, comparisons, deciding (the comparison that effect, low and high are of),
        margin, seeds_to_decide, then sentence, statistic and unit; accuracies as fractions.
    """
    made: list[tuple[dict[str, object], Judgement, tuple[str, str]]] = []
    for optimizer, of in by_optimizer(gathered.conditions):
        for each in CLAIMS:
            for model in [BOTH] if each.of_both else of.models:
                try:
                    effects = each.statistic(of, model)
                except KeyError:  # there are no such runs
                    continue
                margin = margin_of(model) if each.unit == POINTS else None
                judgement = judge(effects, margin)
                row = {
                    "claim": each.name,
                    "section": each.section,
                    "model": model,
                    "optimizer": optimizer,
                    "comparisons": pandas.DataFrame(effects).shape[1],
                    "deciding": name_deciding(effects, judgement),
                    "margin": margin,
                    "seeds_to_decide": seeds_for(effects, judgement),
                    "sentence": each.sentence,
                    "statistic": each.effect,
                    "unit": each.unit,
                }
                family = (of.models[0] if model == BOTH else model, optimizer)
                made.append((row, judgement, family))
    rows: list[dict[str, object]] = []
    for family in dict.fromkeys(family for *_, family in made):
        of_family = [(row, judgement) for row, judgement, theirs in made if theirs == family]
        corrected = correct([judgement for _, judgement in of_family])
        for (row, judgement), in_family in zip(of_family, corrected, strict=True):
            rows.append(
                row
                | {key: getattr(judgement, key) for key in ("n", "effect", "low", "high")}
                | {"verdict": judgement.verdict, "corrected": in_family.verdict}
                | {"p": two_sided(judgement), "p_corrected": in_family.p}
            )
    order = ["claim", "section", "model", "optimizer", "n", "effect", "low", "high", "verdict"]
    order += ["corrected", "p", "p_corrected", "comparisons", "deciding", "margin"]
    order += ["seeds_to_decide"]
    order += ["sentence", "statistic", "unit"]
    return pandas.DataFrame(rows, columns=order)
