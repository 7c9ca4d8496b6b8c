"""Which method is best: all methods of one plain training, ranked, paired by seed.

The rules are those of ``docs/protocol_methods.md``.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mnist_imbalance.records import table as records
from mnist_imbalance.report import stats
from mnist_imbalance.report.claims import margin_of
from mnist_imbalance.report.words import sort_key

PLAIN, ORIGINAL = "plain", "original"
TRAINED = ["model", "steps", "optimizer", "rate"]  # what all methods share
TRAINING = ("scheduler", "optimizer.lr", "model.head", "data.keep")  # no part of a setting
RULES = {"balanced validation": "val", "imbalanced validation": "imbalanced", "test": "test"}
CUT_SHORT = ("trainer.limit_", "trainer.overfit_batches")
CASE = ["model", "keep"]
TOGETHER = 0.05  # of p, from which on two methods are not told apart


def is_cut_short(config: Mapping[str, Any]) -> bool:
    """Tell whether a run was trained, or scored, on a part of its images."""
    return any(value and key.startswith(CUT_SHORT) for key, value in config.items())


def method_of(condition: str) -> tuple[str, str]:
    """Return the method of a condition and its setting, as on the command line."""
    parts = [part for part in condition.split(", ") if part.partition("=")[0] not in TRAINING]
    setting = [part for part in parts if "." in part.partition("=")[0] and "=" in part]
    method = ", ".join(part for part in parts if part not in setting).removeprefix("imbalanced, ")
    return PLAIN if method == "imbalanced" else method, ", ".join(setting)


def select_comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs in which methods can be compared: those whose rate follows a scheduler.

    Columns are those of `TRAINED`, keep (text where it differs by label), mean_keep, seed,
    method, setting; test and val (balanced accuracies), rare and frequent (test accuracies of the
    first two groups), imbalanced (the validation accuracy weighted as the training images are),
    seconds and metrics. Of equal runs the first counts.
    """
    whole = ["scheduler._target_" in c and not is_cut_short(c) for c in runs.config]
    orders = [c.get("data.order_seed", s) for c, s in zip(runs.config, runs.seed, strict=True)]
    own = (runs.seed == runs.data_seed) & (runs.seed == orders)  # A/A runs have another order
    runs = runs[own & np.array(whole, bool)]
    val, test = records.accuracies(runs, "val"), records.accuracies(runs, "test")
    labels = [name for name in val if name.isdigit()]
    groups = test.drop(columns=[*labels, "all"], errors="ignore")
    shares = zip(val[labels].to_numpy(), runs.train_counts, strict=True)
    named = pd.DataFrame(map(method_of, runs.condition), runs.index, ["method", "setting"])
    keeps = [config.get("data.keep") for config in runs.config]
    table = runs[["model", "steps", "optimizer", "seed", "seconds"]].join(named)
    table = table.assign(
        rate=[config.get("optimizer.lr") for config in runs.config],
        keep=[str(keep) if isinstance(keep, list) else keep for keep in keeps],
        mean_keep=[np.mean(keep) if isinstance(keep, list) else keep for keep in keeps],
        test=test[labels].mean(axis=1, skipna=False),
        rare=groups.iloc[:, :1].mean(axis=1),
        frequent=groups.iloc[:, 1:2].mean(axis=1),
        val=val[labels].mean(axis=1, skipna=False),
        imbalanced=[np.average(accuracies, weights=counts) for accuracies, counts in shares],
        metrics=runs.test_metrics,
    )
    table = table.drop_duplicates([*TRAINED, "keep", "seed", "method", "setting"])
    order = ["mean_keep", "seed", *TRAINED[1:]]
    table = table.sort_values(order, ascending=[False, *[True] * 4])
    return table.sort_values("model", key=sort_key, kind="stable")


def select_compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of each model's training with which the most methods were trained."""
    counted = table.groupby(TRAINED).method.nunique()
    best = counted[counted > 1].groupby("model").idxmax()
    table = table[table.set_index(TRAINED).index.isin([*best])]
    # without methods whose training has only begun
    seeds = table.groupby(["model", "method"]).seed.transform("nunique")
    return table[seeds > seeds.groupby(table.model).transform("max") / 2]


