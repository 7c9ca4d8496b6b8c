"""What AI3607 says: its numbers, and its sentences as effects that runs can contradict.

``published.yaml`` has both. Effects have a row a seed and a column a comparison, each above zero
where the sentence is true. Runs of equal epochs are compared, as AI3607 trains. The rules and
margins are those of ``docs/protocol.md``. No other module of the report knows AI3607.
"""

from collections.abc import Callable, Iterable
from importlib import resources
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mnist_imbalance.report import stats
from mnist_imbalance.report.stats import DECIMALS, JUDGED, NAN, Effects, estimate, judge

PUBLISHED: dict[str, Any] = yaml.safe_load(
    (resources.files("mnist_imbalance.report") / "published.yaml").read_text(encoding="utf-8")
)
WEIGHTS: list[int] = PUBLISHED["uniform_weights"]
PEAK: int = PUBLISHED["best_uniform_weight"]
OPTIMIZER = "sgd"  # as we read AI3607, which names none
GROUPS = {"0-4": range(5), "5-9": range(5, 10), "all": range(10)}
TABLE_1 = [*PUBLISHED["table_1"]]  # its conditions
AUGMENTED = ["augmented_40", "augmented_100"]
MARGINS = {"lstm": 0.01, "lstm_no_relu": 0.01}  # of "no difference", in accuracy
POINTS, BOTH = "points", "both"
COLUMNS = ["claim", "section", "model", "optimizer", *JUDGED, "comparisons", "deciding", "margin"]
COLUMNS += ["seeds_to_decide", "sentence", "statistic", "unit"]


def margin_of(model: str) -> float:
    """Return the largest difference in accuracy that counts as none, for a model or for both."""
    return MARGINS.get(model, 0.005)


def published_accuracy(condition: str, label: str) -> float:
    """Return an accuracy of Table 1, a group's as the mean of its labels; nan if not in it."""
    own = dict(enumerate(PUBLISHED["table_1"].get(condition, [])))
    labels = GROUPS.get(label, [int(label)] if label.isdigit() else [])
    return float(np.mean([own[n] for n in labels])) if own.keys() >= {*labels} > set() else NAN


def published_in_text(condition: str, label: str) -> float:
    """Return an accuracy that the text states, which differs from Table 1; nan if it does not."""
    names = {"0-4": "labels_0_4", "5-9": "labels_5_9", "all": "overall"}
    return float(PUBLISHED["text"].get(condition, {}).get(names.get(label), NAN))


class Accuracies:
    """Accuracies by seed of one optimizer on one ground; KeyError where there are no such runs."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self.models: list[str] = [*runs.model.unique()]
        self.runs = runs.set_index(["model", "condition", "seed"]).sort_index()

    def __call__(self, model: str, condition: str, label: str, split: str = "test") -> pd.Series:
        """Return accuracies in [0, 1] by seed."""
        return self.runs[f"{split} {label}"].loc[model, condition]

    def difference(self, model: str, first: str, second: str, label: str) -> pd.Series:
        """Return the test accuracy in the first condition less that in the second, by seed."""
        return self(model, first, label) - self(model, second, label)

    def sweep(self, model: str, label: str, split: str = "test") -> pd.DataFrame:
        """Return accuracies by seed and by those of AI3607's weights that were tried."""
        known = self.runs.loc[model].index.unique("condition")
        names = {w: "weighted" + f", loss.minority_weight={w}" * (w != PEAK) for w in WEIGHTS}
        swept = {w: self(model, name, label, split) for w, name in names.items() if name in known}
        if len(swept) < 2:
            raise KeyError("weight")
        return pd.DataFrame(swept).dropna()


def of(names: Iterable[str], effect: Callable[[str], pd.Series]) -> pd.DataFrame:
    """Return an effect of several conditions or labels."""
    return pd.DataFrame({name: effect(name) for name in names})


