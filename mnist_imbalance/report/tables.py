"""Tidy tables of the runs of `assign_budgets`: one row per estimate, accuracies in [0, 1]."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_imbalance.records import table as records
from mnist_imbalance.report import claims, ranking, stats
from mnist_imbalance.report.claims import Accuracies
from mnist_imbalance.report.ranking import groups_of
from mnist_imbalance.report.stats import Estimate, estimate, estimates, judge
from mnist_imbalance.report.words import NAMES, WEIGHT, keep_title, sort_key, title

TRAINED_OUT = "trained further"
STEPS, EPOCHS = BUDGETS = ("equal steps", "equal epochs")
REFERENCE, ORIGINAL, ALL = "imbalanced", ranking.ORIGINAL, ranking.ALL
BY_IMAGES = ", loss.normalize=count"
NAME = ["model", "optimizer", "condition"]
FAMILY = ["ground", "optimizer", "model"]
SETTING = ["model", "training", "budget", "optimizer", "rate", "steps", "keep"]
SCORES, ENDS = ["rare", "frequent", "overall", "balanced"], ("", "_low", "_high")
Labels = NDArray[np.integer[Any]]  # of the test set, (N,)

HEADLINE = [ORIGINAL, REFERENCE, "augmented_100", "duplicated_100", f"weighted{BY_IMAGES}"]
# columns of runs.csv: what a run is, and the accuracies of its groups
EVERY_RUN = r"^(model|optimizer|condition|(data_)?seed|weight|epochs|steps|equal \w+|config_hash|"
EVERY_RUN += r"version|left_out|(val|test) (?!\d+$).+)$"
CONFIG_COLUMNS = {"loss.minority_weight": "weight", "trainer.max_steps": "last_step"}  # by key


def main_set(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on MNIST, or those on the data set of most runs if there are none."""
    names = [ranking.MNIST, *runs.dataset.mode()]
    return runs[runs.dataset == next((name for name in names if name in {*runs.dataset}), "")]


def assign_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `main_set` without a scheduler, and at which budgets each is compared.

    The budgets are the steps and epochs of most runs of the imbalanced set without a last step.
    Adds to the columns of `records.table.read`: accuracies ("test 3", "val 0-4", "test all");
    `CONFIG_COLUMNS`; ``version`` of this package that trained a run (those of 0.1.0 are older than
    the protocol); `BUDGETS`, true or false; ``left_out``, why a run is in no comparison.
    """
    runs = main_set(runs)
    runs = runs.loc[["scheduler._target_" not in config for config in runs.config]]
    config = pd.DataFrame([*runs.config], runs.index).reindex(columns=CONFIG_COLUMNS)
    config = config.rename(columns=CONFIG_COLUMNS)
    config["version"] = [versions.get("mnist_imbalance") for versions in runs.versions]
    config["weight"] = pd.to_numeric(config.weight, errors="coerce")
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


def rare_and_frequent(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the first two groups of `data.imbalance.label_groups`, "all" where there are fewer."""
    rare, frequent, *_ = [*groups_of(runs), ALL, ALL]
    return rare, frequent


def select_budget(runs: pd.DataFrame, *budgets: str) -> pd.DataFrame:
    """Return the runs at each budget with data_seed == seed, one per name and seed.

    The budget is ``ground``; runs at several budgets are repeated.
    """
    own = runs[runs.seed == runs.data_seed]
    shown = pd.concat([own[own[budget]].assign(ground=budget) for budget in budgets])
    return shown.drop_duplicates(["ground", *NAME, "seed"])


def to_long(runs: pd.DataFrame, only_groups: bool = False) -> pd.DataFrame:
    """Return test accuracies, one row per run and label, group or "all"."""
    keys, shown = [*NAME, "seed", "weight"], r"^test .*\D" if only_groups else "^test "
    scores = runs.filter(regex=shown).rename(columns=lambda name: name.removeprefix("test "))
    table = runs[keys].join(scores).melt(keys, None, "label", "accuracy", ignore_index=False)
    return table.dropna(subset="accuracy").sort_index(kind="stable")


def families(runs: pd.DataFrame, budget: str) -> Iterator[tuple[str, Accuracies]]:
    """Yield accuracies by optimizer and model: verdicts are corrected within each."""
    for optimizer, shown in select_budget(runs, budget).groupby("optimizer", sort=False):
        indexed = shown.set_index(["model", "condition", "seed"]).sort_index()
        for model in shown.model.unique():
            yield str(optimizer), Accuracies(indexed, model)


