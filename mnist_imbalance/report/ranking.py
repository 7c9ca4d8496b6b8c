"""Which method is best: all methods of one plain training, ranked, paired by seed.

The rules are those of ``docs/protocol_methods.md``.
"""

import re
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import dunnett, rankdata, ttest_1samp

from mnist_imbalance.records import table as records
from mnist_imbalance.report import stats
from mnist_imbalance.report.claims import margin_of
from mnist_imbalance.report.words import sort_key

PLAIN, AGAIN, ORIGINAL = "plain", "plain_again", "original"
TRAINED = ["model", "steps", "optimizer", "rate"]  # what all methods share
TRAINING = ("scheduler", "optimizer.lr", "model.head", "data.keep")  # no part of a setting
RULES = {"balanced validation": "val", "imbalanced validation": "imbalanced", "test": "test"}
CUT_SHORT = ("trainer.limit_", "trainer.overfit_batches")
CASE = ["model", "keep"]
ALPHA = 2 * stats.ONE_SIDED
REPLICATES, SET = 1000, 5  # of the bootstrap; seeds in a set of the A/A runs
RANKED = [*TRAINED, "keep", "method", "setting", "tried", "rank", "seeds", "mean", "mean_low"]
RANKED += ["mean_high", "rare", "frequent", "best", "behind", "behind_low", "behind_high"]
RANKED += ["effect", "low", "high", "verdict", "small", "p_best", "rank_low", "rank_high"]
RANKED += ["nll", "ece", "cost_steps", "cost_seconds"]


def is_cut_short(config: Mapping[str, Any]) -> bool:
    """Tell whether a run was trained, or scored, on a part of its images."""
    return any(value and key.startswith(CUT_SHORT) for key, value in config.items())


def method_of(condition: str) -> tuple[str, str]:
    """Return the method of a condition and its setting, as on the command line."""
    parts = re.split(r", (?![^\[]*\])", condition)  # but within a list
    parts = [part for part in parts if part.partition("=")[0] not in TRAINING]
    setting = [part for part in parts if "." in part.partition("=")[0] and "=" in part]
    method = ", ".join(part for part in parts if part not in setting).removeprefix("imbalanced, ")
    return PLAIN if method == "imbalanced" else method, ", ".join(setting)


def select_comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs in which methods can be compared: those whose rate follows a scheduler.

    Columns are those of `TRAINED`, keep (text where it differs by label), mean_keep, seed,
    method, setting; test and val (balanced accuracies), rare and frequent (test accuracies of the
    first two groups), imbalanced (the validation accuracy weighted as the training images are),
    seconds on a CPU, cost_steps (with those of a second stage) and metrics. The plain loss with
    another order of images is a method, too. Of equal runs the first counts.
    """
    whole = ["scheduler._target_" in c and not is_cut_short(c) for c in runs.config]
    runs = runs[(runs.seed == runs.data_seed) & np.array(whole, bool)]
    val, test = records.accuracies(runs, "val"), records.accuracies(runs, "test")
    labels = [name for name in val if name.isdigit()]
    groups = test.drop(columns=[*labels, "all"], errors="ignore")
    shares = zip(val[labels].to_numpy(), runs.train_counts, strict=True)
    named = pd.DataFrame(map(method_of, runs.condition), runs.index, ["method", "setting"])
    orders = [c.get("data.order_seed", s) for c, s in zip(runs.config, runs.seed, strict=True)]
    named.loc[(again := runs.seed != orders) & (named.method == PLAIN), "method"] = AGAIN
    keeps = [config.get("data.keep") for config in runs.config]
    table = runs[["config_hash", "model", "steps", "optimizer", "seed"]].join(named)
    table = table.assign(
        seconds=runs.seconds.where(runs.device.str.startswith("cpu")),
        cost_steps=runs.steps + [config.get("posthoc.steps", 0) for config in runs.config],
        rate=[config.get("optimizer.lr") for config in runs.config],
        keep=[str(keep) if isinstance(keep, list) else keep for keep in keeps],
        mean_keep=[np.mean(keep) if isinstance(keep, list) else keep for keep in keeps],
        test=test[labels].mean(axis=1, skipna=False),
        rare=groups.iloc[:, :1].mean(axis=1),
        frequent=groups.iloc[:, 1:2].mean(axis=1),
        val=val[labels].mean(axis=1, skipna=False),
        imbalanced=[np.average(accuracies, weights=counts) for accuracies, counts in shares],
        metrics=runs.test_metrics,
    )[~again | (named.method == AGAIN)]
    table = table.drop_duplicates([*TRAINED, "keep", "seed", "method", "setting"])
    order = ["mean_keep", "seed", *TRAINED[1:]]
    table = table.sort_values(order, ascending=[False, *[True] * 4])
    return table.sort_values("model", key=sort_key, kind="stable")


def select_compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of each model's training with which the most methods were trained.

    Methods that alone keep as many images, as all of them, are for reference: they do not compete.
    """
    counted = table.groupby(TRAINED).method.nunique()
    best = counted[counted > 1].groupby("model").idxmax()
    table = table[table.set_index(TRAINED).index.isin([*best])]
    counted = table[table.method != ORIGINAL].groupby(CASE).method.nunique()
    alone = ~table.set_index(CASE).index.isin(counted[counted > 1].index)
    named = PLAIN + ", data.keep=" + table.keep.astype(str)
    names = table.method.mask(alone & (table.method == PLAIN), named)
    return table.assign(reference=alone, method=names)