def select_tuning(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that choose each method's setting: the first seed's with the most images."""
    several = table[table.method != ORIGINAL]
    same = several.groupby(["model", "method"])
    tuned = several.seed == same.seed.transform("min")
    tuned &= several.mean_keep == same.mean_keep.transform("max")
    often = several.groupby(["model", "method", "setting"]).seed.transform("size")
    return several.loc[often[tuned].sort_values(ascending=False, kind="stable").index]


def select_best(table: pd.DataFrame, tried: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with each method's best setting; runs on all images are repeated per keep."""
    settings = tried.groupby(["model", "method"])
    chosen = {key: own.setting[own.val.round(6).idxmax()] for key, own in settings}
    own = [chosen.get(key, "") for key in zip(table.model, table.method, strict=True)]
    table = table[table.setting == own]
    reduced, whole = table[table.method != ORIGINAL], table[table.method == ORIGINAL]
    everywhere = whole.drop(columns="keep").merge(reduced[CASE].drop_duplicates())
    return pd.concat([reduced, everywhere])


def rank(chosen: pd.DataFrame, tried: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank methods by balanced test accuracy beside the plain loss, and compare each two."""
    counts = tried.groupby(["model", "method"]).setting.nunique()
    ranked, pairs = list[dict[str, Any]](), list[dict[str, Any]]()
    for (model, keep), here in chosen.groupby(CASE, sort=False):
        # one row per seed, one column per method, the best first
        scores = here.pivot_table(index="seed", columns="method", values="test", sort=False)
        scores = scores[scores.mean().sort_values(ascending=False, kind="stable").index]
        competing = [method for method in scores if method != ORIGINAL]
        for method, accuracy in scores.items():
            own = here[here.method == method]
            row = own[[*TRAINED, "keep", "method", "setting"]].iloc[0].to_dict()
            row |= own[["rare", "frequent", "seconds"]].mean().to_dict()
            row |= {"tried": counts.get((model, method), 1)}
            row |= {"rank": competing.index(method) + 1 if method in competing else stats.NAN}
            means = stats.estimate(accuracy)
            row |= dict(zip(("seeds", "mean", "mean_low", "mean_high"), means, strict=True))
            is_compared = PLAIN in scores and method not in (PLAIN, ORIGINAL)
            effects = accuracy - scores[PLAIN] if is_compared else accuracy[:0]
            ranked.append(row | stats.judge(effects, margin_of(model))._asdict())
        for first, second in combinations(competing, 2):
            row = {"model": model, "keep": keep, "first": first, "second": second}
            pairs.append(row | stats.judge(scores[first] - scores[second])._asdict())
    columns = [*TRAINED, "keep", "method", "setting", "tried", "rank", "seeds", "mean", "mean_low"]
    columns += ["mean_high", "rare", "frequent", *stats.JUDGED, "seconds"]
    pair_columns = [*CASE, "first", "second", "n", "effect", "low", "high", "p", "p_corrected"]
    return stats.apply_holm(ranked, CASE, columns), stats.apply_holm(pairs, CASE, pair_columns)


def metrics(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of what else was scored on the test set."""
    rows: list[dict[str, Any]] = []
    for (model, keep), here in chosen.groupby(CASE, sort=False):
        for method, own in here.groupby("method", sort=False).metrics:
            scored = pd.DataFrame([*filter(None, own)], dtype=float)
            row = {"model": model, "keep": keep, "method": method, "seeds": len(scored)}
            rows += [row | scored.mean().to_dict()] if len(scored) else []
    return pd.DataFrame(rows, columns=None if rows else ["model", "keep", "method", "seeds"])


def rules(tried: pd.DataFrame) -> pd.DataFrame:
    """Return the setting that each rule of selection chooses, and its balanced test accuracy."""
    rows = []
    for (model, method), own in tried.groupby(["model", "method"], sort=False):
        if len(own) > 1:
            at = {rule: own[column].round(6).idxmax() for rule, column in RULES.items()}
            row = {"model": model, "method": method, "tried": len(own)}
            row |= {rule: own.setting[best] for rule, best in at.items()}
            rows.append(row | {f"{rule} scores": own.test[best] for rule, best in at.items()})
    columns = ["model", "method", "tried", *RULES, *(f"{rule} scores" for rule in RULES)]
    return pd.DataFrame(rows, columns=columns)


def trainings(runs: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Return how long and at which rate the plain loss was tried, and what was chosen."""
    # candidates are the runs without an end by epochs, if there are any
    by_steps = np.array([c.get("trainer.max_epochs") == -1 for c in runs.config], bool)
    candidates = select_tuning(select_comparable(runs[by_steps] if any(by_steps) else runs))
    plain = candidates.query("method == @PLAIN and setting == ''")[[*TRAINED, "val"]]
    chosen = plain.set_index(TRAINED).index.isin(compared.set_index(TRAINED).index)
    return plain.assign(chosen=chosen)


def ranking_tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of methods by name."""
    every, method = select_comparable(runs), ["model", "method"]
    table = select_compared(every)
    rest = every[~every.set_index(method).index.isin(table.set_index(method).index)]
    unranked = rest.groupby(method, sort=False).seed.nunique().reset_index(name="seeds")
    tried = select_tuning(table)
    chosen = select_best(table, tried)
    ranked, pairs = rank(chosen, tried)
    tables = {"ranked": ranked, "pairs": pairs, "metrics": metrics(chosen)}
    tables["unranked"] = unranked
    return tables | {"rules": rules(tried), "trainings": trainings(runs, table)}


def cliques(pairs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the first and last of each longest row of methods not told apart (Demšar 2006)."""
    order = [*dict.fromkeys([*pairs["first"], *pairs["second"]])]
    close = pairs[~(pairs.p_corrected < TOGETHER)]
    together, found, reached = {*zip(close["first"], close["second"], strict=True)}, [], 0
    for start, first in enumerate(order):
        for last in range(len(order) - 1, max(start, reached), -1):
            if together.issuperset(combinations(order[start : last + 1], 2)):
                found.append((first, order[last]))
                reached = last
                break
    return found
