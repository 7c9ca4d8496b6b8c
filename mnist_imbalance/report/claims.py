"""What AI3607 says: its sentences as effects by seed, above zero where they are true."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mnist_imbalance.report.stats import DECIMALS, JUDGED, NAN, Effects, estimate, judge


def load(name: str) -> Any:
    """Return the content of a YAML file beside this one."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))


PUBLISHED = load("published.yaml")
WEIGHTS: list[int] = PUBLISHED["uniform_weights"]
PEAK: int = PUBLISHED["best_uniform_weight"]
OPTIMIZER, TRAINING = "sgd", "50 epochs"  # the first as we read AI3607, which names none
GROUPS = {"0-4": [*range(5)], "5-9": [*range(5, 10)], "all": [*range(10)]}
TABLE_1 = [*PUBLISHED["table_1"]]  # its conditions
CONDITIONS = [*TABLE_1, "per_label_chosen"]
AUGMENTED = ["augmented_40", "augmented_100"]
MARGINS = {"lstm": 0.01, "lstm_no_relu": 0.01}  # of "no difference", in accuracy
MODELS = [*MARGINS, "cnn"]
COLUMNS = ["claim", "section", "model", "optimizer", *JUDGED, "comparisons", "deciding", "margin"]
COLUMNS += ["sentence", "statistic", "unit"]


def margin_of(model: str) -> float:
    """Return the largest difference in accuracy that counts as none, for a model or for both."""
    return MARGINS.get(model, 0.005)


def published_accuracy(condition: str, label: str) -> float:
    """Return an accuracy of Table 1, a group's as the mean of its labels; nan if not in it."""
    table = pd.DataFrame(PUBLISHED["table_1"]).get(condition, pd.Series(dtype=float))
    return float(table.reindex(GROUPS.get(label, [int(label)] if label.isdigit() else [])).mean())


class Accuracies:
    """Accuracies by seed of one model and optimizer at one budget; KeyError where no such runs."""

    def __init__(self, runs: pd.DataFrame, model: str) -> None:
        self.runs, self.model, self.margin = runs, model, margin_of(model)

    def __call__(
        self, condition: str, label: str, split: str = "test", model: str = ""
    ) -> pd.Series:
        """Return accuracies in [0, 1] by seed, those of another model if it is named."""
        return self.runs[f"{split} {label}"].loc[model or self.model, condition]

    def difference(self, first: str, second: str, label: str) -> pd.Series:
        """Return the test accuracy in the first condition less that in the second, by seed."""
        return self(first, label) - self(second, label)

    def sweep(self, label: str, split: str = "test") -> pd.DataFrame:
        """Return accuracies by seed and by AI3607's weights, all of which must have been tried."""
        names = {w: f"weighted, loss.minority_weight={w}" for w in WEIGHTS} | {PEAK: "weighted"}
        return pd.DataFrame({w: self(name, label, split) for w, name in names.items()}).dropna()


def effects_by(names: Iterable[str], effect: Callable[[str], pd.Series]) -> pd.DataFrame:
    """Return the effect for each of several conditions or labels."""
    return pd.DataFrame({name: effect(name) for name in names})


def recovery(a: Accuracies, condition: str) -> pd.Series:
    """Return what labels 0-4 recover less half of their loss; nan where the loss is uncertain."""
    loss = a.difference("original", "imbalanced", "0-4")
    gain = a.difference(condition, "imbalanced", "0-4")
    return gain - loss / 2 if estimate(loss).low > 0 else NAN * loss


def gap(a: Accuracies, condition: str) -> pd.Series:
    """Return how far the two groups lie apart."""
    return (a(condition, "5-9") - a(condition, "0-4")).abs()


def change_of_groups(a: Accuracies) -> pd.DataFrame:
    """Return by how much 0-4 and all fall and 5-9 rise under imbalance, with both models."""
    effects = {
        f"{m}, {label}": sign * (a("original", label, model=m) - a("imbalanced", label, model=m))
        for m, (label, sign) in product(("lstm", "cnn"), {"0-4": 1, "5-9": -1, "all": 1}.items())
    }
    return pd.DataFrame(effects)


def keep_up(a: Accuracies) -> pd.Series:
    """Return how many labels are within the margin of the original data's, or above, less half."""
    by_label = effects_by("0123456789", lambda n: a.difference("per_label", "original", n)).dropna()
    return (by_label.round(DECIMALS) >= -a.margin).sum(axis="columns") - by_label.shape[1] / 2


def fall_by_weight(a: Accuracies) -> pd.Series:
    """Return what labels 5-9 lose for each 1 of weight."""
    curves = a.sweep("5-9")
    return pd.Series(-np.polyfit(WEIGHTS, curves.to_numpy().T, deg=1)[0], curves.index)


def best_less_largest(a: Accuracies, label: str) -> pd.Series:
    """Return the accuracy at the lower weight best in validation, less that at the largest."""
    test, (*lower, largest) = a.sweep(label), WEIGHTS
    best = a.sweep(label, "val")[lower].round(DECIMALS).idxmax(axis="columns")
    return pd.Series({s: test.loc[s, w] for s, w in best.items()}, dtype=float) - test[largest]


