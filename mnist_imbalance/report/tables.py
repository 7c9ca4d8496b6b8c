"""Tidy tables, one row per estimate, accuracies in [0, 1]: of any study's runs, then AI3607's."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_imbalance.records import table as records
from mnist_imbalance.report import claims, ranking, stats
from mnist_imbalance.report.claims import Accuracies
from mnist_imbalance.report.ranking import Known, Tables, groups_of
from mnist_imbalance.report.stats import Estimate, estimate, estimates, judge
from mnist_imbalance.report.words import NAMES, WEIGHT, keep_title, sort_key, title

TRAINED_OUT = "trained further"
STEPS, EPOCHS = BUDGETS = ("equal steps", "equal epochs")
REFERENCE, ORIGINAL, ALL = "imbalanced", ranking.ORIGINAL, ranking.ALL
RARE, FREQUENT, _ = claims.GROUPS
BY_IMAGES = ", loss.normalize=count"
NAME = ["model", "optimizer", "condition"]
FAMILY, RUN = ["ground", "optimizer", "model"], ["model", "condition", "seed"]
ALIKE = ["dataset", "model", "optimizer", "training"]  # in runs of any study that are compared
CONDITION = [*ALIKE, "condition"]
SETTING = ["model", "training", "budget", "optimizer", "rate", "steps", "keep"]
SCORES, ENDS = ["rare", "frequent", "overall", "balanced"], ("", "_low", "_high")
Labels = NDArray[np.integer[Any]]  # of the test set, (N,)

HEADLINE = [ORIGINAL, REFERENCE, "augmented_100", "duplicated_100", f"weighted{BY_IMAGES}"]
CONFIG_COLUMNS = {"loss.minority_weight": "weight", "trainer.max_steps": "last_step"}  # by key


def by_training(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the whole runs of any study, one of each condition and seed, with their training.

    Those of so many epochs also stand beside those of as many steps, if there are any.
    """
    runs = runs.loc[[not ranking.is_cut_short(config) for config in runs.config]]
    by_steps = np.array(["trainer.max_steps" in config for config in runs.config], bool)
    runs = runs.assign(training=[f"{c.get('trainer.max_epochs')} epochs" for c in runs.config])
    as_many = runs.merge(runs[by_steps][[*ALIKE[:3], "steps"]].drop_duplicates())
    as_many["training"] = as_many.steps.map("{:,} steps".format)
    runs = pd.concat([runs[~by_steps], as_many], ignore_index=True)
    names = []
    for name, shared in zip(runs.condition, ranking.shared_parts(runs, ALIKE), strict=True):
        own = ", ".join(part for part in ranking.parts_of(name) if part not in shared)
        names.append(ranking.PLAIN if shared and own == REFERENCE else own)
    runs = runs.assign(condition=names, crossed=runs.seed != runs.data_seed)
    runs = runs.sort_values([*CONDITION, "seed", "crossed"], key=sort_key, ignore_index=True)
    return runs.drop_duplicates([*CONDITION, "seed"])


