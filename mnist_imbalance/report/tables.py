"""The report's tables as tidy data frames: a row an estimate, accuracies in [0, 1]."""

import math
from collections.abc import Iterable, Mapping
from operator import sub
from statistics import fmean
from typing import Any

import numpy
import pandas

from mnist_imbalance.published import (
    OPTIMIZER,
    published,
    published_accuracy,
    published_in_text,
)
from mnist_imbalance.report.claims import TABLE_1, name_weight
from mnist_imbalance.report.gather import EPOCHS, REFERENCE, STEPS, VALIDATED, Curve, Gathered
from mnist_imbalance.report.remedies import BY_COUNT
from mnist_imbalance.report.statistics import (
    DECIMALS,
    Estimate,
    estimate,
    estimate_groups,
    predict_one,
    variance_components,
)
from mnist_imbalance.runs import Result
from mnist_imbalance.scores import ALL
from mnist_imbalance.selection import best_minority_weight, best_weights

FEWEST = 3  # crossed seeds of each kind
COMPONENTS = ("choice of images", "initial weights and order", "rest")  # as `Components` has them
HEADLINE = ["original", "imbalanced", "augmented_100", "duplicated_100", f"weighted{BY_COUNT}"]


def table_1(gathered: Gathered) -> pandas.DataFrame:
    """Test accuracy by condition and label, AI3607's LSTM beside ours (its Table 1).

    Of the runs with the optimizer that we read AI3607 with.

    Returns:
        Columns model, condition, label, n, mean, low, high, published, published_in_text,
        difference, ours less published, and low_one and high_one, between which one new run lies
        in 95 % of cases.
    """
    scores = gathered.on(EPOCHS)
    shown = scores[(scores.optimizer == OPTIMIZER) & (scores.scored == "test")]
    shown = shown[shown.condition.isin([*TABLE_1, VALIDATED])]
    by = ["model", "condition", "label"]
    table = estimate_groups(shown, by, "accuracy")
    for column, find in {
        "published": published_accuracy,
        "published_in_text": published_in_text,
    }.items():
        table[column] = [
            find(condition, label) if model == "lstm" else math.nan
            for model, condition, label in table[by].itertuples(index=False)
        ]
    table["difference"] = table["mean"] - table.published
    one = [predict_one(group.accuracy) for _, group in shown.groupby(by, sort=False)]
    return table.assign(low_one=[each.low for each in one], high_one=[each.high for each in one])


def of_groups(gathered: Gathered, ground: str) -> pandas.DataFrame:
    """Return the groups' test accuracies of all runs on one ground."""
    scores = gathered.on(ground)
    return scores[(scores.scored == "test") & ~scores.label.str.isdigit()]


def all_conditions(gathered: Gathered, ground: str = EPOCHS) -> pandas.DataFrame:
    """Test accuracy of the groups in every condition, with every optimizer, on one ground.

    Returns:
        Columns model, optimizer, condition, label, n, mean, low, high.
    """
    by = ["model", "optimizer", "condition", "label"]
    return estimate_groups(of_groups(gathered, ground), by, "accuracy")


def at_equal_steps(gathered: Gathered) -> pandas.DataFrame:
    """Return the same at equal steps."""
    return all_conditions(gathered, STEPS)


def differences(gathered: Gathered) -> pandas.DataFrame:
    """Paired over seeds: every condition's test accuracy less that of ``imbalanced``.

    Returns:
        Columns model, optimizer, condition, label, n, mean, low, high.
    """
    shown = of_groups(gathered, EPOCHS)
    pair = ["model", "optimizer", "label", "seed"]
    base = shown[shown.condition == REFERENCE].set_index(pair).accuracy.rename("base")
    paired = shown[shown.condition != REFERENCE].join(base, on=pair)
    paired = paired.assign(difference=paired.accuracy - paired.base)
    return estimate_groups(paired, ["model", "optimizer", "condition", "label"], "difference")


def weight_sweep(gathered: Gathered) -> pandas.DataFrame:
    """Test accuracy over the weight of the rare labels (AI3607, Figures 4 and 5).

    Returns:
        Columns model, optimizer, normalize (the divisor), weight, label, n, mean, low, high; weight
        1 is the plain loss. Empty where there is no such sweep.
    """
    scores = gathered.on(EPOCHS)
    scores = scores[scores.scored == "test"]
    swept = scores[is_sweep(scores)]
    if not swept.empty:
        plain = scores[scores.condition == REFERENCE].drop(columns="normalize")
        divisors = swept[["model", "optimizer", "normalize"]].drop_duplicates()
        plain = plain.assign(weight=1.0).merge(divisors, on=["model", "optimizer"])
        swept = pandas.concat([plain, swept]).sort_values("weight", kind="stable")
    by = ["model", "optimizer", "normalize", "weight", "label"]
    return estimate_groups(swept, by, "accuracy")


