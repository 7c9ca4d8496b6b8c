"""The report's tables as tidy data frames: a row an estimate, accuracies in [0, 1]."""

import math
from collections.abc import Mapping
from math import ceil
from operator import sub
from statistics import fmean

import numpy
import pandas

from mnist_imbalance.labels import GROUPS, MINORITY, NUM_LABELS
from mnist_imbalance.published import published, published_accuracy, published_in_text
from mnist_imbalance.report.claims import TABLE_1, name_weight
from mnist_imbalance.report.gather import EPOCHS, STEPS, Gathered
from mnist_imbalance.report.remedies import BY_COUNT
from mnist_imbalance.report.statistics import Estimate, estimate, estimate_groups, predict_one
from mnist_imbalance.runs import Result, RunFolder
from mnist_imbalance.selection import best_minority_weight, best_weight

HEADLINE = ["original", "imbalanced", "augmented_100", "duplicated_100", f"weighted{BY_COUNT}"]


def table_1(gathered: Gathered) -> pandas.DataFrame:
    """Test accuracy by condition and label, AI3607's LSTM beside ours (its Table 1).

    Returns:
        Columns model, condition, label, n, mean, low, high, published, published_in_text,
        difference, ours less published, and low_one and high_one, between which one new run lies
        in 95 % of cases.
    """
    scores = gathered.conditions
    shown = scores[
        (scores.optimizer == "sgd")
        & (scores.scored == "test")
        & scores.condition.isin([*TABLE_1, "per_label_chosen"])
    ]
    table = estimate_groups(shown, ["model", "condition", "label"], "accuracy")
    for column, find in (
        ("published", published_accuracy),
        ("published_in_text", published_in_text),
    ):
        table[column] = [
            find(row.condition, row.label) if row.model == "lstm" else math.nan
            for row in table.itertuples()
        ]
    table["difference"] = table["mean"] - table.published
    by = ["model", "condition", "label"]
    one = [predict_one(group.accuracy) for _, group in shown.groupby(by, sort=False)]
    return table.assign(low_one=[each.low for each in one], high_one=[each.high for each in one])


def all_conditions(gathered: Gathered) -> pandas.DataFrame:
    """Test accuracy of the groups in every condition, with every optimizer, at equal epochs.

    Returns:
        Columns model, optimizer, condition, label, n, mean, low, high.
    """
    return means(gathered.conditions)


def at_equal_steps(gathered: Gathered) -> pandas.DataFrame:
    """Return the same at equal steps."""
    return means(gathered.on(STEPS))


def means(scores: pandas.DataFrame) -> pandas.DataFrame:
    """Return the mean test accuracy of the groups, over seeds, of every condition."""
    shown = scores[(scores.scored == "test") & scores.label.isin(GROUPS)]
    return estimate_groups(shown, ["model", "optimizer", "condition", "label"], "accuracy")


def differences(gathered: Gathered) -> pandas.DataFrame:
    """Paired over seeds: every condition's test accuracy less that of ``imbalanced``.

    Returns:
        Columns model, optimizer, condition, label, n, mean, low, high.
    """
    scores = gathered.conditions
    shown = scores[(scores.scored == "test") & scores.label.isin(GROUPS)]
    pair = ["model", "optimizer", "label", "seed"]
    base = shown[shown.condition == "imbalanced"].set_index(pair).accuracy.rename("base")
    paired = shown[shown.condition != "imbalanced"].join(base, on=pair)
    paired = paired.assign(difference=paired.accuracy - paired.base)
    return estimate_groups(paired, ["model", "optimizer", "condition", "label"], "difference")


def weight_sweep(gathered: Gathered) -> pandas.DataFrame:
    """Test accuracy over the weight of labels 0-4 (AI3607, Figures 4 and 5).

    Returns:
        Columns model, normalize (the divisor), weight, label, n, mean, low, high; weight 1 is the
        plain loss. Empty where the study has no such sweep.
    """
    scores = gathered.conditions
    scores = scores[(scores.optimizer == "sgd") & (scores.scored == "test")]
    swept = scores[is_sweep(scores)]
    if not swept.empty:
        plain = scores[scores.condition == "imbalanced"]
        plain = pandas.concat(
            [plain.assign(weight=1.0, normalize=divisor) for divisor in swept.normalize.unique()]
        )
        swept = pandas.concat([plain, swept]).sort_values("weight", kind="stable")
    return estimate_groups(swept, ["model", "normalize", "weight", "label"], "accuracy")


def is_sweep(rows: pandas.DataFrame) -> pandas.Series:
    """Tell which rows are of one weight for labels 0-4 and of nothing else that was changed."""
    names = [
        f"{name}{divisor}"
        for name in map(name_weight, rows.weight.astype(float))
        for divisor in ("", BY_COUNT)
    ]
    pairs = zip(names[::2], names[1::2], rows.condition, strict=True)
    return pandas.Series([condition in named for *named, condition in pairs], rows.index)