def to_long(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return test accuracies, one row per run and label, group, "all" or "balanced"."""
    scores = records.accuracies(runs, "test")
    # "all" stands behind the groups of every data set
    scores = scores.reindex(columns=[*scores.columns.drop(ALL, errors="ignore"), ALL])
    scores["balanced"] = scores.filter(regex=r"^\d+$").mean(axis=1)
    table = runs[keys].join(scores).melt(keys, None, "label", "accuracy", ignore_index=False)
    return table.dropna(subset="accuracy").sort_index(kind="stable").astype({"label": str})


def all_conditions(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of every condition of `by_training` on labels and groups."""
    return estimates(to_long(runs, [*CONDITION, "seed"]), [*CONDITION, "label"], "accuracy")


def plain_condition(runs: pd.DataFrame) -> str:
    """Return the condition of most runs with the plain loss, and nothing else but a rate or so."""
    counts = runs.condition[runs.loss == "plain"].value_counts()
    bare = re.compile(rf"[^,=]+(, ({'|'.join(ranking.TRAINING)})[^,]*)*").fullmatch
    usual = (REFERENCE, ranking.PLAIN)
    order = {n: (not n.startswith(usual), -counts[n], len(n)) for n in counts.index if bare(n)}
    return min(order, key=order.__getitem__, default="")


def differences(runs: pd.DataFrame, baseline: str = "") -> pd.DataFrame:
    """Judge conditions by their accuracies less those of a baseline, or `plain_condition`."""
    found, columns = list[dict[str, Any]](), [*CONDITION, "label", "baseline", *stats.JUDGED]
    for keys, own in runs.groupby(ALIKE, sort=False):
        base, margin = baseline or plain_condition(own), claims.margin_of(keys[1])
        wide = to_long(own, ["condition", "seed"]).query("not label.str.isdigit()")
        wide = wide.pivot(index="seed", columns=["condition", "label"], values="accuracy")
        for condition, label in [names for names in wide if (base, names[1]) in wide]:
            effects = judge(wide[condition, label] - wide[base, label], margin)
            row = dict(zip(columns, (*keys, condition, label, base), strict=False))
            found.append(row | effects._asdict())
    found = [row for row in found if row["n"] and row["condition"] != row["baseline"]]
    return stats.apply_holm(found, [*ALIKE, "label"], columns)


def main_set(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on AI3607's data, with its groups of labels and its models."""
    its_groups = [groups == claims.GROUPS for groups in runs.groups]
    return runs.loc[its_groups].query("dataset == @ranking.MNIST and model in @claims.MODELS")


def assign_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `main_set` without a scheduler, and at which budgets each is compared.

    The budgets are the steps and epochs of most runs of the imbalanced set without a last step.
    Adds accuracies ("test 3", "val 0-4", "test all"), `CONFIG_COLUMNS`, ``version`` of this
    package, `BUDGETS`, true or false, and ``left_out``, why a run is in no comparison.
    """
    runs = main_set(runs)
    runs = runs.loc[["scheduler._target_" not in config for config in runs.config]]
    known = {name: [c.get(key) for c in runs.config] for key, name in CONFIG_COLUMNS.items()}
    config = pd.DataFrame(known, runs.index, dtype=float)
    config["version"] = [versions.get("mnist_imbalance") for versions in runs.versions]
    scores = [records.accuracies(runs, split).add_prefix(f"{split} ") for split in ("val", "test")]
    none = pd.DataFrame(columns=["val all", "test all"] if runs.empty else [])
    runs = pd.concat([runs, config, *scores, none], axis=1)
    whole = np.array([not ranking.is_cut_short(config) for config in runs.config], bool)
    by_epochs, usual = runs.last_step.isna(), whole & (runs.condition == REFERENCE)
    common = next(filter(any, (usual & by_epochs, usual)), whole & by_epochs)
    lengths = runs[common].value_counts(["epochs", "steps"]).sort_index(ascending=False)
    epochs, steps = lengths.idxmax() if len(lengths) else (0, 0)  # the longest of equally many
    runs[STEPS] = whole & (runs.steps == steps)
    runs[EPOCHS] = whole & (runs.epochs == epochs) & by_epochs
    order = [*NAME, "seed", "data_seed"]
    twice = runs.duplicated([*order, "epochs", "steps", EPOCHS])
    runs["left_out"] = np.select(
        [~whole, twice, ~runs[STEPS] & ~runs[EPOCHS]],
        ["trained on a part of the images", "another run has the same name", "of another length"],
        default="",
    )
    runs.loc[runs.left_out != "", [*BUDGETS]] = False
    return runs.sort_values(order, key=sort_key, kind="stable", ignore_index=True)


def select_budget(runs: pd.DataFrame, *budgets: str) -> pd.DataFrame:
    """Return the runs at each budget, ``ground``, with data_seed == seed, one per name and seed."""
    own = runs[runs.seed == runs.data_seed]
    shown = pd.concat([own[own[budget]].assign(ground=budget) for budget in budgets])
    return shown.drop_duplicates(["ground", *NAME, "seed"])


def add_scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with `SCORES`: test accuracies on rare, frequent and all images, and balanced."""
    scores = records.accuracies(runs, "test")
    balanced = scores.filter(regex=r"^\d+$").mean(axis=1)
    found = [scores.get(RARE), scores.get(FREQUENT), scores.get(ALL), balanced]
    return runs.assign(**dict(zip(SCORES, found, strict=True)))


def paired(
    runs: pd.DataFrame, by: list[str], sets: Iterable[Sequence[str]]
) -> Iterator[tuple[tuple[Any, ...], Sequence[str], list[pd.DataFrame]]]:
    """Yield for each group and set of conditions that it has their runs by seed, (seeds, scores).

    Columns are `SCORES` and config_hash; all frames have the seeds that all conditions have.
    """
    for keys, own in runs.groupby(by, sort=False):
        wide = own.set_index(["seed", "condition"])[[*SCORES, "config_hash"]].unstack()
        for names in sets:
            if {*names} <= {*own.condition}:
                seeds = wide.loc[:, wide.columns.isin(names, level=1)].dropna()
                yield keys, names, [seeds.xs(name, level=1, axis=1) for name in names]


def restored(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the fraction of the loss on the rare labels that each remedy restores."""
    shown, rows = add_scores(select_budget(runs, *BUDGETS)), []
    sets = [(condition, REFERENCE, ORIGINAL) for condition in NAMES["remedies"]]
    for family, (condition, *_), (own, plain, whole) in paired(shown, FAMILY, sets):
        gained, lost = own.rare - plain.rare, whole.rare - plain.rare
        row = (*family, condition, *stats.fieller(gained, lost), *estimate(own.rare)[1:])
        rows.append((*row, own.frequent.mean(), own.overall.mean()))
    columns = [*FAMILY, "condition", "n", "fraction", "low", "high", "rare", "rare_low"]
    return pd.DataFrame(rows, columns=[*columns, "rare_high", "frequent", "overall"])


def predictions(runs: pd.DataFrame, known: Known) -> dict[str, Labels]:
    """Return by config hash the predicted labels of test images, (N,), if they fit the record."""
    found, kept = dict[str, Labels](), records.predictions(runs)
    for key, confusion, name in runs[["config_hash", "test_confusion", "dataset"]].to_numpy():
        labels, own = known.get(name, ()), kept.get(key, np.array(()))
        if 0 < len(own) == len(labels):
            counts = np.bincount(len(confusion) * labels + own, minlength=confusion.size)
            if np.array_equal(counts, confusion.ravel()):
                found[key] = own
    return found


def compared(runs: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Compare remedies pair by pair on the rare labels, over seeds and over test images."""
    shown, rows = add_scores(select_budget(runs, *BUDGETS)), []
    predicted = predictions(shown[shown.condition.isin(chain(*NAMES["compared"]))], known)
    labels = known.get(ranking.MNIST, np.array([], int))
    is_rare = np.isin(labels, claims.GROUPS[RARE])
    for family, (first, second), both in paired(shown, FAMILY, NAMES["compared"]):
        effects, margin = both[0][SCORES] - both[1][SCORES], claims.margin_of(family[2])
        row = dict(zip(FAMILY, family, strict=True)) | judge(effects.rare, margin)._asdict()
        row |= {"first": first, "second": second, "margin": margin}
        for name in ("frequent", "overall"):
            _, row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate(effects[name])
        fit = both[0].config_hash.isin(predicted) & both[1].config_hash.isin(predicted)
        row["n_images"] = fit.sum()
        if fit.any():
            keys = [own.config_hash[fit] for own in both]
            one, other = (np.stack([predicted[key] == labels for key in own]) for own in keys)
            rare = [own[..., is_rare] for own in (one, other, labels)]
            wide = stats.over_seeds_and_images(*rare)
            row |= {"low_images": wide.low, "high_images": wide.high}
        rows.append(row)
    columns = [*FAMILY, "first", "second", *stats.JUDGED, "margin"]
    columns += [name + end for name in ("frequent", "overall") for end in ENDS]
    return stats.apply_holm(rows, FAMILY, [*columns, "n_images", "low_images", "high_images"])


def judged_claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Judge AI3607's claims; a family is one model's with one optimizer."""
    rows = [
        row | {"optimizer": optimizer}
        for optimizer, own in select_budget(runs, EPOCHS).groupby("optimizer", sort=False)
        for model in own.model.unique()
        for row in claims.judge_claims(Accuracies(own.set_index(RUN).sort_index(), model))
    ]
    return stats.apply_holm(rows, ["optimizer", "family"], claims.COLUMNS)


def weight_sweep(runs: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracies over the weight of the rare labels; weight 1 is the plain loss."""
    rows = to_long(select_budget(runs, EPOCHS), [*NAME, "seed", "weight"])
    rows = rows[rows.label != "balanced"]
    swept = rows[rows.condition.str.fullmatch(f"weighted(, {WEIGHT}[^,]*)?")]
    plain = rows[rows.condition == REFERENCE].assign(weight=1.0)
    plain = plain.merge(swept[["model", "optimizer"]].drop_duplicates())
    rows = pd.concat([plain, swept]).sort_values("weight", kind="stable")
    return estimates(rows, ["model", "optimizer", "weight", "label"], "accuracy")


def table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Return AI3607's Table 1: accuracies, the interval of one new run, and the published ones."""
    shown = "optimizer == @claims.OPTIMIZER and condition in @claims.CONDITIONS"
    rows = to_long(select_budget(runs, EPOCHS).query(shown), [*NAME, "seed"])
    rows = rows[rows.label != "balanced"]
    by = ["model", "condition", "label"]
    table, one = (estimates(rows, by, "accuracy", new_run) for new_run in (False, True))
    published = [*map(claims.published_accuracy, table.condition, table.label)]
    table["published"] = pd.Series(published, dtype=float).where(table.model == "lstm")
    table = table.assign(low_one=one.low, high_one=one.high)
    return table.eval("outside = (published < low_one) | (published > high_one)")


def validation_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the validation accuracy of the groups by step, of runs with known epochs."""
    keys, shown = ["config_hash", *NAME, "seed"], [*groups_of(runs)] or [ALL]
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


def headline_runs(every: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the headline's runs in every `SETTING`: those of both budgets, and of a scheduler.

    Steps are those of the smallest set; runs on all images are repeated for each keep.
    """
    constant = select_budget(runs, *BUDGETS).rename(columns={"ground": "budget"})
    constant["steps"] = constant.groupby("budget").steps.transform("min")
    falling = ranking.select_comparable(main_set(every)).drop_duplicates(ranking.RUN)
    falling = every.loc[falling.index[~falling.method.str.endswith("_again")]]
    table = pd.concat([constant, falling.assign(budget=TRAINED_OUT)], ignore_index=True)
    methods = [", ".join(filter(None, ranking.method_of(name))) for name in table.condition]
    names = pd.Series(methods, dtype=str).replace(ranking.PLAIN, REFERENCE)
    table["condition"] = names.str.removeprefix("data/copies=")
    table["rate"] = [config.get("optimizer.lr") for config in table.config]
    table["keep"] = [*map(ranking.keep_of, table.itertuples())]
    table = add_scores(table)[table.condition.isin(HEADLINE)].dropna(subset="rate")
    table["training"] = [
        f"{title(run.optimizer)} {'falling from' if run.budget == TRAINED_OUT else 'at'} "
        f"{run.rate:g}, {EPOCHS if run.budget == EPOCHS else f'{run.steps:,} steps'}"
        for run in table.itertuples()
    ]
    table = table[["config_hash", "condition", "seed", *SETTING, *SCORES]]
    whole, setting = table.condition == ORIGINAL, table[table.condition == REFERENCE][SETTING]
    repeated = table[whole].drop(columns="keep").merge(setting.drop_duplicates())
    return pd.concat([table[~whole], repeated])


def settings(headline: pd.DataFrame) -> pd.DataFrame:
    """Return in every setting what copies restore, and what augmented copies add to plain ones."""
    rows, four = [], HEADLINE[:4]
    for keys, _, (original, plain, augmented, copied) in paired(headline, SETTING, [four]):
        added, lost = augmented[SCORES] - copied[SCORES], original.rare - plain.rare
        out = not {TRAINED_OUT, "adam"}.isdisjoint(keys)
        row = (*keys, out, len(plain), plain.rare.mean(), *estimate(lost)[1:])
        row = (*row, *stats.fieller(copied.rare - plain.rare, lost)[1:])
        row = (*row, *stats.fieller(augmented.rare - plain.rare, lost)[1:])
        rows.append((*row, *estimate(added.rare)[1:], *estimate(added.balanced)[1:]))
    columns = [*SETTING, "trained_out", "n", "plain"]
    columns += [name + end for name in ("lost", "copies", "augmented") for end in ENDS]
    columns += ["effect", "low", "high", *("balanced" + end for end in ENDS)]
    table = pd.DataFrame(rows, columns=columns).query("n > 1").sort_values("plain")
    table = table.sort_values("keep", key=lambda own: own.map(str), ascending=False, kind="stable")
    return table.sort_values("model", key=sort_key, kind="stable", ignore_index=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return random-effects summaries of what augmented copies add, see `stats.combine`."""
    known, rows = found[found.high > found.low], []
    out = known[known.trained_out.astype(bool)]
    parts = {"all": known, "unfinished": known.drop(out.index), TRAINED_OUT: out}
    for keep, own in out.groupby("keep", sort=False):
        parts[f"{TRAINED_OUT}, {keep_title(keep)}"] = own
    for name, own in parts.items():
        if len(own) > 1:
            clear = (own.low > 0).sum(), (own.high < 0).sum()
            rows.append((name, len(own), *stats.combine(own), *clear))
    columns = ["settings", "n", "mean", "low", "high", "tau", "positive", "negative"]
    return pd.DataFrame(rows, columns=columns)


def restored_curves(every: pd.DataFrame, headline: pd.DataFrame) -> pd.DataFrame:
    """Return the fraction restored of the loss on the rare labels' validation images, by step.

    Runs are compared at the ends of the original set's epochs, where other curves are interpolated,
    and averaged over epochs that are less than half an octave apart.
    """
    shown = headline[headline.keep.isin(headline.keep.mode()[:1]) & (headline.budget != EPOCHS)]
    runs = every[every.config_hash.isin(shown.config_hash)]
    curves, rows = validation_curves(runs), []
    curves = curves[curves.label == RARE].drop(columns=[*NAME, "seed"])
    for keys, own in shown.merge(curves, on="config_hash").groupby(SETTING, sort=False):
        wide = own.pivot(index="step", columns=["condition", "seed"], values="accuracy")
        if not {ORIGINAL, REFERENCE} <= {*own.condition}:
            continue
        wide = wide.interpolate("index", limit_area="inside").loc[wide[ORIGINAL].dropna().index]
        by_seed = wide.stack("seed").reset_index()
        window = 2 * np.log2(by_seed.step / by_seed.step.min()) // 1
        for _, at in by_seed.groupby([window, "seed"]).mean().groupby(level=0):
            for condition in [name for name in HEADLINE[2:] if name in at]:
                seeds = at[[condition, ORIGINAL, REFERENCE]].dropna()
                gained, lost = (seeds[name] - seeds[REFERENCE] for name in (condition, ORIGINAL))
                found = stats.fieller(gained, lost)
                rows.append((*keys[:2], condition, round(at.step.mean()), *found))
    columns = ["model", "training", "condition", "step", *Estimate._fields]
    return pd.DataFrame(rows, columns=columns)


def step_size(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what weight 7 restores beside a step as large, of models trained at several rates."""
    names = [REFERENCE, "weighted", f"weighted{BY_IMAGES}", ORIGINAL]
    plain = runs.condition.str.replace(r", optimizer\.lr=[^,]*", "", regex=True)
    shown = runs.assign(condition=plain)[(runs.optimizer == claims.OPTIMIZER) & plain.isin(names)]
    shown["optimizer"] = [f"{config.get('optimizer.lr')}" for config in shown.config]
    shown = shown[shown.groupby("model").optimizer.transform("nunique") > 1]
    found = restored(shown).query("ground == @STEPS").rename(columns={"optimizer": "rate"})
    columns = ["model", "condition", "rate", "n", "rare", "rare_low", "rare_high"]
    return found[[*columns, "fraction", "low", "high"]].astype({"rate": float})


def learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return validation accuracy over optimizer steps in the headline's conditions."""
    shown = validation_curves(select_budget(runs, STEPS).query("condition in @HEADLINE"))
    return estimates(shown, [*NAME, "label", "step"], "accuracy")


def confusion(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrices of the reference conditions, all seeds together, by cell."""
    shown, rows = select_budget(runs, EPOCHS), []
    groups = {label: name for name, own in groups_of(runs).items() for label in own}
    for names, own in shown[shown.condition.isin([ORIGINAL, REFERENCE])].groupby(NAME, sort=False):
        counts = own.test_confusion.sum()
        for (label, predicted), count in np.ndenumerate(counts):
            rows.append((*names, label, predicted, count, counts[label].sum(), groups.get(label)))
    columns = [*NAME, "true label", "predicted label", "count", "total", "group"]
    return pd.DataFrame(rows, columns=columns)


def all_tables(every: pd.DataFrame, runs: pd.DataFrame, known: Known, baseline: str = "") -> Tables:
    """Return all tables by name: of every run, and AI3607's of `assign_budgets`' runs."""
    makers = [restored, table_1, weight_sweep, learning_curves]
    others = every[~every.config_hash.isin(runs.config_hash)]  # the runs' are read below
    tables = ranking.ranking_tables(others, predictions(others, known), known)
    studied = by_training(every)
    scores = all_conditions(studied)
    by_class = scores[scores.label.str.isdigit()]
    names = {own.dataset: getattr(own, "class_names", ()) for own in studied.itertuples()}
    labels = zip(by_class.dataset.map(names), by_class.label, strict=True)
    by_class.insert(6, "class", [dict(enumerate(own)).get(int(n), n) for own, n in labels])
    tables |= {"all_conditions": scores.drop(by_class.index), "by_class": by_class}
    tables["differences"] = differences(studied, baseline)
    tables |= {make.__name__: make(runs) for make in makers}
    headline = headline_runs(every, runs)
    tables |= {"settings": settings(headline), "restored_curves": restored_curves(every, headline)}
    tables |= {"summary": summary(tables["settings"]), "step_size": step_size(runs)}
    return tables | {"compared": compared(runs, known), "claims": judged_claims(runs)}