def is_sweep(rows: pandas.DataFrame) -> pandas.Series:
    """Tell which rows are of one weight for labels 0-4 and of nothing else that was changed."""
    one_weight: pandas.Series = rows.weight.astype(float).map(name_weight)
    return rows.condition.str.removesuffix(BY_COUNT) == one_weight


def selection(gathered: Gathered) -> pandas.DataFrame:
    """What choosing weights on the test set, as AI3607 does, adds to the test accuracy.

    Returns:
        Columns model, optimizer, choice, label, n (seeds with which all of AI3607's weights were
        tried), on_validation and on_test (mean test accuracy at the weights chosen there), mean,
        low and high (of their difference, paired over seeds).
    """
    runs = gathered.runs_on(EPOCHS)
    weights = published()["uniform_weights"]
    sweeps = runs[is_sweep(runs) & (runs.normalize == "weight_sum") & runs.weight.isin(weights)]
    rare = gathered.groups[gathered.rare]

    def reached(sweep: Mapping[float, Result], chosen_on: str, choice: str) -> float:
        scored = {weight: getattr(result, chosen_on) for weight, result in sweep.items()}
        best = dict.fromkeys(rare, best_minority_weight(scored, rare))
        if choice == "a weight a label":
            best = dict(enumerate(best_weights(scored, rare)))
        return fmean(sweep[best[label]].test.accuracy_per_label[label] for label in rare)

    rows = []
    for (model, optimizer), swept in sweeps.groupby(["model", "optimizer"], sort=False):
        by_seed = [
            {row.weight: gathered.results[row.config_hash] for row in sweep.itertuples()}
            for _, sweep in swept.groupby("seed")
            if len(sweep) == len(weights)
        ]
        for choice in ("one weight", "a weight a label"):
            on_val, on_test = (
                [reached(sweep, chosen_on, choice) for sweep in by_seed]
                for chosen_on in ("val", "test")
            )
            n, *interval = estimate(map(sub, on_test, on_val))
            if n:
                means = (fmean(on_val), fmean(on_test))
                rows.append((model, optimizer, choice, gathered.rare, n, *means, *interval))
    columns = ["model", "optimizer", "choice", "label", "n", "on_validation", "on_test"]
    return pandas.DataFrame(rows, columns=[*columns, "mean", "low", "high"])


def optimum(gathered: Gathered) -> pandas.DataFrame:
    """Find the weight of the rare labels with the best balanced accuracy on validation data.

    Balanced accuracy is the mean of the labels' own accuracies, so that the two groups count alike.

    Returns:
        Columns model, optimizer, normalize (the divisor), n (seeds with which all weights were
        tried), by_seed (each seed's best weight, the smallest of equals, "7 10 8"), largest (weight
        tried) and at_largest (seeds whose best weight that is).
    """
    runs = gathered.runs_on(EPOCHS)
    runs = runs[is_sweep(runs)]
    by = ["model", "optimizer", "normalize"]
    rows = []
    for keys, sweep in runs.groupby(by, sort=False):
        scores = [gathered.results[key].val for key in sweep.config_hash]
        balanced = sweep.assign(val=[round(each.balanced_accuracy, DECIMALS) for each in scores])
        whole = balanced.pivot(index="seed", columns="weight", values="val").dropna()
        if len(whole) and whole.shape[1] > 1:
            best, largest = whole.idxmax(axis="columns"), whole.columns.max()
            by_seed = " ".join(map("{:g}".format, best))
            rows.append((*keys, len(best), by_seed, largest, sum(best == largest)))
    return pandas.DataFrame(rows, columns=[*by, "n", "by_seed", "largest", "at_largest"])


def is_dead(result: Result, label: int) -> bool:
    """Tell whether a label is lost: under 1 % of its own training images get a positive output.

    Or none of its test images is recognized. Records of schema 1 only tell how many images of any
    label get one; they are counted in place of its own.
    """
    scores = result.train
    positive = scores.positive_of_own or scores.positive
    of_own = sum(scores.confusion[label])
    return positive[label] < of_own / 100 or result.test.accuracy_per_label[label] == 0