def reached_with_one_weight(sweep: Mapping[float, Result], chosen_on: str) -> float:
    """Return the test accuracy of labels 0-4 at the weight that is best for them on one set."""
    scored = {weight: getattr(result, chosen_on) for weight, result in sweep.items()}
    return sweep[best_minority_weight(scored)].test.accuracy_0_4


def reached_with_a_weight_a_label(sweep: Mapping[float, Result], chosen_on: str) -> float:
    """Return labels 0-4's mean test accuracy, each at the weight that is best for it on one set."""
    scored = {weight: getattr(result, chosen_on) for weight, result in sweep.items()}
    return fmean(
        sweep[best_weight(scored, label)].test.accuracy_per_label[label] for label in MINORITY
    )


def selection(gathered: Gathered) -> pandas.DataFrame:
    """What choosing weights on the test set, as AI3607 does, adds to the test accuracy.

    Returns:
        Columns model, choice, label, n, on_validation and on_test (mean test accuracy at the
        weights chosen there), mean, low and high (of their difference, paired over seeds).
    """
    runs = gathered.runs
    sweeps = runs[(runs.optimizer == "sgd") & is_sweep(runs) & (runs.normalize == "weight_sum")]
    sweeps = sweeps[sweeps.weight.isin(published()["uniform_weights"])]
    sweeps = sweeps.drop_duplicates("config_hash")
    rows = []
    for model, of_model in sweeps.groupby("model", sort=False):
        complete = [sweep for _, sweep in of_model.groupby("seed") if sweep.finished.all()]
        by_weight = [
            {row.weight: gathered.results[row.config_hash] for row in sweep.itertuples()}
            for sweep in complete
        ]
        for choice, reached in (
            ("one weight", reached_with_one_weight),
            ("a weight a label", reached_with_a_weight_a_label),
        ):
            on_val, on_test = (
                [reached(results, chosen_on) for results in by_weight]
                for chosen_on in ("val", "test")
            )
            difference = estimate(map(sub, on_test, on_val))
            means = [estimate(on_val).mean, estimate(on_test).mean]
            n, *interval = difference
            rows.append([model, choice, "0-4", n, *means, *interval])
    columns = ["model", "choice", "label", "n", "on_validation", "on_test", "mean", "low", "high"]
    return pandas.DataFrame(rows, columns=columns)