def regained(a: Accuracies, model: str, condition: str) -> pd.Series:
    """Return what labels 0-4 regain less half of their loss; nan where the loss is not certain."""
    loss = a.difference(model, "original", "imbalanced", "0-4")
    gain = a.difference(model, condition, "imbalanced", "0-4")
    return gain - loss / 2 if estimate(loss).low > 0 else NAN * loss


def gap(a: Accuracies, model: str, condition: str) -> pd.Series:
    """Return how far the two groups lie apart."""
    return (a(model, condition, "5-9") - a(model, condition, "0-4")).abs()


def change_of_groups(a: Accuracies, model: str) -> pd.DataFrame:
    """Return by how much 0-4 and all fall and 5-9 rise under imbalance."""
    signs = pd.Series({"0-4": 1, "5-9": -1, "all": 1})
    falls = of(signs.index, lambda label: a.difference(model, "original", "imbalanced", label))
    return (falls * signs).add_prefix(f"{model}, ")


def keep_up(a: Accuracies, model: str) -> pd.Series:
    """Return how many labels are within the margin of the original data's, or above, less half."""
    by_label = of("0123456789", lambda n: a.difference(model, "per_label", "original", n)).dropna()
    within = by_label.round(DECIMALS) >= -margin_of(model)
    return within.sum(axis="columns") - by_label.shape[1] / 2


def fall_by_weight(a: Accuracies, model: str) -> pd.Series:
    """Return what labels 5-9 lose for each 1 of weight."""
    curves = a.sweep(model, "5-9")
    slopes = np.polyfit(curves.columns.astype(float), curves.to_numpy().T, deg=1)[0]
    return pd.Series(-slopes, curves.index)


def rise_less_fall(a: Accuracies, model: str) -> pd.Series:
    """Return the rise of 0-4 less the fall of 5-9 over the sweep."""
    curves = a.sweep(model, "0-4") + a.sweep(model, "5-9")
    return curves[WEIGHTS[-1]] - curves[WEIGHTS[0]]


def peak_less_others(a: Accuracies, model: str) -> pd.DataFrame:
    """Return the accuracy of 0-4 at the published peak less that at every other weight."""
    curves = a.sweep(model, "0-4")
    return -curves.drop(columns=PEAK).sub(curves[PEAK], axis="index")


def falls_after_peak(a: Accuracies, model: str) -> pd.DataFrame:
    """Return the accuracy of 0-4 at each weight from the peak on less that at the next."""
    curves = a.sweep(model, "0-4")
    return pd.DataFrame({str(w): curves[w] - curves[w + 1] for w in range(PEAK, WEIGHTS[-1])})


def best_less_largest(a: Accuracies, model: str, label: str) -> pd.Series:
    """Return the accuracy at the lower weight best in validation, less that at the largest."""
    test = a.sweep(model, label)
    *lower, largest = test.columns
    best = a.sweep(model, label, "val")[lower].round(DECIMALS).idxmax(axis="columns")
    return pd.Series({s: test.loc[s, w] for s, w in best.items()}, dtype=float) - test[largest]


def others_less_2_3_4(a: Accuracies, model: str, *names: str) -> pd.DataFrame:
    """Return how far every other label lies above each of 2, 3 and 4."""
    effects = {
        f"{name}, {other} − {bad}": a(model, name, other) - a(model, name, bad)
        for name, other, bad in product(names, "0156789", "234")
    }
    return pd.DataFrame(effects)