def dead_labels(gathered: Gathered) -> pandas.DataFrame:
    """Labels that the output ReLU kills, see `is_dead`.

    Of the imbalanced runs with the plain loss, of models that have such a ReLU, with the seeds that
    every variant of it has.

    Returns:
        Columns model, optimizer, output_relu, output_bias (empty is PyTorch's default), n, mean,
        low, high (of the number of dead labels), by_seed (which they are, "0: 1 4, 1: none") and
        accuracy, the mean test accuracy. Empty where there is one variant only.
    """
    runs = gathered.runs_on(EPOCHS)
    changed = runs.condition.str.replace(r", model\.output_(relu|bias)=[^,]*", "", regex=True)
    runs = runs[(changed == REFERENCE) & runs.output_relu.notna()]
    rows = []
    variant = ["output_relu", "output_bias"]
    for (model, optimizer), of_model in runs.groupby(["model", "optimizer"], sort=False):
        count = len(of_model[variant].drop_duplicates())
        whole = of_model[of_model.groupby("seed").seed.transform("size") == count]
        if count < 2:
            continue
        order = whole.sort_values(variant, ascending=[False, True], na_position="first")
        for keys, shown in order.groupby(variant, sort=False, dropna=False):
            results = [gathered.results[key] for key in shown.sort_values("seed").config_hash]
            dead = [
                [label for label in range(len(r.train_counts)) if is_dead(r, label)]
                for r in results
            ]
            named = [" ".join(map(str, labels)) or "none" for labels in dead]
            said = ", ".join(f"{r.seed}: {n}" for r, n in zip(results, named, strict=True))
            accuracy = estimate(result.test.accuracy for result in results).mean
            rows.append((model, optimizer, *keys, *estimate(map(len, dead)), said, accuracy))
    columns = ["model", "optimizer", *variant, *Estimate._fields, "by_seed", "accuracy"]
    return pandas.DataFrame(rows, columns=columns)


def normalization(gathered: Gathered) -> pandas.DataFrame:
    """The weighted loss divided by the batch's weights or by its images, where both were tried.

    Returns:
        Columns model, optimizer, weight, label, normalize, n, mean, low, high: test accuracy with
        each, and as ``count - weight_sum`` their difference, paired over seeds.
    """
    shown = of_groups(gathered, EPOCHS)
    key = ["model", "optimizer", "weight", "label"]
    wide = shown[is_sweep(shown)].pivot(
        index=[*key, "seed"], columns="normalize", values="accuracy"
    )
    wide = wide.reindex(columns=["weight_sum", "count"]).dropna()
    wide["count - weight_sum"] = wide["count"] - wide["weight_sum"]
    long = wide.reset_index().melt([*key, "seed"], var_name="normalize", value_name="accuracy")
    model, optimizer, label = (
        long[name].astype(str).map(list(dict.fromkeys(shown[name])).index)
        for name in ("model", "optimizer", "label")
    )
    order = [model, optimizer, long.weight, label]
    long = long.iloc[numpy.lexsort([each.to_numpy() for each in reversed(order)])]
    return estimate_groups(long, [*key, "normalize"], "accuracy")


def summed(gathered: Gathered, runs: Iterable[str]) -> numpy.ndarray:
    """Return the sum of some runs' confusion matrices of the test set.

    Args:
        gathered: Finished runs.
        runs: Their config hashes.

    Returns:
        (labels, labels) images, rows the true labels; all zero without runs.
    """
    labels = len(gathered.groups[ALL])
    found = map(gathered.confusion, runs)
    shown = [counts for counts in found if len(counts) == labels]
    total: numpy.ndarray = numpy.array(shown, dtype=int).reshape(-1, labels, labels).sum(axis=0)
    return total


def confusion(gathered: Gathered, model: str, optimizer: str, condition: str) -> numpy.ndarray:
    """Sum the confusion matrices over the seeds of a condition, see `summed`.

    Of runs of as many epochs, as AI3607 trains, each with images of its own seed's choice.
    """
    runs = gathered.runs_on(EPOCHS).set_index(["model", "optimizer", "condition"]).config_hash
    return summed(gathered, runs[runs.index == (model, optimizer, condition)])


def learned(gathered: Gathered, runs: Iterable[str]) -> dict[str, Curve]:
    """Return how some runs learned, by config hash; those without epochs are left out.

    Args:
        gathered: Finished runs.
        runs: Their config hashes.
    """
    return {key: gathered.curves[key] for key in gathered.curves.ordered(runs)}