def add_scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with `SCORES`: test accuracies on rare, frequent and all images, and balanced."""
    scores, (rare, frequent) = records.accuracies(runs, "test"), rare_and_frequent(runs)
    balanced = scores.filter(regex=r"^\d+$").mean(axis=1)
    found = [scores.get(rare), scores.get(frequent), scores.get(ALL), balanced]
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
    """Return the fraction of the loss on the rare labels that each remedy restores.

    Beside it are the accuracies on rare, frequent and all labels, of the same seeds.
    """
    shown, rows = add_scores(select_budget(runs, *BUDGETS)), []
    sets = [(condition, REFERENCE, ORIGINAL) for condition in NAMES["remedies"]]
    for family, (condition, *_), (own, plain, whole) in paired(shown, FAMILY, sets):
        gained, lost = own.rare - plain.rare, whole.rare - plain.rare
        row = (*family, condition, *stats.fieller(gained, lost), *estimate(lost)[1:])
        rows.append((*row, *estimate(own.rare)[1:], own.frequent.mean(), own.overall.mean()))
    columns = [*FAMILY, "condition", "n", "fraction", "low", "high"]
    columns += [name + end for name in ("lost", "rare") for end in ENDS]
    return pd.DataFrame(rows, columns=[*columns, "frequent", "overall"])


def predictions(runs: pd.DataFrame, labels: Labels) -> dict[str, Labels]:
    """Return by config hash the predicted labels of test images, (N,), if they fit the record."""
    found, kept = dict[str, Labels](), records.predictions(runs)
    for key, confusion in zip(runs.config_hash, runs.test_confusion, strict=True):
        own = kept.get(key, labels[:0])
        if len(own) == len(labels):
            counts = np.bincount(len(confusion) * labels + own, minlength=confusion.size)
            if np.array_equal(counts, confusion.ravel()):
                found[key] = own
    return found


def compared(runs: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Compare remedies pair by pair on the rare labels, over seeds and over test images.

    The labels of the test set are (N,), or none where they are unknown.
    """
    shown, rows = add_scores(select_budget(runs, *BUDGETS)), []
    predicted = predictions(shown[shown.condition.isin(chain(*NAMES["compared"]))], labels)
    is_rare = np.isin(labels, groups_of(runs).get(rare_and_frequent(runs)[0], []))
    for family, (first, second), both in paired(shown, FAMILY, NAMES["compared"]):
        effects, margin = both[0][SCORES] - both[1][SCORES], claims.margin_of(family[2])
        row = dict(zip(FAMILY, family, strict=True)) | judge(effects.rare, margin)._asdict()
        row |= {"first": first, "second": second, "margin": margin}
        for name in ("frequent", "overall"):
            _, row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate(effects[name])
        known = both[0].config_hash.isin(predicted) & both[1].config_hash.isin(predicted)
        row["n_images"] = known.sum()
        if known.any():
            keys = [own.config_hash[known] for own in both]
            one, other = (np.stack([predicted[key] == labels for key in own]) for own in keys)
            rare = one[:, is_rare], other[:, is_rare], labels[is_rare]
            wide = stats.over_seeds_and_images(*rare)
            row |= {"low_images": wide.low, "high_images": wide.high}
        rows.append(row)
    columns = [*FAMILY, "first", "second", *stats.JUDGED, "margin"]
    columns += [name + end for name in ("frequent", "overall") for end in ENDS]
    return stats.apply_holm(rows, FAMILY, [*columns, "n_images", "low_images", "high_images"])


def judged_claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Judge AI3607's claims on runs with its groups; a family is one model's with one optimizer."""
    rows: list[dict[str, Any]] = []
    its_own = {*groups_of(runs), *runs.dataset} == {*claims.GROUPS, ranking.MNIST} - {ALL}
    for optimizer, accuracy in families(runs, EPOCHS) if its_own else ():
        rows += claims.judge_claims(accuracy, optimizer)
    return stats.apply_holm(rows, ["optimizer", "family"], claims.COLUMNS)


def all_conditions(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the test accuracies of the groups in every condition at equal epochs."""
    rows = to_long(select_budget(runs, EPOCHS), only_groups=True)
    return estimates(rows, [*NAME, "label"], "accuracy")


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Return every condition's accuracy less that of imbalanced, paired over seeds."""
    rows = to_long(select_budget(runs, EPOCHS), only_groups=True)
    pair = ["model", "optimizer", "label", "seed"]
    base = rows[rows.condition == REFERENCE].set_index(pair).accuracy.rename("base")
    rows = rows[rows.condition != REFERENCE].join(base, on=pair)
    return estimates(rows.eval("difference = accuracy - base"), [*NAME, "label"], "difference")


