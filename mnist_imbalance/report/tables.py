"""The report's tidy tables: a row an estimate, accuracies in [0, 1].

They are made from the runs of `on_grounds`. Its labels and groups are what the records say; the
first group is the rare labels', the second the frequent ones'.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_imbalance.records import table as records
from mnist_imbalance.report import claims as ai3607
from mnist_imbalance.report import methods, stats
from mnist_imbalance.report.claims import Accuracies, margin_of
from mnist_imbalance.report.stats import UNDECIDED, Estimate, estimate, estimates, judge
from mnist_imbalance.report.words import WEIGHT, place

STEPS, EPOCHS = GROUNDS = ("equal steps", "equal epochs")
REFERENCE, ORIGINAL = "imbalanced", "original"
ALL = "all"
CHOSEN_WEIGHTS = "per_label_chosen"  # the loss whose weights the sweep of the same seed chooses
BY_COUNT = ", loss.normalize=count"
NAME = ["model", "optimizer", "condition"]
FAMILY = ["ground", "optimizer", "model"]

MARKS = (0.5, 0.8, 0.95)  # of the loss
REMEDIES = {  # by condition
    REFERENCE: "none",
    ORIGINAL: "all images",
    "duplicated_100": "10 unchanged copies",
    "noise_100": "10 copies, noise alone",
    "rotation_100": "10 copies, rotations alone",
    "augmented_100": "10 copies, noise and rotations",
    "duplicated_40": "4 unchanged copies",
    "augmented_40": "4 copies, noise and rotations",
    "weighted": "weight 7",
    f"weighted{BY_COUNT}": "weight 7, by images",
    f"weighted, {WEIGHT}10{BY_COUNT}": "weight 10, by images",
    "per_label": "a weight for each label",
    f"per_label{BY_COUNT}": "a weight for each label, by images",
}
COPIES, CHANGED, WEIGHTED, PER_LABEL = "duplicated_100", "augmented_100", "weighted", "per_label"
COMPARED = {  # the first condition less the second
    "10 copies: noise and rotations − unchanged": (CHANGED, COPIES),
    "10 copies: noise alone − unchanged": ("noise_100", COPIES),
    "10 copies: rotations alone − unchanged": ("rotation_100", COPIES),
    "10 copies: noise and rotations − rotations alone": (CHANGED, "rotation_100"),
    "10 copies: noise and rotations − noise alone": (CHANGED, "noise_100"),
    "4 copies: noise and rotations − unchanged": ("augmented_40", "duplicated_40"),
    "all images: 10 copies with noise and rotations − as they are": (
        "augmented_original",
        ORIGINAL,
    ),
    "weight 7 − 10 unchanged copies": (WEIGHTED, COPIES),
    "weight 7, by images − 10 unchanged copies": (WEIGHTED + BY_COUNT, COPIES),
    "a weight for each label, by images − 10 unchanged copies": (PER_LABEL + BY_COUNT, COPIES),
    "weight 7: by images − by weights": (WEIGHTED + BY_COUNT, WEIGHTED),
    "a weight for each label: by images − by weights": (PER_LABEL + BY_COUNT, PER_LABEL),
}
HEADLINE = [ORIGINAL, REFERENCE, CHANGED, COPIES, WEIGHTED + BY_COUNT]
SAID = {  # key of a config → column of `on_grounds`
    **{"loss.minority_weight": "weight", "loss.normalize": "normalize", "loss.weights": "weights"},
    **{"model.output_relu": "output_relu", "model.output_bias": "output_bias"},
    "trainer.max_steps": "last_step",
}


def on_grounds(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs without a scheduler, with their accuracies and the grounds they stand on.

    At equal steps stand the runs of as many steps as most runs of the imbalanced set, at equal
    epochs those of as many epochs without a last step. Runs whose rate follows a scheduler are
    compared with one another only, see `methods`. More columns than of `records.table.read` are
    accuracies ("test 3", "val 0-4", "test all"), those of `SAID` and of `GROUNDS`, and left_out,
    why a run stands on no ground.
    """
    runs = runs[np.array(["scheduler._target_" not in config for config in runs.config], bool)]
    config = pd.DataFrame([*runs.config], runs.index).reindex(columns=SAID).rename(columns=SAID)
    for number in ("weight", "output_bias"):
        config[number] = pd.to_numeric(config[number], errors="coerce")
    scores = [records.accuracies(runs, split).add_prefix(f"{split} ") for split in ("val", "test")]
    none = pd.DataFrame(columns=["val all", "test all"] if runs.empty else [])
    runs = pd.concat([runs, config, *scores, none], axis=1)
    runs["condition"] = _named_by_choice(runs)
    cut = pd.Series([methods.is_cut_short(config) for config in runs.config], runs.index, bool)
    by_epochs = runs.last_step.isna()
    epochs, steps = _common_length(runs[~cut], by_epochs[~cut])
    runs[STEPS] = ~cut & (runs.steps == steps)
    runs[EPOCHS] = ~cut & (runs.epochs == epochs) & by_epochs
    twice = runs.duplicated([*NAME, "seed", "data_seed", "epochs", "steps", EPOCHS])
    runs["left_out"] = np.select(
        [cut, twice, ~runs[STEPS] & ~runs[EPOCHS]],
        ["trained on a part of the images", "another run has the same name", "of another length"],
        default="",
    )
    runs.loc[runs.left_out != "", [*GROUNDS]] = False
    return runs.sort_values(
        [*NAME, "seed", "data_seed"], key=place, kind="stable", ignore_index=True
    )