def learning_curves(gathered: Gathered) -> pandas.DataFrame:
    """Validation accuracy over optimizer steps in the conditions of the headline, at equal steps.

    Returns:
        Columns model, optimizer, condition, label (a group's name), step, n, mean, low and high.
    """
    runs = gathered.runs_on(STEPS)
    runs = runs[runs.condition.isin(HEADLINE)]
    curves = learned(gathered, runs.config_hash)
    shown = dict.fromkeys((gathered.rare, gathered.frequent))  # which may be one
    reached: dict[tuple[Any, ...], list[float]] = {}
    for run in runs[runs.config_hash.isin(curves.keys())].itertuples():
        steps, accuracies = curves[run.config_hash]
        groups = [group for group in shown if group in accuracies]
        of_groups = [accuracies[group].tolist() for group in groups]
        for step, *values in zip(steps.tolist(), *of_groups, strict=True):
            for group, value in zip(groups, values, strict=True):
                key = (run.model, run.optimizer, run.condition, group, step)
                reached.setdefault(key, []).append(value)
    rows = [(*key, *estimate(values)) for key, values in reached.items()]
    columns = ["model", "optimizer", "condition", "label", "step", *Estimate._fields]
    return pandas.DataFrame(rows, columns=columns)


def runs(gathered: Gathered) -> pandas.DataFrame:
    """Every run: what it is, and its accuracies.

    Returns:
        The columns of `Gathered.runs`, then val and test accuracy by group.
    """
    scores = gathered.scores[~gathered.scores.label.str.isdigit()]
    named = scores.assign(name=scores.scored.astype(str) + " " + scores.label.astype(str))
    wide = named.pivot(index="config_hash", columns="name", values="accuracy")
    return gathered.runs.join(wide[list(dict.fromkeys(named.name))], on="config_hash")


def left_out(gathered: Gathered) -> pandas.DataFrame:
    """The runs that stand in no comparison, and why.

    Returns:
        Columns why, model, optimizer, condition, epochs, steps and seeds ("0, 1").
    """
    runs = gathered.runs[gathered.runs.left_out.notna()].rename(columns={"left_out": "why"})
    by = ["why", "model", "optimizer", "condition", "epochs", "steps"]
    rows = [
        (*keys, ", ".join(map(str, sorted(set(group.seed)))))
        for keys, group in runs.groupby(by, sort=False)
    ]
    return pandas.DataFrame(rows, columns=[*by, "seeds"])


def crossed(gathered: Gathered) -> pandas.DataFrame:
    """Return the rare labels' test accuracies in conditions whose seeds were crossed.

    Returns:
        Columns model, optimizer, condition, data_seed, seed and value, a row a run; of each
        condition the largest square of first seeds of which every one is combined with every
        choice of images, `FEWEST` of each at least.
    """
    scores = gathered.scores
    shown = scores[scores[STEPS] & (scores.scored == "test") & (scores.label == gathered.rare)]
    shown = shown.rename(columns={"accuracy": "value"}).dropna(subset="value")
    by = ["model", "optimizer", "condition"]
    keys = [*by, "data_seed", "seed"]
    shown = shown.drop_duplicates(keys)[[*keys, "value"]]
    whole = []
    for _, runs in shown.groupby(by, sort=False):
        apart = runs[runs.data_seed != runs.seed]
        shared = sorted(set(apart.data_seed) & set(apart.seed))
        for size in range(len(shared), FEWEST - 1, -1):
            inside = runs[runs.data_seed.isin(shared[:size]) & runs.seed.isin(shared[:size])]
            if len(inside) == size**2:
                whole.append(inside)
                break
    return pandas.concat(whole) if whole else shown.iloc[:0]


def components(gathered: Gathered) -> pandas.DataFrame:
    """Split the spread of the rare labels' accuracy over crossed seeds (a mixed model, by REML).

    Returns:
        Columns model, optimizer, condition, n (runs), component, sd (accuracy as a fraction) and
        share (of the variance, in [0, 1]). Conditions whose spread cannot be split are left out.
    """
    by = ["model", "optimizer", "condition"]
    rows = []
    for keys, runs in crossed(gathered).groupby(by, sort=False):
        found = variance_components(runs)
        if not math.isnan(found.rest_share):
            parts = zip(COMPONENTS, found[:3], found[3:], strict=True)
            rows += [(*keys, len(runs), *part) for part in parts]
    return pandas.DataFrame(rows, columns=[*by, "n", "component", "sd", "share"])
