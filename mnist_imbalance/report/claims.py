"""What AI3607 says, sentence by sentence, each as effects over seeds that runs can contradict.

A claim is a function whose docstring is the sentence. It returns a table of effects, a row a seed
and a column a comparison, each above zero where the sentence is true; `verdicts.judge` says what
follows. AI3607 trains for equal epochs, so these runs
are compared. The rules and margins are those of ``docs/protocol.md``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy
import pandas

from mnist_imbalance.published import GROUPS, published
from mnist_imbalance.report.gather import EPOCHS, Gathered
from mnist_imbalance.report.statistics import DECIMALS, estimate, seeds_to_decide
from mnist_imbalance.report.verdicts import TOLD, UNDECIDED, Judgement, judge, with_verdicts
from mnist_imbalance.selection import SWEPT

TABLE_1 = ["original", "imbalanced", "augmented_40", "augmented_100", "per_label"]
AUGMENTED = ["augmented_40", "augmented_100"]
BOTH = "both"
MARGINS = {"lstm": 0.01, "lstm_no_relu": 0.01}  # of "no difference", as fractions
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

    Where there are no such runs, a KeyError is raised.

    Args:
        scores: As `Gathered.on` returns them.
    """

    def __init__(self, scores: pandas.DataFrame) -> None:
        index = ["model", "condition", "scored", "label", "seed"]
        self.by_condition = scores.set_index(index).accuracy.sort_index()
        conditions = scores[["model", "condition"]].drop_duplicates()
        self.known = set(conditions.itertuples(index=False, name=None))
        self.models = list(scores.model.unique())

    def __call__(
        self, model: str, condition: str, label: str, scored: str = "test"
    ) -> pandas.Series:
        """Return accuracies in [0, 1] by seed."""
        return self.by_condition.loc[model, condition, scored, label]

    def difference(self, model: str, first: str, second: str, label: str) -> pandas.Series:
        """Return the test accuracy in the first condition less that in the second, by seed."""
        return self(model, first, label) - self(model, second, label)

    def over_weights(self, model: str, label: str, scored: str = "test") -> pandas.DataFrame:
        """Return accuracies in [0, 1], a row a seed and a column one of AI3607's weights."""
        named = {weight: name_weight(weight) for weight in PUBLISHED_WEIGHTS}
        swept = {weight: name for weight, name in named.items() if (model, name) in self.known}
        if len(swept) < 2:
            raise KeyError("weight")
        return pandas.DataFrame(
            {weight: self(model, name, label, scored) for weight, name in swept.items()}
        ).dropna()


def families(gathered: Gathered, *grounds: str) -> Iterator[tuple[str, str, str, Accuracies]]:
    """Go through grounds, their optimizers and models: verdicts are corrected within each."""
    for ground in grounds:
        for optimizer, shown in gathered.on(ground).groupby("optimizer", sort=False):
            accuracy = Accuracies(shown)
            for model in accuracy.models:
                yield ground, str(optimizer), model, accuracy


Effects: TypeAlias = pandas.DataFrame | pandas.Series  # rows are seeds, columns are comparisons
Statistic = Callable[[Accuracies, str], Effects]


@dataclass(frozen=True)
class Claim:
    """A sentence of AI3607 that runs can contradict.

    Attributes:
        statistic: Returns the effects.
        section: Of AI3607.
        effect: What the effects are.
        unit: Of the effects.
        of_both: It compares the two models, instead of being about each.
    """

    statistic: Statistic
    section: str
    effect: str
    unit: str
    of_both: bool

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.statistic.__name__

    @property
    def sentence(self) -> str:
        """What is claimed, in our words: the function's docstring."""
        return self.statistic.__doc__ or ""


CLAIMS: list[Claim] = []
POINTS = "points"
LEFT = "points of the margin left"  # of a claim that says "no difference" itself


def claim(
    section: str, effect: str, unit: str = POINTS, of_both: bool = False
) -> Callable[[Statistic], Statistic]:
    """Enter a function among the claims; its docstring is the sentence that it judges."""

    def enter(statistic: Statistic) -> Statistic:
        CLAIMS.append(Claim(statistic, section, effect, unit, of_both))
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