def cnn_less_lstm(a: Accuracies, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return the CNN's accuracy in some conditions less the LSTM's in others."""
    return pd.DataFrame(
        {f"{cnn} − {lstm}": a("cnn", cnn, "all") - a("lstm", lstm, "all") for cnn, lstm in pairs}
    )


EFFECTS: dict[str, Callable[[Accuracies, str], Effects]] = {  # of the sentences in published.yaml
    "imbalance_lowers_all": lambda a, m: a.difference(m, "original", "imbalanced", "all"),
    "imbalance_lowers_0_4": lambda a, m: a.difference(m, "original", "imbalanced", "0-4"),
    "imbalance_raises_5_9": lambda a, m: a.difference(m, "imbalanced", "original", "5-9"),
    "change_is_like_the_cnns": lambda a, _: pd.concat(
        [change_of_groups(a, m) for m in ("lstm", "cnn")], axis="columns"
    ),
    "augmentation_brings_no_bounce": lambda a, m: of(
        AUGMENTED, lambda name: margin_of(m) - a.difference(m, name, "imbalanced", "all")
    ),
    "augmented_0_4_cannot_keep_up": lambda a, m: of(
        AUGMENTED, lambda name: a(m, name, "5-9") - a(m, name, "0-4")
    ),
    "augmented_40_does_not_restore": lambda a, m: -regained(a, m, "augmented_40"),
    "augmented_100_does_not_restore": lambda a, m: -regained(a, m, "augmented_100"),
    "augmentation_does_not_rebalance": lambda a, m: of(
        AUGMENTED, lambda name: gap(a, m, name) - gap(a, m, "imbalanced") / 2
    ),
    "augmented_stays_below_original": lambda a, m: of(
        AUGMENTED, lambda name: a.difference(m, "original", name, "all")
    ),
    "weighting_restores": lambda a, m: regained(a, m, "per_label"),
    "weighting_overtakes_on_each": lambda a, m: of(
        "01234", lambda label: a.difference(m, "per_label", "imbalanced", label)
    ),
    "most_labels_keep_up": keep_up,
    "per_label_weights_balance": lambda a, m: gap(a, m, "imbalanced") / 2 - gap(a, m, "per_label"),
    "weights_improve_all": lambda a, m: a.difference(m, "per_label", "imbalanced", "all"),
    "majority_falls_with_weight": fall_by_weight,
    "majority_falls_slightly": rise_less_fall,
    "the_peak_is_7": peak_less_others,
    "minority_falls_after_7": falls_after_peak,
    "minority_peaks_inside": lambda a, m: best_less_largest(a, m, "0-4"),
    "large_weights_cost": lambda a, m: best_less_largest(a, m, "all"),
    "per_label_beats_one_weight": lambda a, m: a.difference(m, "per_label", "weighted", "all"),
    "chosen_weights_beat_one_weight": lambda a, m: a.difference(
        m, "per_label_chosen", "weighted", "all"
    ),
    "labels_2_3_4_are_worst": lambda a, m: others_less_2_3_4(a, m, "imbalanced"),
    "labels_2_3_4_are_worst_augmented": lambda a, m: others_less_2_3_4(a, m, *AUGMENTED),
    "cnn_beats_lstm": lambda a, _: of(
        TABLE_1, lambda name: a("cnn", name, "all") - a("lstm", name, "all")
    ),
    "best_lstm_is_below_the_cnn": lambda a, _: cnn_less_lstm(a, product(TABLE_1, TABLE_1)),
}


def judge_claims(
    accuracy: Accuracies, family: str, optimizer: str
) -> list[tuple[dict[str, Any], stats.Judgement]]:
    """Judge the claims about a model; those that compare two models belong to the first one's."""
    rows = []
    for name, claim in PUBLISHED["claims"].items():
        both = claim.get("both_models", False)
        model, unit = BOTH if both else family, claim.get("unit", POINTS)
        if both and family != accuracy.models[0]:
            continue
        try:
            effects = EFFECTS[name](accuracy, model)
        except KeyError:  # there are no such runs
            continue
        margin = margin_of(model) if unit == POINTS else None
        judgement, table = judge(effects, margin), pd.DataFrame(effects)
        several = judgement.n > 0 and table.shape[1] > 1
        row = {"claim": name, "section": claim["section"], "model": model, "optimizer": optimizer}
        row |= {"comparisons": table.shape[1], "margin": margin}
        row |= {"deciding": str(table.columns[judgement.deciding]) if several else ""}
        row |= {"seeds_to_decide": stats.seeds_to_decide(effects, judgement)}
        row |= {"sentence": claim["sentence"], "statistic": claim["statistic"], "unit": unit}
        rows.append((row, judgement))
    return rows