def optimum(gathered: Gathered) -> pandas.DataFrame:
    """Find the weight of labels 0-4 with the best balanced accuracy on validation data.

    Balanced accuracy is the mean of the labels' own accuracies, so that the two groups count alike.

    Returns:
        Columns model, normalize (the divisor), n (seeds with which all weights were tried), by_seed
        (each seed's best weight, "7 10 8"), largest (weight tried) and at_largest (seeds whose
        best weight that is).
    """
    runs = gathered.runs
    runs = runs[(runs.optimizer == "sgd") & is_sweep(runs) & runs.finished]
    runs = runs.drop_duplicates("config_hash")
    rows = []
    for (model, divisor), sweep in runs.groupby(["model", "normalize"], sort=False):
        val = [gathered.results[key].val for key in sweep.config_hash]
        balanced = [fmean([each.accuracy_0_4, each.accuracy_5_9]) for each in val]
        by_weight = sweep.assign(val=balanced).pivot(index="seed", columns="weight", values="val")
        whole = by_weight.dropna()
        if whole.empty or whole.shape[1] < 2:
            continue
        best = whole.idxmax(axis="columns")
        rows.append(
            {
                **{"model": model, "normalize": divisor, "n": len(best)},
                "by_seed": " ".join(f"{weight:g}" for weight in best),
                **{"largest": whole.columns.max(), "at_largest": sum(best == whole.columns.max())},
            }
        )
    columns = ["model", "normalize", "n", "by_seed", "largest", "at_largest"]
    return pandas.DataFrame(rows, columns=columns)


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

    Returns:
        Columns output_relu, output_bias (empty is PyTorch's default), n, mean, low, high (of the
        number of dead labels), by_seed (which they are, "0: 1 4, 1: none") and accuracy, the mean
        test accuracy.
    """
    runs = gathered.runs[gathered.runs.experiment == "output_relu"]
    rows = []
    for (relu, bias), variant in runs.groupby(
        ["output_relu", "output_bias"], sort=False, dropna=False
    ):
        results = [gathered.results[key] for key in variant[variant.finished].config_hash]
        dead = [[label for label in range(NUM_LABELS) if is_dead(r, label)] for r in results]
        named = [" ".join(map(str, labels)) or "none" for labels in dead]
        rows.append(
            {
                "output_relu": relu,
                "output_bias": bias,
                **estimate(map(len, dead))._asdict(),
                "by_seed": ", ".join(f"{r.seed}: {n}" for r, n in zip(results, named, strict=True)),
                "accuracy": estimate(result.test.accuracy for result in results).mean,
            }
        )
    return pandas.DataFrame(rows)


def normalization(gathered: Gathered) -> pandas.DataFrame:
    """The weighted loss divided by the batch's weights or by its images, at some weights.

    Returns:
        Columns weight, label, normalize, n, mean, low, high: test accuracy with each, and as
        ``count - weight_sum`` their difference, paired over seeds.
    """
    scores = gathered.scores
    shown = scores[
        (scores.experiment == "normalize") & (scores.scored == "test") & scores.label.isin(GROUPS)
    ]
    by = ["weight", "label", "normalize"]
    each = estimate_groups(shown, by, "accuracy")
    wide = shown.pivot_table(
        index=["weight", "label", "seed"],
        columns="normalize",
        values="accuracy",
        aggfunc="first",
        dropna=False,
    )
    if not {"count", "weight_sum"} <= set(wide.columns):
        return each
    paired = (wide["count"] - wide["weight_sum"]).rename("difference").reset_index()
    paired["normalize"] = "count - weight_sum"
    return pandas.concat([each, estimate_groups(paired, by, "difference")], ignore_index=True)


def confusion(gathered: Gathered, model: str, condition: str) -> numpy.ndarray:
    """Sum the test set's confusion matrices over the seeds of a condition with SGD.

    Of runs of as many epochs, as AI3607 trains, each with images of its own seed's choice.

    Returns:
        (10, 10) images, rows the true labels; all zero where no run is finished.
    """
    runs = gathered.runs
    runs = runs[runs[EPOCHS] & (runs.seed == runs.data_seed)]
    hashes = runs[
        (runs.model == model) & (runs.condition == condition) & (runs.optimizer == "sgd")
    ].config_hash.unique()
    total = numpy.zeros((NUM_LABELS, NUM_LABELS), dtype=int)
    for config_hash in hashes:
        if result := gathered.results.get(config_hash):
            total += numpy.array(result.test.confusion)
    return total


def percent_of_rows(counts: numpy.ndarray) -> numpy.ndarray:
    """Return a confusion matrix as % of each true label's images; nan where there are none."""
    totals = counts.sum(axis=1, keepdims=True)
    return 100 * counts / numpy.where(totals == 0, numpy.nan, totals)


def learning_curves(gathered: Gathered) -> pandas.DataFrame:
    """Validation accuracy over optimizer steps in the conditions of the headline, at equal steps.

    Returns:
        Columns model, optimizer, condition, label ("0-4", "5-9"), step, n, mean, low and high.
    """
    runs = gathered.runs
    runs = runs[runs.finished & runs[STEPS] & (runs.seed == runs.data_seed)]
    runs = runs[runs.condition.isin(HEADLINE)].drop_duplicates("config_hash")
    names = {"accuracy_0_4": "0-4", "accuracy_5_9": "5-9"}
    curves = []
    for row in runs.itertuples():
        metrics = RunFolder(gathered.folders[row.config_hash]).metrics_file
        if not metrics.exists() or not metrics.stat().st_size:
            continue
        result = gathered.results[row.config_hash]
        per_epoch = ceil(sum(result.train_counts) / result.config["data.batch_size"])
        curve = pandas.read_csv(metrics)
        curve = curve[curve.stage == "val"].rename(columns=names)
        curve["step"] = ((curve.epoch + 1) * per_epoch).clip(upper=result.steps)
        named = {key: getattr(row, key) for key in ("model", "optimizer", "condition")}
        curves.append(curve[["step", *names.values()]].assign(**named))
    by = ["model", "optimizer", "condition", "label", "step"]
    if not curves:
        return pandas.DataFrame(columns=[*by, *Estimate._fields])
    long = pandas.concat(curves).melt(["model", "optimizer", "condition", "step"], var_name="label")
    return estimate_groups(long, by, "value")


def runs(gathered: Gathered) -> pandas.DataFrame:
    """Every planned run: what it is, whether it is finished, and its accuracies.

    Returns:
        Columns experiment, model, optimizer, condition, weight, normalize, output_bias,
        output_relu, seed, config_hash, weights, finished, then val and test accuracy by group.
    """
    table = gathered.runs.copy()
    for scored in ("val", "test"):
        for label in GROUPS:
            of_label = gathered.scores[
                (gathered.scores.scored == scored) & (gathered.scores.label == label)
            ]
            table[f"{scored} {label}"] = of_label.accuracy.to_numpy()
    return table