def regained(accuracy: Accuracies, model: str, condition: str) -> pandas.Series:
    """Return what a condition regains of labels 0-4, less half of what the imbalance took.

    nan where it is not certain that the imbalance took anything.
    """
    loss = accuracy.difference(model, "original", "imbalanced", "0-4")
    if not estimate(loss).low > 0:
        return math.nan * loss
    return accuracy.difference(model, condition, "imbalanced", "0-4") - loss / 2


def gap(accuracy: Accuracies, model: str, condition: str) -> pandas.Series:
    """Return how far the two groups' accuracies lie apart, by seed."""
    return (accuracy(model, condition, "5-9") - accuracy(model, condition, "0-4")).abs()


@claim("3.2", "original − imbalanced, all")
def imbalance_lowers_all(accuracy: Accuracies, model: str) -> Effects:
    """Imbalance lowers the overall accuracy."""
    return accuracy.difference(model, "original", "imbalanced", "all")


@claim("3.2, 7", "original − imbalanced, 0–4")
def imbalance_lowers_0_4(accuracy: Accuracies, model: str) -> Effects:
    """Imbalance lowers the accuracy of labels 0–4."""
    return accuracy.difference(model, "original", "imbalanced", "0-4")


@claim("3.2", "imbalanced − original, 5–9")
def imbalance_raises_5_9(accuracy: Accuracies, model: str) -> Effects:
    """Imbalance raises the accuracy of labels 5–9."""
    return accuracy.difference(model, "imbalanced", "original", "5-9")


@claim("3.2", "fall of 0–4 and of all, rise of 5–9, each of the two models", of_both=True)
def change_is_like_the_cnns(accuracy: Accuracies, model: str) -> Effects:
    """The change of accuracy is like the CNN's: 0–4 and all fall, 5–9 rise."""
    return pandas.DataFrame(
        {
            f"{each}, {label}": sign * accuracy.difference(each, "imbalanced", "original", label)
            for each in ("lstm", "cnn")
            for label, sign in (("0-4", -1), ("5-9", 1), ("all", -1))
        }
    )


@claim("4.2", "margin − (augmented − imbalanced), all; to 40 % and to 100 %", LEFT)
def augmentation_brings_no_bounce(accuracy: Accuracies, model: str) -> Effects:
    """Augmentation brings no significant bounce."""
    return pandas.DataFrame(
        {
            name: margin_of(model) - accuracy.difference(model, name, "imbalanced", "all")
            for name in AUGMENTED
        }
    )


@claim("4.2", "5–9 − 0–4; to 40 % and to 100 %")
def augmented_0_4_cannot_keep_up(accuracy: Accuracies, model: str) -> Effects:
    """Augmented, labels 0–4 cannot keep up with labels 5–9."""
    return pandas.DataFrame(
        {name: accuracy(model, name, "5-9") - accuracy(model, name, "0-4") for name in AUGMENTED}
    )


@claim("4.3, 7", "half of the loss − regained, 0–4")
def augmented_40_does_not_restore(accuracy: Accuracies, model: str) -> Effects:
    """Augmentation to 40 % does not restore labels 0–4."""
    return -regained(accuracy, model, "augmented_40")


@claim("4.3, 7", "half of the loss − regained, 0–4")
def augmented_100_does_not_restore(accuracy: Accuracies, model: str) -> Effects:
    """Augmentation to 100 % does not restore labels 0–4."""
    return -regained(accuracy, model, "augmented_100")


@claim("4.3, 7", "gap of 5–9 to 0–4 − half of the imbalanced gap; to 40 % and to 100 %")
def augmentation_does_not_rebalance(accuracy: Accuracies, model: str) -> Effects:
    """Augmentation does not rebalance the groups."""
    half = gap(accuracy, model, "imbalanced") / 2
    return pandas.DataFrame({name: gap(accuracy, model, name) - half for name in AUGMENTED})


@claim("6", "original − augmented, all; to 40 % and to 100 %")
def augmented_stays_below_original(accuracy: Accuracies, model: str) -> Effects:
    """Augmented, the accuracy stays below that of the original data."""
    return pandas.DataFrame(
        {name: accuracy.difference(model, "original", name, "all") for name in AUGMENTED}
    )