def _named_by_choice(runs: pd.DataFrame) -> pd.Series:
    """Return the conditions; weights that no sweep among the runs chooses are named."""
    free = dict.fromkeys(("loss.minority_weight", "loss.weights", "loss._target_"))
    rest = runs.config.map(lambda config: json.dumps(config | free, sort_keys=True))
    named, swept = runs.condition.copy(), runs[runs.weight.isin(ai3607.WEIGHTS)]
    for at, run in runs[runs.loss == CHOSEN_WEIGHTS].iterrows():
        sweep = swept[rest[swept.index] == rest[at]].sort_values("weight")
        rare, weights = next(iter(run.groups.values())), []
        own = sweep[[f"val {label}" for label in rare]]
        if len(sweep) > 1 and own.notna().all(axis=None):
            best = sweep.weight.iloc[own.to_numpy().argmax(axis=0)]
            chosen = dict.fromkeys(range(len(run.train_counts)), 1.0)
            weights = [*(chosen | dict(zip(rare, best, strict=True))).values()]
        if run.weights != weights:
            named[at] = f"{run.condition}, loss.weights={run.weights}"
    return named


def _common_length(runs: pd.DataFrame, by_epochs: pd.Series) -> tuple[int | None, int | None]:
    """Return the epochs and steps of most runs of the imbalanced set, else the epochs of all."""
    for rows in (runs[by_epochs], runs):
        lengths = rows[rows.condition == REFERENCE].groupby(["epochs", "steps"]).size()
        if len(lengths):
            epochs, steps = max(lengths.index, key=lambda length: (lengths[length], length))
            return epochs if rows is not runs else None, steps
    counts = runs[by_epochs].groupby("epochs").size()
    return max(counts.index, key=lambda n: (counts[n], n), default=None), None


def groups_of(runs: pd.DataFrame) -> dict[str, list[int]]:
    """Return the groups of labels of most runs, but for that of all labels."""
    counts = runs.groups.map(json.dumps).value_counts()
    most = json.loads(counts.index[0]) if len(runs) else {}
    return {name: labels for name, labels in most.items() if name != ALL}


