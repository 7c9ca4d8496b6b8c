"""The report's claims, each a statistic over seeds that is above zero where the claim holds.

A claim holds if the 95 % interval of its effect, paired over seeds, lies above zero; it does not
hold if the interval reaches nowhere above zero; otherwise it is undecided at this number of seeds.
Of a claim over several comparisons, the smallest counts, in each seed's own runs. "Regained"
compares with what the imbalance took from labels 0-4; half of it is the mark.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy
import pandas

from mnist_imbalance.labels import NUM_LABELS
from mnist_imbalance.published import published
from mnist_imbalance.report.gather import UNIFORM, Gathered
from mnist_imbalance.report.statistics import Estimate, estimate

TABLE_1 = ["original", "imbalanced", "augmented_40", "augmented_100", "weighted"]
BOTH = "both"
PUBLISHED_PEAK = published()["best_uniform_weight"]
PUBLISHED_WEIGHTS = published()["uniform_weights"]
VERDICTS = ["holds", "does not hold", "undecided"]


class Accuracies:
    """Accuracy by seed, of the runs with one optimizer.

    Args:
        scores: As in `Gathered`; one run a model, condition and seed.
    """

    def __init__(self, scores: pandas.DataFrame) -> None:
        index = ["model", "condition", "scored", "label", "seed"]
        self.by_condition = scores.set_index(index).accuracy.sort_index()
        of_sweep = scores.condition.str.fullmatch(UNIFORM) & scores.weight.isin(PUBLISHED_WEIGHTS)
        self.swept = scores[of_sweep]

    def __call__(
        self, model: str, condition: str, label: str, scored: str = "test"
    ) -> pandas.Series:
        """Give accuracies in [0, 1] by seed.

        Raises:
            KeyError: The study has no such runs.
        """
        return self.by_condition.loc[model, condition, scored, label]

    def over_weights(self, model: str, label: str, scored: str = "test") -> pandas.DataFrame:
        """Give accuracies in [0, 1], a row a seed and a column one of the report's weights.

        Raises:
            KeyError: The study has no such runs.
        """
        weights = sorted(self.swept[self.swept.model == model].weight.unique())
        if len(weights) < 2:
            raise KeyError("weight")
        sweep = {weight: self(model, f"weight_{weight:g}", label, scored) for weight in weights}
        return pandas.DataFrame(sweep).dropna()


Statistic = Callable[[Accuracies, str], pandas.Series]


@dataclass(frozen=True)
class Claim:
    """A sentence of the report that runs can contradict.

    Attributes:
        name: Of the function that computes it.
        sentence: What is claimed, in our words.
        section: Of the report.
        effect: What the statistic is.
        unit: Of the effect.
        statistic: The function; it gives the effect by seed.
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


def claim(
    sentence: str, section: str, effect: str, unit: str = "points", of_both: bool = False
) -> Callable[[Statistic], Statistic]:
    """Enter a function among the claims."""

    def enter(statistic: Statistic) -> Statistic:
        name = statistic.__name__
        CLAIMS.append(Claim(name, sentence, section, effect, unit, statistic, of_both))
        return statistic

    return enter


def regained(of: Accuracies, model: str, condition: str) -> pandas.Series:
    """What a condition regains of labels 0-4, less half of what the imbalance took.

    nan where it is not certain that the imbalance took anything.
    """
    imbalanced = of(model, "imbalanced", "0-4")
    lost = of(model, "original", "0-4") - imbalanced
    if estimate(lost).low <= 0:
        return math.nan * lost
    return of(model, condition, "0-4") - imbalanced - lost / 2


@claim("Imbalance lowers the accuracy of labels 0-4.", "3.2", "original − imbalanced, 0-4")
def imbalance_lowers_0_4(of: Accuracies, model: str) -> pandas.Series:
    """Compare the first two columns of Table 1."""
    return of(model, "original", "0-4") - of(model, "imbalanced", "0-4")


@claim("Imbalance raises the accuracy of labels 5-9.", "3.2", "imbalanced − original, 5-9")
def imbalance_raises_5_9(of: Accuracies, model: str) -> pandas.Series:
    """Compare the first two columns of Table 1."""
    return of(model, "imbalanced", "5-9") - of(model, "original", "5-9")


@claim(
    "Augmentation to 40 % does not restore labels 0-4.",
    "4.2",
    "half of what was lost − regained, 0-4",
)
def augmented_40_does_not_restore(of: Accuracies, model: str) -> pandas.Series:
    """Compare the third column of Table 1 with the first two."""
    return -regained(of, model, "augmented_40")


@claim(
    "Augmentation to 100 % does not restore labels 0-4.",
    "4.2",
    "half of what was lost − regained, 0-4",
)
def augmented_100_does_not_restore(of: Accuracies, model: str) -> pandas.Series:
    """Compare the fourth column of Table 1 with the first two."""
    return -regained(of, model, "augmented_100")


@claim("The weighted loss restores labels 0-4.", "5.2", "regained − half of what was lost, 0-4")
def weighting_restores(of: Accuracies, model: str) -> pandas.Series:
    """Compare the last column of Table 1 with the first two."""
    return regained(of, model, "weighted")


@claim(
    "Labels 5-9 lose accuracy as the weight of 0-4 rises.",
    "5.2",
    "fall per step of the weight, 5-9",
    "points a step",
)
def majority_falls_with_weight(of: Accuracies, model: str) -> pandas.Series:
    """Fit a line to each seed's curve in Figure 5."""
    curves = of.over_weights(model, "5-9")
    if curves.empty:
        return pandas.Series(dtype=float)
    slopes = numpy.polyfit(curves.columns.astype(float), curves.to_numpy().T, deg=1)[0]
    return pandas.Series(-slopes, curves.index)