@claim("5.2", "regained − half of the loss, 0–4")
def weighting_restores(accuracy: Accuracies, model: str) -> Effects:
    """The weighted loss restores labels 0–4."""
    return regained(accuracy, model, "per_label")


@claim("5.2", "weight a label − plain, each of 0 to 4")
def weighting_overtakes_on_each(accuracy: Accuracies, model: str) -> Effects:
    """The weighted loss overtakes the plain one on each of labels 0–4."""
    return pandas.DataFrame(
        {
            label: accuracy.difference(model, "per_label", "imbalanced", label)
            for label in map(str, GROUPS["0-4"])
        }
    )


@claim("5.2", "labels within the margin of original, or above − 5 of 10", "labels")
def most_labels_keep_up(accuracy: Accuracies, model: str) -> Effects:
    """With the weighted loss most labels keep up with the original data."""
    by_label = pandas.DataFrame(
        {
            label: accuracy.difference(model, "per_label", "original", label)
            for label in map(str, GROUPS["all"])
        }
    ).dropna()
    within = by_label.round(DECIMALS) >= -margin_of(model)
    return within.sum(axis="columns") - by_label.shape[1] / 2


@claim("5.2", "half of the imbalanced gap − the gap, 5–9 against 0–4")
def per_label_weights_balance(accuracy: Accuracies, model: str) -> Effects:
    """A weight for each label balances the two groups."""
    return gap(accuracy, model, "imbalanced") / 2 - gap(accuracy, model, "per_label")


@claim("5.3", "weight a label − plain, all")
def weights_improve_all(accuracy: Accuracies, model: str) -> Effects:
    """With a reasonable combination of weights the overall accuracy improves."""
    return accuracy.difference(model, "per_label", "imbalanced", "all")


@claim("5.2", "fall for each 1 of weight, 5–9", "points a step")
def majority_falls_with_weight(accuracy: Accuracies, model: str) -> Effects:
    """Labels 5–9 lose accuracy as the weight of 0–4 rises."""
    curves = accuracy.over_weights(model, "5-9")
    if curves.empty:
        return pandas.Series(dtype=float)
    slopes = numpy.polyfit(curves.columns.astype(float), curves.to_numpy().T, deg=1)[0]
    return pandas.Series(-slopes, curves.index)


@claim("5.2", "rise of 0–4 − fall of 5–9, from weight 2 to 10")
def majority_falls_slightly(accuracy: Accuracies, model: str) -> Effects:
    """They lose it slightly: less than labels 0–4 win."""
    curves = accuracy.over_weights(model, "0-4") + accuracy.over_weights(model, "5-9")
    return curves[PUBLISHED_WEIGHTS[-1]] - curves[PUBLISHED_WEIGHTS[0]]


@claim("5.2", "at weight 7 − at every other weight from 2 to 10, 0–4")
def the_peak_is_7(accuracy: Accuracies, model: str) -> Effects:
    """Labels 0–4 are best at weight 7."""
    curves = accuracy.over_weights(model, "0-4")
    return -curves.drop(columns=PUBLISHED_PEAK).sub(curves[PUBLISHED_PEAK], axis="index")


@claim("5.2", "at each weight from 7 to 9 − at the next, 0–4")
def minority_falls_after_7(accuracy: Accuracies, model: str) -> Effects:
    """Beyond weight 7 the accuracy of labels 0–4 goes down."""
    curves = accuracy.over_weights(model, "0-4")
    after = [weight for weight in PUBLISHED_WEIGHTS if weight >= PUBLISHED_PEAK]
    return pandas.DataFrame(
        {str(weight): curves[weight] - curves[weight + 1] for weight in after[:-1]}
    )


def at_best_lower_less_largest(accuracy: Accuracies, model: str, label: str) -> pandas.Series:
    """Return the accuracy at the lower weight best on validation data, less that at the largest."""
    test = accuracy.over_weights(model, label)
    *lower, largest = test.columns
    best = accuracy.over_weights(model, label, "val")[lower].round(DECIMALS).idxmax(axis="columns")
    at_best = pandas.Series({seed: test.loc[seed, weight] for seed, weight in best.items()})
    return at_best - test[largest]


@claim("5.2", "at the lower weight best in validation − at the largest, 0–4")
def minority_peaks_inside(accuracy: Accuracies, model: str) -> Effects:
    """The weighted loss is effective in a limited range of weights only."""
    return at_best_lower_less_largest(accuracy, model, "0-4")