def select_tuning(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that choose each method's setting: the first seed's with the most images."""
    several = table[table.method != ORIGINAL]
    same = several.groupby(["model", "method"])
    tuned = several.seed == same.seed.transform("min")
    tuned &= several.mean_keep == same.mean_keep.transform("max")
    often = several.groupby(["model", "method", "setting"]).seed.transform("size")
    return several.loc[often[tuned].sort_values(ascending=False, kind="stable").index]


def select_best(table: pd.DataFrame, tried: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with each method's best setting; runs for reference are repeated per keep."""
    settings = tried.groupby(["model", "method"])
    chosen = {key: own.setting[own.val.round(6).idxmax()] for key, own in settings}
    own = [chosen.get(key, "") for key in zip(table.model, table.method, strict=True)]
    table = table[table.setting == own]
    reduced, whole = table[~table.reference], table[table.reference]
    everywhere = whole.drop(columns="keep").merge(reduced[CASE].drop_duplicates())
    return pd.concat([reduced, everywhere]).astype({"reference": bool})


def select_complete(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return of every case the seeds that half of its methods have, and the methods with these."""
    competing = chosen[~chosen.reference]
    counted = competing.groupby([*CASE, "seed"]).method.nunique()
    usual = counted[counted >= counted.groupby(CASE).transform("max") / 2]
    chosen = chosen[chosen.set_index([*CASE, "seed"]).index.isin(usual.index)]
    seeds = chosen.groupby([*CASE, "method"]).seed.transform("size")
    return chosen[
        chosen.reference | (seeds == seeds.groupby([chosen.model, chosen.keep]).transform("max"))
    ]


@cache
def limit(methods: int, seeds: int, alternative: str) -> float:
    """Return how many standard errors two equal methods differ by at most, by Dunnett at 95 %."""
    # any data has this limit, which scipy gives as an interval only
    data, rng = np.random.default_rng(0).normal(size=(methods, seeds)), np.random.default_rng(0)
    compared = dunnett(*data[1:], control=data[0], alternative=alternative, rng=rng)
    width = np.diff(data[[0, 1]].mean(axis=1)) - compared.confidence_interval(1 - ALPHA).low[0]
    return float((width / np.sqrt(2 * data.var(axis=1, ddof=1).mean() / seeds)).round(2)[0])


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare accuracies, (seeds, methods), with the best of the others and with plain.

    In a two-way model of −log(1 − accuracy): by Hsu's constrained intervals (1984, Annals of
    Statistics 12) and by Dunnett's, told as accuracies at the geometric mean error of the other.
    Each has a level of 5 %. Methods' spreads differ, up to threefold and more, so a method's own
    variance counts where it is larger than the pooled one: with this alone the best is excluded in
    up to 22 % of simulated rankings, and so in up to 6 %.
    """
    y = -np.log((1 - scores.to_numpy()).clip(5e-5))  # half an error among 10,000 images
    (seeds, methods), mean = y.shape, y.mean(axis=0)
    rest = y - y.mean(axis=1, keepdims=True)
    # seeds' means take 1/methods of the variance; equal scores are not certain
    own = (rest.var(axis=0, ddof=1) * methods / (methods - 1)).clip(1e-12)
    own = np.maximum(own, own.mean())
    error = np.sqrt(np.add.outer(own, own) / seeds)
    same = np.eye(methods, dtype=bool)
    one, two = (limit(methods, seeds, sides) for sides in ("greater", "two-sided"))
    above = np.where(same, np.inf, np.subtract.outer(mean, mean))
    ahead, high = above.min(axis=1), (above + one * error).min(axis=1).clip(min=0)
    low = np.where(high > 0, above - one * error, np.inf).min(axis=1)  # of those that may be best
    low = np.where(np.isinf(low), 0, low.clip(max=0))  # none but itself
    found, ends = pd.DataFrame({"best": high > 0}, scores.columns), {"behind": ahead}
    for name, end in (ends | {"behind_low": high, "behind_high": low}).items():
        found[name] = np.exp(ahead - mean) * np.expm1(-end) + 0.0  # no −0
    if PLAIN in scores:
        at = scores.columns.get_loc(PLAIN)
        effect, wide = mean - mean[at], two * error[at]
        for name, end in {"effect": effect, "low": effect - wide, "high": effect + wide}.items():
            found[name] = -np.exp(-mean[at]) * np.expm1(-end)
        found.loc[PLAIN, "effect":] = stats.NAN
    return found


def bootstrap(right: NDArray[np.bool_], labels: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Return how often no other is better, and ranks' 95 %, over new seeds and images of a label.

    Right or wrong, (methods, seeds, images); all methods have the same draws.
    """
    rng, (methods, seeds, _) = np.random.default_rng(0), right.shape
    draws = rng.multinomial(seeds, [1 / seeds] * seeds, REPLICATES)
    scores = np.zeros((methods, REPLICATES))
    for label in np.unique(labels):
        own = right[..., labels == label].astype(np.float32)
        images = rng.integers(own.shape[2], size=(REPLICATES, own.shape[2]))
        counts = [np.bincount(drawn, minlength=own.shape[2]) for drawn in images]
        # sums of whole numbers below 2^24 are exact in any order
        hits = own @ np.array(counts, np.float32).T
        scores += np.einsum("msr,rs->mr", hits, draws) / own.shape[2]
    ranks = rankdata(-scores.round(stats.DECIMALS), "min", axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="nearest")
    return {"p_best": (ranks == 1).mean(axis=1), "rank_low": low, "rank_high": high}


def rank(
    chosen: pd.DataFrame, tried: pd.DataFrame, predicted: Mapping[str, Any], labels: Any
) -> pd.DataFrame:
    """Rank methods by balanced test accuracy, and compare them with the best and with plain.

    ``cost_seconds`` is of the quickest run on a CPU, for other work there only adds. One quicker
    than every training of the method that it adjusts took one of these, so the quickest is added.
    """
    counts, parts = tried.groupby(["model", "method"]).setting.nunique(), [pd.DataFrame()]
    for (model, _), here in chosen.groupby(CASE, sort=False):
        by = here.groupby("method", sort=False)
        table = by[[*TRAINED, "keep", "setting", "cost_steps"]].first()
        scored = metrics(here).set_index("method").reindex(columns=["nll", "ece"])
        table = table.join([by[["rare", "frequent"]].mean(), scored])
        table[RANKED[9:13]] = [[*stats.estimate(own)] for _, own in by.test]
        table["tried"] = [counts.get((model, method), 1) for method in table.index]
        for method, took in by.seconds.min().items():
            parent = (method.partition("posthoc=")[0] or PLAIN).removesuffix(", ")
            least = here.seconds[here.method == parent].min() if "posthoc=" in method else 0
            table.loc[method, "cost_seconds"] = took + least * (took < least)
        wide = here[~here.reference].pivot(index="seed", columns="method")
        if min(wide.test.shape) > 1:
            table = table.join(compare(wide.test))
        if len(labels) and predicted.keys() >= {*wide.config_hash.to_numpy().ravel()}:
            keys = wide.config_hash.T.to_numpy()
            right = np.array([[predicted[key] == labels for key in own] for own in keys])
            table = table.join(pd.DataFrame(bootstrap(right, labels), wide.test.columns))
        table = table.sort_values("mean", ascending=False, kind="stable").reset_index()
        competing = table.method.isin(wide.test.columns)
        table["rank"] = competing.cumsum().where(competing)
        parts.append(table)
    table = pd.concat(parts, ignore_index=True).reindex(columns=RANKED)
    table["seeds"] = table.seeds.astype(int)
    margin = table.model.map(margin_of)
    table["small"] = table.low.gt(-margin) & table.high.lt(margin)
    table["best"] = table.best.eq(True)
    rules = [table.low > 0, table.high < 0, table.small, table.effect.notna()]
    table["verdict"] = np.select(rules, ["better", "worse", "small", stats.UNDECIDED], "")
    return table


def a_a(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return in which share of sets of five seeds a t-test tells plain from its other order."""
    rows = []
    for keys, here in chosen.groupby(CASE, sort=False):
        wide = here.pivot(index="seed", columns="method", values="test")
        effects = wide.get(AGAIN, wide[:0].sum(axis=1)) - wide.get(PLAIN, np.nan)
        effects = effects.dropna().round(stats.DECIMALS)
        sets = np.array([*combinations(effects, SET)]).reshape(-1, SET)
        told = (ttest_1samp(sets, 0, axis=1).pvalue < ALPHA).mean() if len(sets) else stats.NAN
        rows += [(*keys, len(effects), len(sets), told, *stats.estimate(effects))]
    columns = [*CASE, "seeds", "sets", "told_apart", *stats.JUDGED[:4]]
    return pd.DataFrame(rows, columns=columns).query("seeds > 0")


def metrics(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of what else was scored on the test set."""
    scored = chosen[chosen.metrics.astype(bool)].reset_index(drop=True)
    numbers = scored[[*CASE, "method"]].join(pd.DataFrame([*scored.metrics], dtype=float))
    by = numbers.groupby([*CASE, "method"], sort=False)
    return by.size().to_frame("seeds").join(by.mean()).reset_index()


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


def ranking_tables(
    runs: pd.DataFrame, predicted: Mapping[str, Any], labels: Any
) -> dict[str, pd.DataFrame]:
    """Return the tables of methods by name; predicted labels of the test images by config hash."""
    every, method = select_comparable(runs), ["model", "method"]
    table = select_compared(every)
    tried = select_tuning(table[~table.reference])
    best = select_best(table, tried)
    chosen = select_complete(best)
    rest = every[~every.set_index(method).index.isin(chosen.set_index(method).index)]
    unranked = rest.groupby(method, sort=False).seed.nunique().reset_index(name="seeds")
    tables = {"ranked": rank(chosen, tried, predicted, labels), "metrics": metrics(chosen)}
    tables |= {"a_a": a_a(best), "unranked": unranked}
    return tables | {"rules": rules(tried), "trainings": trainings(runs, table)}