def at_best_lower_less_largest(of: Accuracies, model: str, label: str) -> pandas.Series:
    """Accuracy at the lower weight that is best on validation data, less that at the largest."""
    test = of.over_weights(model, label)
    *lower, largest = test.columns
    best = of.over_weights(model, label, "val")[lower].idxmax(axis="columns")
    at_best = pandas.Series({seed: test.loc[seed, weight] for seed, weight in best.items()})
    return at_best - test[largest]


@claim(
    "Labels 0-4 are best at a weight below the largest tried and fall after it.",
    "5.2",
    "at the lower weight best in validation − at the largest, 0-4",
)
def minority_peaks_inside(of: Accuracies, model: str) -> pandas.Series:
    """Look for a fall behind the peak in Figure 5."""
    return at_best_lower_less_largest(of, model, "0-4")


@claim(
    "Large weights cost accuracy overall.",
    "5.3",
    "at the lower weight best in validation − at the largest, all",
)
def large_weights_cost(of: Accuracies, model: str) -> pandas.Series:
    """Look for a fall of the overall accuracy at the largest weight."""
    return at_best_lower_less_largest(of, model, "all")


@claim("Labels 0-4 are best at weight 7.", "5.2", "at weight 7 − at the best other weight, 0-4")
def the_peak_is_7(of: Accuracies, model: str) -> pandas.Series:
    """Find the peak in Figure 5, on the test set as the report does."""
    curves = of.over_weights(model, "0-4")
    others = curves.drop(columns=PUBLISHED_PEAK)
    return curves[PUBLISHED_PEAK] - others.max(axis="columns")


@claim(
    "Per-label weights balance the two groups.",
    "5.2",
    "half of the imbalanced gap − the gap, 5-9 against 0-4",
)
def per_label_weights_balance(of: Accuracies, model: str) -> pandas.Series:
    """Compare the groups' distance with and without the weights."""

    def gap(condition: str) -> pandas.Series:
        return (of(model, condition, "5-9") - of(model, condition, "0-4")).abs()

    return gap("imbalanced") / 2 - gap("weighted")


@claim(
    "A weight for each label does better than one for all of 0-4.",
    "7",
    "per-label weights − weight 7, all",
)
def per_label_beats_one_weight(of: Accuracies, model: str) -> pandas.Series:
    """Compare Table 1's last column with the report's best single weight."""
    return of(model, "weighted", "all") - of(model, f"weight_{PUBLISHED_PEAK}", "all")


@claim(
    "Labels 2, 3 and 4 are the worst under imbalance.",
    "6",
    "the worst of the others − the best of 2, 3, 4",
)
def labels_2_3_4_are_worst(of: Accuracies, model: str) -> pandas.Series:
    """Order the labels in the second column of Table 1."""
    named = [2, 3, 4]
    by_label = pandas.DataFrame(
        {label: of(model, "imbalanced", str(label)) for label in range(NUM_LABELS)}
    )
    others = by_label.drop(columns=named)
    return others.min(axis="columns") - by_label[named].max(axis="columns")


def in_table_1(of: Accuracies, model: str) -> pandas.DataFrame:
    """Give a model's accuracies in [0, 1], a row a seed and a column a condition of Table 1."""
    return pandas.DataFrame({name: of(model, name, "all") for name in TABLE_1})


@claim(
    "The CNN beats the LSTM in every condition.",
    "6",
    "CNN − LSTM, where that is smallest, all",
    of_both=True,
)
def cnn_beats_lstm(of: Accuracies, model: str) -> pandas.Series:
    """Compare the models within each condition of Figure 6."""
    return (in_table_1(of, "cnn") - in_table_1(of, "lstm")).min(axis="columns", skipna=False)


@claim(
    "Even the best LSTM is below the CNN.",
    "7",
    "CNN where it is worst − LSTM where it is best, all",
    of_both=True,
)
def best_lstm_is_below_the_cnn(of: Accuracies, model: str) -> pandas.Series:
    """Compare the models across the conditions of Figure 6."""
    worst_cnn = in_table_1(of, "cnn").min(axis="columns", skipna=False)
    return worst_cnn - in_table_1(of, "lstm").max(axis="columns", skipna=False)


def judge(effect: Estimate) -> str:
    """Give the verdict over an effect that is above zero where the claim holds."""
    if effect.low > 0:
        return "holds"
    return "does not hold" if effect.high <= 0 else "undecided"


def judge_claims(gathered: Gathered) -> pandas.DataFrame:
    """Judge every claim for which the study has runs, for each model and optimizer.

    Returns:
        Columns claim, section, model, optimizer, n, effect, low, high, verdict, then sentence,
        statistic and unit; accuracies as fractions.
    """
    rows = []
    for optimizer, of_optimizer in gathered.conditions.groupby("optimizer", sort=False):
        of = Accuracies(of_optimizer)
        for made in CLAIMS:
            for model in [BOTH] if made.of_both else of_optimizer.model.unique():
                try:
                    effect = estimate(made.statistic(of, model))
                except KeyError:  # the study asks for no such runs
                    continue
                rows.append(
                    {
                        "claim": made.name,
                        "section": made.section,
                        "model": model,
                        "optimizer": optimizer,
                        **effect._asdict(),
                        "verdict": judge(effect),
                        "sentence": made.sentence,
                        "statistic": made.effect,
                        "unit": made.unit,
                    }
                )
    columns = ["claim", "section", "model", "optimizer", *Estimate._fields, "verdict"]
    columns += ["sentence", "statistic", "unit"]
    return pandas.DataFrame(rows, columns=columns).rename(columns={"mean": "effect"})