@claim("5.3", "at the lower weight best in validation − at the largest, all")
def large_weights_cost(accuracy: Accuracies, model: str) -> Effects:
    """Large weights cost accuracy overall (up to 10, the largest that AI3607 tries)."""
    return at_best_lower_less_largest(accuracy, model, "all")


@claim("7", "weight a label − weight 7, all")
def per_label_beats_one_weight(accuracy: Accuracies, model: str) -> Effects:
    """A weight for each label does better than one for all of 0–4."""
    return accuracy.difference(model, "per_label", "weighted", "all")


@claim("7", "validated weight of each label − weight 7, all")
def chosen_weights_beat_one_weight(accuracy: Accuracies, model: str) -> Effects:
    """The same, each label's weight being chosen on validation data."""
    return accuracy.difference(model, "per_label_chosen", "weighted", "all")


def others_less_2_3_4(accuracy: Accuracies, model: str, names: Sequence[str]) -> pandas.DataFrame:
    """Return how far every other label lies above each of labels 2, 3 and 4."""
    worst = (2, 3, 4)
    return pandas.DataFrame(
        {
            f"{name}, {other} − {bad}": accuracy(model, name, str(other))
            - accuracy(model, name, str(bad))
            for name in names
            for other in GROUPS["all"]
            for bad in worst
            if other not in worst
        }
    )


@claim("6", "each other label − each of 2, 3, 4")
def labels_2_3_4_are_worst(accuracy: Accuracies, model: str) -> Effects:
    """Labels 2, 3 and 4 are the worst under imbalance."""
    return others_less_2_3_4(accuracy, model, ["imbalanced"])


@claim("6", "each other label − each of 2, 3, 4")
def labels_2_3_4_are_worst_augmented(accuracy: Accuracies, model: str) -> Effects:
    """They are the worst with augmentation, too."""
    return others_less_2_3_4(accuracy, model, AUGMENTED)


@claim("6", "CNN − LSTM, each of Table 1's conditions, all", of_both=True)
def cnn_beats_lstm(accuracy: Accuracies, model: str) -> Effects:
    """The CNN beats the LSTM in every condition."""
    return pandas.DataFrame(
        {name: accuracy("cnn", name, "all") - accuracy("lstm", name, "all") for name in TABLE_1}
    )


@claim("7", "CNN − LSTM, even the CNN's worst condition and the LSTM's best, all", of_both=True)
def best_lstm_is_below_the_cnn(accuracy: Accuracies, model: str) -> Effects:
    """Even the best LSTM is below the CNN."""
    return pandas.DataFrame(
        {
            f"{theirs} − {ours}": accuracy("cnn", theirs, "all") - accuracy("lstm", ours, "all")
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
        Columns claim, section, model, optimizer, those of `verdicts.TOLD`, comparisons, deciding
        (the comparison that effect, low and high are of), margin, seeds_to_decide, then sentence,
        statistic and unit; accuracies as fractions.
    """
    rows: list[dict[str, object]] = []
    for _, optimizer, of_family, accuracy in families(gathered, EPOCHS):
        family = []
        for each in CLAIMS:
            if each.of_both and of_family != accuracy.models[0]:
                continue
            model = BOTH if each.of_both else of_family
            try:
                effects = each.statistic(accuracy, model)
            except KeyError:  # there are no such runs
                continue
            margin = margin_of(model) if each.unit == POINTS else None
            judgement = judge(effects, margin)
            row = {
                **{"claim": each.name, "section": each.section},
                **{"model": model, "optimizer": optimizer},
                "comparisons": pandas.DataFrame(effects).shape[1],
                "deciding": name_deciding(effects, judgement),
                **{"margin": margin, "seeds_to_decide": seeds_for(effects, judgement)},
                **{"sentence": each.sentence, "statistic": each.effect, "unit": each.unit},
            }
            family.append((row, judgement))
        rows += with_verdicts(family)
    columns = ["claim", "section", "model", "optimizer", *TOLD, "comparisons", "deciding"]
    columns += ["margin", "seeds_to_decide", "sentence", "statistic", "unit"]
    return pandas.DataFrame(rows, columns=columns)