def rare_and_frequent(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the names of the first two groups of labels, ``all`` where there are fewer."""
    rare, frequent, *_ = [*groups_of(runs), ALL, ALL]
    return rare, frequent


def on(runs: pd.DataFrame, ground: str) -> pd.DataFrame:
    """Return the runs on a ground whose images their own seed chose, each name once."""
    shown = runs[runs[ground] & (runs.seed == runs.data_seed)]
    return shown.drop_duplicates([*NAME, "seed"])


def long(runs: pd.DataFrame, only_groups: bool = False) -> pd.DataFrame:
    """Return a row a run and label, group or "all", with its test accuracy."""
    keys, scores = [*NAME, "seed", "weight", "normalize"], runs.filter(regex="^test ")
    scores = scores.rename(columns=lambda column: column.removeprefix("test "))
    scores = scores.filter(regex=r"\D") if only_groups else scores
    table = runs[keys].join(scores)
    table = table.melt(keys, var_name="label", value_name="accuracy", ignore_index=False)
    return table.dropna(subset="accuracy").sort_index(kind="stable")


def families(runs: pd.DataFrame, *grounds: str) -> Iterator[tuple[str, str, str, Accuracies]]:
    """Go through grounds, optimizers and models: verdicts are corrected within each."""
    for ground in grounds:
        for optimizer, shown in on(runs, ground).groupby("optimizer", sort=False):
            accuracy = Accuracies(shown)
            for model in accuracy.models:
                yield ground, str(optimizer), model, accuracy


def restored(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the fraction of the loss on the rare labels that each remedy restores.

    Verdicts: whether it is above each of `MARKS`, and the accuracy not below the original set's.
    """
    (rare, frequent), rows = rare_and_frequent(runs), []
    for ground, optimizer, model, accuracy in families(runs, *GROUNDS):
        for condition, remedy in REMEDIES.items():
            try:
                effects = {
                    "gained": accuracy.difference(model, condition, REFERENCE, rare),
                    "lost": accuracy.difference(model, ORIGINAL, REFERENCE, rare),
                    "below": accuracy.difference(model, ORIGINAL, condition, rare),
                }
            except KeyError:  # there are no such runs
                continue
            shown = {"minority": rare, "majority": frequent, "overall": ALL}
            own = {name: accuracy(model, condition, label) for name, label in shown.items()}
            paired = pd.DataFrame(effects | own).dropna()
            n, *fraction = stats.fieller(paired.gained, paired.lost)
            lost = estimate(paired.lost)[1:]
            certain = np.isfinite(fraction[1]) and lost[1] > 0
            # above zero where more is restored, as certainly as Fieller's interval lies above it
            above = [judge(paired.gained - mark * paired.lost).verdict for mark in MARKS]
            above = above if certain else [UNDECIDED] * len(MARKS)
            not_below = judge(margin_of(model) - paired.below).verdict
            means = paired[[*own]].mean()
            row = (ground, optimizer, model, condition, remedy, n, *lost, *fraction)
            rows.append((*row, *above, not_below, *means, rare, frequent))
    columns = [*FAMILY, "condition", "remedy", "n", "lost", "lost_low", "lost_high", "fraction"]
    columns += ["low", "high", *(f"above_{mark:g}" for mark in MARKS), "not_below_original"]
    columns += ["minority", "majority", "overall", "rare", "frequent"]
    return pd.DataFrame(rows, columns=columns)


def correct(runs: pd.DataFrame, labels: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.bool_]]:
    """Return by config hash which test images are right, (N,), where predictions fit the record."""
    found, predicted = {}, records.predictions(runs)
    for key, confusion in zip(runs.config_hash, runs.test_confusion, strict=True):
        own = predicted.get(key, labels[:0])
        if len(own) != len(labels):
            continue
        counts = np.bincount(len(confusion) * labels + own, minlength=confusion.size)
        if np.array_equal(counts, confusion.ravel()):
            found[key] = own == labels
    return found


def compared(runs: pd.DataFrame, labels: NDArray[np.integer[Any]] | None) -> pd.DataFrame:
    """Compare remedies pair by pair on the rare labels, over seeds and over test images.

    The same difference on the frequent labels and on all is not judged. The labels of the test
    set are (N,), or None where they are unknown.
    """
    (rare, frequent), rows = rare_and_frequent(runs), []
    needed = runs[runs.condition.isin({name for pair in COMPARED.values() for name in pair})]
    right = {} if labels is None else correct(needed, labels)
    minority = np.isin(labels if labels is not None else [], groups_of(runs).get(rare, []))
    for ground, optimizer, model, accuracy in families(runs, *GROUNDS):
        family, margin = [], margin_of(model)
        for comparison, pair in COMPARED.items():
            try:
                effects, *others = (
                    accuracy.difference(model, *pair, label).dropna()
                    for label in (rare, frequent, ALL)
                )
                keys = [accuracy.runs.loc[model, name].config_hash for name in pair]
            except KeyError:  # there are no such runs
                continue
            judgement = judge(effects, margin)
            row: dict[str, Any] = {"ground": ground, "optimizer": optimizer, "model": model}
            row |= {"comparison": comparison, "first": pair[0], "second": pair[1]}
            row |= {"seeds_to_decide": stats.seeds_to_decide(effects, judgement), "margin": margin}
            row |= {"seeds_for_margin": stats.seeds_needed(effects, margin)}
            for name, values in zip(("majority", "overall"), others, strict=True):
                _, row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate(values)
            both = pd.concat(keys, axis=1, join="inner")
            both = both[both.isin(right.keys()).all(axis=1)].sort_index()
            row |= {"n_images": len(both), "rare": rare, "frequent": frequent}
            if labels is not None and len(both):
                first, second = (
                    np.stack([*own.map(right)])[:, minority] for _, own in both.items()
                )
                wide = stats.over_seeds_and_images(first, second, labels[minority])
                row |= {"low_images": wide.low, "high_images": wide.high}
                found = stats.paired_images(first, second)
                row |= dict(zip(("gained", "lost", "p_images"), found, strict=True))
            family.append((row, judgement))
        rows += stats.judged(family)
    columns = [*FAMILY, "comparison", "first", "second", *stats.JUDGED, "margin", "seeds_to_decide"]
    columns += ["seeds_for_margin", "majority", "majority_low", "majority_high", "overall"]
    columns += ["overall_low", "overall_high", "n_images", "low_images", "high_images"]
    columns += ["gained", "lost", "p_images", "rare", "frequent"]
    return pd.DataFrame(rows, columns=columns)


def claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Judge AI3607's claims on runs with its groups; a family is one model's with one optimizer."""
    rows: list[dict[str, Any]] = []
    has_its_groups = {*groups_of(runs)} == {*ai3607.GROUPS} - {ALL}
    for _, optimizer, model, accuracy in families(runs, EPOCHS) if has_its_groups else ():
        rows += stats.judged(ai3607.judge_claims(accuracy, model, optimizer))
    return pd.DataFrame(rows, columns=ai3607.COLUMNS)


def all_conditions(runs: pd.DataFrame, ground: str = EPOCHS) -> pd.DataFrame:
    """Return the test accuracies of the groups in every condition on one ground."""
    return estimates(long(on(runs, ground), only_groups=True), [*NAME, "label"], "accuracy")


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Return every condition's accuracy less that of imbalanced, paired over seeds."""
    rows = long(on(runs, EPOCHS), only_groups=True)
    pair = ["model", "optimizer", "label", "seed"]
    base = rows[rows.condition == REFERENCE].set_index(pair).accuracy.rename("base")
    rows = rows[rows.condition != REFERENCE].join(base, on=pair)
    return estimates(rows.eval("difference = accuracy - base"), [*NAME, "label"], "difference")


def is_sweep(rows: pd.DataFrame) -> pd.Series:
    """Tell which rows are of one weight of the rare labels and of no other change."""
    return rows.condition.str.fullmatch(f"weighted(, {WEIGHT}[^,]*)?({BY_COUNT})?")