def weight_sweep(runs: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracies over the weight of the rare labels; weight 1 is the plain loss."""
    rows = to_long(select_budget(runs, EPOCHS))
    swept = rows[rows.condition.str.fullmatch(f"weighted(, {WEIGHT}[^,]*)?")]
    plain = rows[rows.condition == REFERENCE].assign(weight=1.0)
    plain = plain.merge(swept[["model", "optimizer"]].drop_duplicates())
    rows = pd.concat([plain, swept]).sort_values("weight", kind="stable")
    return estimates(rows, ["model", "optimizer", "weight", "label"], "accuracy")


def table_1(runs: pd.DataFrame) -> pd.DataFrame:
    """Return AI3607's Table 1: accuracies, the interval of one new run, and the published ones."""
    shown = "optimizer == @claims.OPTIMIZER and condition in @claims.CONDITIONS"
    rows = to_long(select_budget(runs, EPOCHS).query(shown))
    by = ["model", "condition", "label"]
    table, one = (estimates(rows, by, "accuracy", new_run) for new_run in (False, True))
    published = [*map(claims.published_accuracy, table.condition, table.label)]
    table["published"] = pd.Series(published, dtype=float).where(table.model == "lstm")
    table = table.assign(low_one=one.low, high_one=one.high)
    outside = (table.published < table.low_one) | (table.published > table.high_one)
    return table.assign(outside=outside)


def validation_curves(runs: pd.DataFrame) -> pd.DataFrame:
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


def headline_runs(every: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the headline's runs in every `SETTING`: those of both budgets, and of a scheduler.

    Columns are config_hash, condition, seed, `SETTING`, and `SCORES`. Steps are those of the
    smallest set; runs on all images are repeated for each keep.
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
    table["training"] = [*map(training_of, table.budget, table.optimizer, table.rate, table.steps)]
    table = table[["config_hash", "condition", "seed", *SETTING, *SCORES]]
    whole, setting = table.condition == ORIGINAL, table[table.condition == REFERENCE][SETTING]
    repeated = table[whole].drop(columns="keep").merge(setting.drop_duplicates())
    return pd.concat([table[~whole], repeated])


def training_of(budget: str, optimizer: str, rate: float, steps: int) -> str:
    """Return what a reader calls a training."""
    way, length = "falling from" if budget == TRAINED_OUT else "at", f"{steps:,} steps"
    return f"{title(optimizer)} {way} {rate:g}, {EPOCHS if budget == EPOCHS else length}"


def settings(headline: pd.DataFrame) -> pd.DataFrame:
    """Return in every setting what copies restore, and what augmented copies add to plain ones.

    Differences are paired by seed, and on the rare labels where no others are named.
    """
    rows, four = [], HEADLINE[:4]
    for keys, _, (original, plain, augmented, copied) in paired(headline, SETTING, [four]):
        added, lost = augmented[SCORES] - copied[SCORES], original.rare - plain.rare
        out = not {TRAINED_OUT, "adam"}.isdisjoint(keys)
        row = (*keys, out, len(plain), plain.rare.mean(), *estimate(lost)[1:])
        row = (*row, *stats.fieller(copied.rare - plain.rare, lost)[1:])
        row = (*row, *stats.fieller(augmented.rare - plain.rare, lost)[1:])
        row = (*row, *estimate(added.rare)[1:], added.frequent.mean())
        rows.append((*row, *estimate(added.balanced)[1:]))
    columns = [*SETTING, "trained_out", "n", "plain"]
    columns += [name + end for name in ("lost", "copies", "augmented") for end in ENDS]
    columns += ["effect", "low", "high", "frequent", *("balanced" + end for end in ENDS)]
    table = pd.DataFrame(rows, columns=columns).query("n > 1").sort_values("plain")
    table = table.sort_values("keep", key=lambda own: own.map(str), ascending=False, kind="stable")
    return table.sort_values("model", key=sort_key, kind="stable", ignore_index=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return random-effects summaries of what augmented copies add, see `stats.combine`.

    Settings share seeds and images, so these describe the settings here and no sample of others.
    """
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
    curves = curves[curves.label == rare_and_frequent(runs)[0]].drop(columns=[*NAME, "seed"])
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


def all_tables(every: pd.DataFrame, runs: pd.DataFrame, labels: Labels) -> dict[str, pd.DataFrame]:
    """Return all tables by name: rankings of every run, and others of `assign_budgets`' runs."""
    makers = [restored, table_1, all_conditions, differences, weight_sweep, learning_curves]
    scheduled = every[~every.config_hash.isin(runs.config_hash)]  # the others' are read below
    tables = ranking.ranking_tables(scheduled, predictions(scheduled, labels), labels)
    tables |= {make.__name__: make(runs) for make in makers}
    headline = headline_runs(every, runs)
    tables |= {"settings": settings(headline), "restored_curves": restored_curves(every, headline)}
    tables |= {"summary": summary(tables["settings"]), "step_size": step_size(runs)}
    tables |= {"compared": compared(runs, labels), "claims": judged_claims(runs)}
    return tables | {"runs": runs.filter(regex=EVERY_RUN)}