def others_less_2_3_4(a: Accuracies, *names: str) -> pd.DataFrame:
    """Return how far every other label lies above each of 2, 3 and 4."""
    pairs = product(names, "0156789", "234")
    return pd.DataFrame({f"{n}, {high} − {low}": a(n, high) - a(n, low) for n, high, low in pairs})


def cnn_less_lstm(a: Accuracies) -> pd.DataFrame:
    """Return the CNN's accuracy in each condition of Table 1 less the LSTM's in each."""
    cnn, lstm = ({name: a(name, "all", model=m) for name in TABLE_1} for m in ("cnn", "lstm"))
    return pd.DataFrame({f"{c} − {s}": cnn[c] - lstm[s] for c, s in product(TABLE_1, TABLE_1)})


EFFECTS: dict[str, Callable[[Accuracies], Effects]] = {  # of the sentences in published.yaml
    "imbalance_lowers_all": lambda a: a.difference("original", "imbalanced", "all"),
    "imbalance_lowers_0_4": lambda a: a.difference("original", "imbalanced", "0-4"),
    "imbalance_raises_5_9": lambda a: a.difference("imbalanced", "original", "5-9"),
    "change_is_like_the_cnns": change_of_groups,
    "augmentation_brings_no_bounce": lambda a: effects_by(
        AUGMENTED, lambda name: a.margin - a.difference(name, "imbalanced", "all")
    ),
    "augmented_0_4_cannot_keep_up": lambda a: effects_by(
        AUGMENTED, lambda name: a(name, "5-9") - a(name, "0-4")
    ),
    "augmented_40_does_not_restore": lambda a: -recovery(a, "augmented_40"),
    "augmented_100_does_not_restore": lambda a: -recovery(a, "augmented_100"),
    "augmentation_does_not_rebalance": lambda a: effects_by(
        AUGMENTED, lambda name: gap(a, name) - gap(a, "imbalanced") / 2
    ),
    "augmented_stays_below_original": lambda a: effects_by(
        AUGMENTED, lambda name: a.difference("original", name, "all")
    ),
    "weighting_restores": lambda a: recovery(a, "per_label"),
    "weighting_overtakes_on_each": lambda a: effects_by(
        "01234", lambda label: a.difference("per_label", "imbalanced", label)
    ),
    "most_labels_keep_up": keep_up,
    "per_label_weights_balance": lambda a: gap(a, "imbalanced") / 2 - gap(a, "per_label"),
    "weights_improve_all": lambda a: a.difference("per_label", "imbalanced", "all"),
    "majority_falls_with_weight": fall_by_weight,
    "majority_falls_slightly": lambda a: (a.sweep("0-4") + a.sweep("5-9"))[
        [WEIGHTS[0], WEIGHTS[-1]]
    ].diff(axis=1)[WEIGHTS[-1]],
    "the_peak_is_7": lambda a: (
        a.sweep("0-4").rsub(a.sweep("0-4")[PEAK], axis="index").drop(columns=PEAK)
    ),
    "minority_falls_after_7": lambda a: a.sweep("0-4").diff(-1, axis=1).loc[:, PEAK : WEIGHTS[-2]],
    "minority_peaks_inside": lambda a: best_less_largest(a, "0-4"),
    "large_weights_cost": lambda a: best_less_largest(a, "all"),
    "per_label_beats_one_weight": lambda a: a.difference("per_label", "weighted", "all"),
    "chosen_weights_beat_one_weight": lambda a: a.difference("per_label_chosen", "weighted", "all"),
    "labels_2_3_4_are_worst": lambda a: others_less_2_3_4(a, "imbalanced"),
    "labels_2_3_4_are_worst_augmented": lambda a: others_less_2_3_4(a, *AUGMENTED),
    "cnn_beats_lstm": lambda a: effects_by(
        TABLE_1, lambda name: a(name, "all", model="cnn") - a(name, "all", model="lstm")
    ),
    "best_lstm_is_below_the_cnn": cnn_less_lstm,
}


def judge_claims(a: Accuracies) -> Iterator[dict[str, Any]]:
    """Judge the claims about a model; those that compare two models belong to the LSTM's."""
    for name, claim in PUBLISHED["claims"].items():
        both, unit = claim.get("both_models", False), claim.get("unit", "points")
        model = "both" if both else a.model
        if both and a.model != "lstm":
            continue
        try:
            effects = pd.DataFrame(EFFECTS[name](a))
        except KeyError:  # there are no such runs
            continue
        margin = margin_of(model) if unit == "points" else None
        judgement = judge(effects, margin)
        several = judgement.n > 0 and effects.shape[1] > 1
        row = claim | judgement._asdict() | {"claim": name, "model": model, "unit": unit}
        row |= {"family": a.model, "margin": margin, "comparisons": effects.shape[1]}
        yield row | {"deciding": str(effects.columns[judgement.deciding]) if several else ""}