def weight_sweep(runs: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracies over the weight of the rare labels; weight 1 is the plain loss."""
    rows = long(on(runs, EPOCHS))
    swept = rows[is_sweep(rows)]
    plain = rows[rows.condition == REFERENCE].drop(columns="normalize").assign(weight=1.0)
    divisors = swept[["model", "optimizer", "normalize"]].drop_duplicates()
    rows = pd.concat([plain.merge(divisors, on=["model", "optimizer"]), swept])
    by = ["model", "optimizer", "normalize", "weight", "label"]
    return estimates(rows.sort_values("weight", kind="stable"), by, "accuracy")


def optimum(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the weight with the best balanced validation accuracy, seed by seed."""
    rows, by = [], ["model", "optimizer", "normalize"]
    shown = on(runs, EPOCHS)
    labels = [column for column in shown if column.removeprefix("val ").isdigit()]
    shown = shown[is_sweep(shown)].assign(balanced=shown[labels].mean(axis=1).round(stats.DECIMALS))
    for keys, sweep in shown.groupby(by, sort=False):
        whole = sweep.pivot(index="seed", columns="weight", values="balanced").dropna()
        if len(whole) and whole.shape[1] > 1:
            best, largest = whole.idxmax(axis="columns"), whole.columns.max()
            by_seed = " ".join(f"{weight:g}" for weight in best)
            rows.append((*keys, len(best), by_seed, largest, (best == largest).sum()))
    return pd.DataFrame(rows, columns=[*by, "n", "by_seed", "largest", "at_largest"])


def selection(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what choosing weights on the test set adds to the rare labels' test accuracy."""
    shown = on(runs, EPOCHS)
    tried = shown.weight.isin(ai3607.WEIGHTS) & (shown.normalize == "weight_sum")
    rows, rare = [], rare_and_frequent(runs)[0]
    labels = groups_of(runs).get(rare, [])
    for keys, swept in shown[is_sweep(shown) & tried].groupby(NAME[:2], sort=False):
        found: dict[str, list[list[float]]] = {"one weight": [], "a weight a label": []}
        for _, sweep in swept.sort_values("weight").groupby("seed"):
            if len(sweep) < len(ai3607.WEIGHTS):
                continue
            val, test = (sweep[[f"{s} {n}" for n in labels]].to_numpy() for s in ("val", "test"))
            found["one weight"].append([test[s.mean(axis=1).argmax()].mean() for s in (val, test)])
            own = [test[s.argmax(axis=0), range(len(labels))].mean() for s in (val, test)]
            found["a weight a label"].append(own)
        for choice, pairs in found.items():
            if pairs:
                on_val, on_test = np.array(pairs).T
                n, *interval = estimate(on_test - on_val)
                rows.append((*keys, choice, rare, n, on_val.mean(), on_test.mean(), *interval))
    columns = ["model", "optimizer", "choice", "label", "n", "on_validation", "on_test"]
    return pd.DataFrame(rows, columns=[*columns, "mean", "low", "high"])


def normalization(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the weighted loss divided by weights and by images, and their paired difference."""
    rows = long(on(runs, EPOCHS), only_groups=True)
    key = ["model", "optimizer", "weight", "label"]
    wide = rows[is_sweep(rows)].pivot(index=[*key, "seed"], columns="normalize", values="accuracy")
    wide = wide.reindex(columns=["weight_sum", "count"]).dropna()
    wide["count - weight_sum"] = wide["count"] - wide["weight_sum"]
    table = wide.reset_index().melt([*key, "seed"], var_name="normalize", value_name="accuracy")
    order = [*dict.fromkeys(rows.label)]
    table["label"] = pd.Categorical(table.label, order, ordered=True)
    table = table.sort_values(key, key=place, kind="stable").astype({"label": object})
    return estimates(table, [*key, "normalize"], "accuracy")


def dead_labels(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the labels that the output ReLU kills, see `dead_in`, by where its bias starts."""
    shown, rows = on(runs, EPOCHS), []
    plain = shown.condition.str.replace(r", model\.output_(relu|bias)=[^,]*", "", regex=True)
    shown = shown[(plain == REFERENCE) & shown.output_relu.notna()]
    variant = ["output_relu", "output_bias"]
    for keys, variants in shown.groupby(NAME[:2], sort=False):
        count = len(variants[variant].drop_duplicates())
        whole = variants[variants.groupby("seed").seed.transform("size") == count]
        whole = whole.sort_values([*variant, "seed"], na_position="first")
        whole = whole.sort_values("output_relu", ascending=False, kind="stable")
        for values, own in whole.groupby(variant, sort=False, dropna=False) if count > 1 else ():
            dead = [*map(dead_in, own.to_dict("records"))]
            named = [f"{s}: {' '.join(d) or 'none'}" for s, d in zip(own.seed, dead, strict=True)]
            numbers = estimate(map(len, dead))
            rows.append((*keys, *values, *numbers, ", ".join(named), own["test all"].mean()))
    columns = ["model", "optimizer", *variant, *Estimate._fields, "by_seed", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def dead_in(run: dict[str, Any]) -> list[str]:
    """Return the labels without a right test image, or under 1 % of training images positive.

    Records that do not tell a label's own images apart count those of all labels.
    """
    positive = run["train_positive_of_own"]
    positive = run["train_positive"] if positive is None else positive
    own = np.stack(run["train_confusion"]).sum(axis=1)
    labels = range(len(own))
    return [str(n) for n in labels if positive[n] < own[n] / 100 or run[f"test {n}"] == 0]


def table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Return AI3607's Table 1: accuracies, the interval of one new run, and the published ones."""
    rows = long(on(runs, EPOCHS))
    shown = [*ai3607.TABLE_1, CHOSEN_WEIGHTS]
    rows = rows[(rows.optimizer == ai3607.OPTIMIZER) & rows.condition.isin(shown)]
    by = ["model", "condition", "label"]
    table, one = (estimates(rows, by, "accuracy", new_run) for new_run in (False, True))
    for find in (ai3607.published_accuracy, ai3607.published_in_text):
        numbers = pd.Series([*map(find, table.condition, table.label)], table.index, float)
        table[find.__name__.removesuffix("_accuracy")] = numbers.where(table.model == "lstm")
    difference = table["mean"] - table.published
    return table.assign(difference=difference, low_one=one.low, high_one=one.high)


def components(runs: pd.DataFrame) -> pd.DataFrame:
    """Split the variance of the rare labels' accuracy over the largest square of crossed seeds."""
    rows, scored = [], f"test {rare_and_frequent(runs)[0]}"
    sources = ["data_seed", "seed"]
    names = ["choice of images", "initial weights and order", "value"]
    shown = runs[runs[STEPS]].drop_duplicates([*NAME, *sources]).dropna(subset=scored)
    for keys, crossed in shown.groupby(NAME, sort=False):
        apart = crossed[crossed.data_seed != crossed.seed]
        shared = sorted({*apart.data_seed} & {*apart.seed})
        for size in range(len(shared), 2, -1):
            inside = crossed[crossed[sources].isin(shared[:size]).all(axis=1)]
            if len(inside) < size**2:
                continue
            found = stats.components(inside[[*sources, scored]].set_axis(names, axis=1))
            if total := sum(found.values()):
                rows += [(*keys, size**2, name, v**0.5, v / total) for name, v in found.items()]
            break
    return pd.DataFrame(rows, columns=[*NAME, "n", "component", "sd", "share"])


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the validation accuracy of the first two groups by step, of runs with known epochs."""
    keys, shown = ["config_hash", *NAME, "seed"], [*dict.fromkeys(rare_and_frequent(runs))]
    batch_sizes = [config["data.batch_size"] for config in runs.config]
    per_epoch = np.ceil(runs.train_counts.map(sum) / batch_sizes)
    table = records.epochs(runs).query("stage == 'val'")
    table = table.merge(runs[[*keys, "steps"]].assign(per_epoch=per_epoch), on="config_hash")
    table["step"] = ((table.epoch + 1) * table.per_epoch).clip(upper=table.steps).astype(int)
    for name in shown:
        own = [f"accuracy_{label}" for label in groups_of(runs).get(name, [])] or ["accuracy"]
        table[name] = table.reindex(columns=own).mean(axis=1)
    table = table[[*keys, "step", *shown]]
    table = table.melt([*keys, "step"], None, "label", "accuracy", ignore_index=False)
    return table.sort_index(kind="stable", ignore_index=True)


def learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return validation accuracy over optimizer steps in the headline's conditions."""
    shown = on(runs, STEPS)
    table = curves(shown[shown.condition.isin(HEADLINE)])
    return estimates(table, [*NAME, "label", "step"], "accuracy")


def every_run(runs: pd.DataFrame) -> pd.DataFrame:
    """Return every run: what it is, and the accuracies of its groups."""
    columns = [*NAME, "seed", "data_seed", "weight", "normalize", "output_bias", "output_relu"]
    columns += ["epochs", "steps", *GROUNDS, "config_hash", "weights", "left_out"]
    scores = [c for c in runs if re.fullmatch(r"(val|test) (?!\d+$).+", c)]
    return runs[[*columns, *scores]]


def left_out(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that stand in no comparison, and why."""
    by = ["why", *NAME, "epochs", "steps"]
    runs = runs[runs.left_out != ""].rename(columns={"left_out": "why"})
    groups = runs.groupby(by, sort=False).seed
    rows = [(*keys, ", ".join(map(str, sorted({*seeds})))) for keys, seeds in groups]
    return pd.DataFrame(rows, columns=[*by, "seeds"])


def tabulate(
    runs: pd.DataFrame, labels: NDArray[np.integer[Any]] | None = None
) -> dict[str, pd.DataFrame]:
    """Return all tables by name; the test set's labels, (N,), serve to compare image by image."""
    compete, every, runs = methods.tabulate(runs), runs, on_grounds(runs)
    makers = [restored, components, table_1, all_conditions, differences, weight_sweep, selection]
    makers += [optimum, dead_labels, normalization, learning_curves, left_out, claims]
    tables = {make.__name__: make(runs) for make in makers}
    of_methods = (methods.ranked, methods.pairs, methods.metrics, methods.rules)
    tables |= {make.__name__: make(compete) for make in of_methods}
    tables["trainings"] = methods.trainings(compete, every)
    tables |= {"runs": every_run(runs), "compared": compared(runs, labels)}
    return tables | {"at_equal_steps": all_conditions(runs, STEPS)}
