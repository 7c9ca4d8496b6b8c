"""Which method is best, by the rules of ``docs/protocol_methods.md``."""

import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from itertools import chain, combinations
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import multivariate_t, rankdata, ttest_1samp

from mnist_imbalance.records import table as records
from mnist_imbalance.report import stats
from mnist_imbalance.report.claims import margin_of
from mnist_imbalance.report.words import sort_key

Tables: TypeAlias = dict[str, pd.DataFrame]
Known: TypeAlias = Mapping[str, Any]  # labels of test images, (N,): true ones by data set
PLAIN, AGAIN, ORIGINAL, MNIST, ALL = "plain", "plain_again", "original", "mnist", "all"
TRAINED = ["dataset", "model", "steps", "optimizer", "rate"]  # what all methods share
TRAINING = ("scheduler", "optimizer.lr", "model.head", "data.keep", "data/profile")  # no setting
RULES = {"balanced validation": "val", "imbalanced validation": "imbalanced", "test": "test"}
CASE, METHOD = ["dataset", "model", "keep"], ["dataset", "model", "method"]
COPIES = [PLAIN, ORIGINAL, "data/copies=duplicated", "data/copies=augmented"]
ALPHA, REPLICATES, SET = 2 * stats.ONE_SIDED, 1000, 5  # tests; bootstrap; seeds of an A/A set
RUN = [*TRAINED, "keep", "seed", "method", "setting"]
parts_of = re.compile(r", (?![^\[]*\])").split  # a condition's choices and keys; a list is one
NAMED = [*TRAINED, "keep", "method", "setting", "tried"]
RANKED = [*NAMED, "rank", "seeds", "mean", "mean_low", "mean_high", "rare", "frequent", "best"]
RANKED += ["effect", "low", "high", "verdict", "small", "p_best", "rank_low", "rank_high"]
RANKED += ["nll", "ece", "cost_steps", "cost_seconds"]


def is_cut_short(config: Mapping[str, Any]) -> bool:
    """Tell whether a run was trained, or scored, on a part of its images."""
    return any(v and re.match(r"trainer\.(limit_|overfit_batches)", k) for k, v in config.items())


def groups_of(runs: pd.DataFrame) -> dict[str, list[int]]:
    """Return the groups of labels of most runs, but for that of all labels."""
    most = next(iter(runs.groups.map(json.dumps).mode()), "{}")
    return {name: labels for name, labels in json.loads(most).items() if name != ALL}


def shared_parts(runs: pd.DataFrame, by: list[str]) -> list[set[str]]:
    """Return for each run the parts with a value that all conditions of its group have."""
    parts = runs.condition.map(lambda name: {part for part in parts_of(name) if "=" in part})
    common = {keys: set.intersection(*own) for keys, own in parts.groupby([runs[k] for k in by])}
    return [common[keys] for keys in runs[by].itertuples(index=False, name=None)]


def method_of(condition: str, shared: Collection[str] = ()) -> tuple[str, str]:
    """Return the method of a condition and its setting, but for parts that all runs share."""
    parts = parts_of(re.sub("^imbalanced(?=,.* data/profile=none)", ORIGINAL, condition))
    parts = [part for part in parts if part not in shared and not part.startswith(TRAINING)]
    setting = [part for part in parts if "." in part.partition("=")[0] and "=" in part]
    method = ", ".join(part for part in parts if part not in setting).removeprefix("imbalanced, ")
    if "data.fill=True" in setting:  # as many copies as it takes
        setting.remove("data.fill=True")
        method = re.sub(r"(data/copies=[a-z]+)_\d+", r"\1", method)
    return PLAIN if method == "imbalanced" else method, ", ".join(setting)


def keep_of(run: Any) -> Any:
    """Return what a run's imbalance keeps: a fraction, or a text if it differs by label."""
    profile, keep = run.config.get("data.keep._target_", ""), run.config.get("data.keep")
    if profile:
        ratio, exponential = run.config.get("data.keep.ratio"), profile.endswith("exponential")
        return f"1 : {ratio}" if exponential else profile.rpartition(".")[2]
    natural = "data/profile=natural" in run.condition
    return "as it is" if natural else str(keep) if isinstance(keep, list) else keep


def select_comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs in which methods can be compared: those whose rate follows a scheduler.

    test and val are balanced accuracies, imbalanced is that of validation weighted as the training
    images are, rare and frequent are test accuracies of the first and last group.
    """
    whole = ["scheduler._target_" in c and not is_cut_short(c) for c in runs.config]
    runs = runs[(runs.seed == runs.data_seed) & np.array(whole, bool)]
    val, test = records.accuracies(runs, "val"), records.accuracies(runs, "test")
    labels = [name for name in val if name.isdigit()]
    known = np.ma.masked_invalid(val[labels])  # some runs, or splits, have fewer labels
    shares = zip(known, runs.train_counts, strict=True)
    names = map(method_of, runs.condition, shared_parts(runs, TRAINED[:2]))
    named = pd.DataFrame(names, runs.index, ["method", "setting"])
    orders = zip(runs.config, runs.seed, strict=True)
    named["method"] += ["_again" * (c.get("data.order_seed", s) != s) for c, s in orders]
    scored = pd.DataFrame([*runs.test_metrics], runs.index, ["nll", "ece"], float)
    table = runs[["config_hash", *TRAINED[:4], "seed"]].join([named, scored])
    table = table.assign(
        seconds=runs.seconds.where(runs.device.str.startswith("cpu")),
        cost_steps=runs.steps + [config.get("posthoc.steps", 0) for config in runs.config],
        rate=[config.get("optimizer.lr") for config in runs.config],
        keep=[*map(keep_of, runs.itertuples())],
        mean_keep=[np.mean(c.get("data.keep", -c.get("data.keep.ratio", 0))) for c in runs.config],
        candidate=[config.get("trainer.max_epochs") == -1 for config in runs.config],
        test=test[labels].mean(axis=1),
        rare=stats.NAN,
        frequent=stats.NAN,
        val=val[labels].mean(axis=1),
        imbalanced=[np.ma.average(own[: len(counts)], weights=counts) for own, counts in shares],
    )
    for _, own in runs.groupby("dataset"):
        groups = [[*map(str, labels)] for labels in groups_of(own).values()]
        for name, shown in {"rare": groups[:1], "frequent": groups[1:][-1:]}.items():
            table.loc[own.index, name] = test.loc[own.index, [*chain(*shown)]].mean(axis=1)
    table = table.sort_values(["mean_keep", "seed", *TRAINED[2:]], ascending=[False, *[True] * 4])
    return table.sort_values(TRAINED[:2], key=sort_key)


def select_compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of each model's training with which the most methods were trained.

    A method that alone keeps as many images is for reference, as all images are: it has no rank.
    """
    table = table[~table.setting.str.contains("data.source.", regex=False)]  # split otherwise
    counted = table.groupby(TRAINED).method.nunique()[::-1]  # of equals, the longest
    best = counted[counted > 1].groupby(TRAINED[:2]).idxmax()
    table = table[table.set_index(TRAINED).index.isin([*best])]
    others = table.method.mask(table.method == ORIGINAL).groupby([table[key] for key in CASE])
    alone = others.transform("nunique") < 2
    kept = (", data.keep=" + table.keep.astype(str)).where(alone & (table.method == PLAIN), "")
    return table.assign(reference=alone, method=table.method + kept)


def rules(table: pd.DataFrame) -> pd.DataFrame:
    """Return each rule's choice in the seed with the most settings, and its test accuracy."""
    rows = []
    for keys, own in table.groupby(METHOD, sort=False):
        own = own.assign(often=own.groupby("setting").seed.transform("size"))
        own = own.sort_values("often", ascending=False, kind="stable")  # who wins a tie
        own = own[own.mean_keep == own.mean_keep.max()]
        own = own[own.seed == own.groupby("seed").size().idxmax()]
        best = own.loc[[own[score].round(6).idxmax() for score in RULES.values()]]
        rows.append((*keys, len(own), *best.setting, *best.test))
    columns = [*METHOD, "tried", *RULES, *(f"{rule} scores" for rule in RULES)]
    return pd.DataFrame(rows, columns=columns)


@cache
def limit(methods: int, seeds: int, sides: int) -> float:
    """Return Dunnett's quantile (1955, JASA 50) at 95 % of a two-way model."""
    # scipy's dunnett is of unpaired seeds, which have more degrees of freedom
    others, rest = methods - 1, {"random_state": 0, "maxpts": 20_000}
    t = multivariate_t(shape=(np.eye(others) + 1) / 2, df=others * (seeds - 1))

    def excess(limit: float) -> float:
        low = None if sides == 1 else [-limit] * others
        return float(t.cdf([limit] * others, lower_limit=low, **rest)) - 1 + ALPHA

    return float(round(brentq(excess, 0, 99, xtol=0.001), 2))


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare accuracies, (seeds, methods), with the best of the others and with plain.

    In a two-way model of −log(1 − accuracy), by Hsu's rule (1984, Annals of Statistics 12) and by
    Dunnett's intervals, at plain's geometric mean error. A method's own variance counts where it is
    above the pooled one: by that alone up to 22 % of simulations exclude the best, and so up to 6.
    """
    y = -np.log((1 - scores.to_numpy()).clip(5e-5))  # half an error among 10,000 images
    (seeds, methods), mean = y.shape, y.mean(axis=0)
    rest = y - y.mean(axis=1, keepdims=True)
    # seeds' means take 1/methods of the variance; equal scores are not certain
    own = rest.var(axis=0, ddof=1) * methods / (methods - 1)
    own = np.maximum(own, own.mean()).clip(1e-12)
    error = np.sqrt(np.add.outer(own, own) / seeds)
    one, two = (limit(methods, seeds, sides) for sides in (1, 2))
    best = (np.subtract.outer(mean, mean) > -one * error).all(axis=1)
    found = pd.DataFrame({"best": best}, scores.columns)
    if PLAIN in scores:
        at = scores.columns.get_loc(PLAIN)
        for name, sign in {"effect": 0, "low": -1, "high": 1}.items():
            found[name] = -np.exp(-mean[at]) * np.expm1(mean[at] - mean - sign * two * error[at])
        found.loc[PLAIN, "effect":] = stats.NAN
    return found


def bootstrap(right: NDArray[np.bool_], labels: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Return P(best) and 95 % of ranks over new seeds and images of (methods, seeds, images)."""
    rng, (methods, seeds, _) = np.random.default_rng(0), right.shape
    draws = rng.multinomial(seeds, [1 / seeds] * seeds, REPLICATES)  # the same for all methods
    scores = np.zeros((methods, REPLICATES))
    for label in np.unique(labels):
        own = right[..., labels == label].astype(np.float32)
        images = rng.integers(own.shape[2], size=(REPLICATES, own.shape[2]))
        counts = [np.bincount(drawn, minlength=own.shape[2]) for drawn in images]
        hits = own @ np.array(counts, np.float32).T  # whole numbers: exact in any order
        scores += np.einsum("msr,rs->mr", hits, draws) / own.shape[2]
    ranks = rankdata(-scores.round(stats.DECIMALS), "min", axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="nearest")
    return {"p_best": (ranks == 1).mean(axis=1), "rank_low": low, "rank_high": high}


def rank(best: pd.DataFrame, predicted: Known, labels: Known) -> pd.DataFrame:
    """Rank methods by balanced test accuracy, and compare them with the best and with plain.

    The seeds are those that half of the untuned methods have, the methods those with all of these.
    ``cost_seconds`` is of the quickest run on a CPU, with the training that it took over.
    """
    names, parts = {"n": "seeds", "low": "mean_low", "high": "mean_high"}, [pd.DataFrame()]
    for keys, own in best[~best.reference].groupby(CASE, sort=False):
        wide = own.pivot(index="seed", columns="method", values="test")
        untuned = wide[own[own.tried == own.tried.min()].method.unique()]
        wide = wide[untuned.count(axis=1) >= untuned.shape[1] / 2].dropna(axis=1)
        beside = best[best.reference].merge(own[TRAINED[:2]].drop_duplicates()).assign(keep=keys[2])
        here = pd.concat([own[own.method.isin(wide)], beside]).query("seed in @wide.index")
        by = here.groupby("method", sort=False)
        table = stats.estimates(here, [*NAMED, "cost_steps", "reference"], "test")
        table = table.rename(columns=names).set_index("method")
        table = table.join([by[["rare", "frequent", "nll", "ece"]].mean(), by.seconds.min()])
        parents = [re.sub("(, )?posthoc=.*", "", name) or PLAIN for name in table.index]
        trained = table.seconds.reindex(parents).to_numpy()
        table["cost_seconds"] = table.seconds + trained * (table.seconds < trained)
        if min(wide.shape) > 1:
            table = table.join(compare(wide))
        hashes = [[*by.get_group(method).config_hash] for method in wide]
        if keys[0] in labels and predicted.keys() >= {*chain(*hashes)}:
            right = np.array([[predicted[key] == labels[keys[0]] for key in own] for own in hashes])
            table = table.join(pd.DataFrame(bootstrap(right, labels[keys[0]]), wide.columns))
        table = table.sort_values("mean", ascending=False, kind="stable").reset_index()
        parts.append(table.assign(rank=(~table.reference).cumsum().mask(table.reference)))
    table = pd.concat(parts, ignore_index=True).reindex(columns=RANKED).astype({"method": str})
    table["small"] = table[["low", "high"]].abs().lt(table.model.map(margin_of), axis=0).all(axis=1)
    table["best"] = table.best.eq(True)
    rules = [table.low > 0, table.high < 0, table.small, table.effect.notna()]
    table["verdict"] = np.select(rules, ["better", "worse", "small", stats.UNDECIDED], "")
    return table


def a_a(table: pd.DataFrame) -> pd.DataFrame:
    """Return in which share of sets of five seeds a t-test tells plain from its other order."""
    rows, own = [], table.set_index([*CASE, "seed", "setting"])
    plain, again = (own.test[own.method == method] for method in (PLAIN, AGAIN))
    effects = (again - plain.reindex(again.index)).dropna().round(stats.DECIMALS)
    for keys, own in effects.groupby(CASE, sort=False):
        sets = np.array([*combinations(own, SET)]).reshape(-1, SET)
        told = (ttest_1samp(sets, 0, axis=1).pvalue < ALPHA).mean() if len(sets) > 1 else stats.NAN
        rows.append((*keys, len(own), len(sets), told, *stats.estimate(own)))
    columns = [*CASE, "seeds", "sets", "told_apart", *stats.JUDGED[:4]]
    return pd.DataFrame(rows, columns=columns)


def ranking_tables(runs: pd.DataFrame, predicted: Known, labels: Known) -> Tables:
    """Return the tables of methods by name; predicted labels are by config hash."""
    found = select_comparable(runs)
    every = found.drop_duplicates(RUN)  # of equal runs the first counts
    table = select_compared(every)
    tuned = rules(table)
    settings = tuned.rename(columns={"balanced validation": "setting"})
    ranked = rank(table.merge(settings[[*METHOD, "setting", "tried"]]), predicted, labels)
    rest = every[~every.set_index(METHOD).index.isin(ranked.set_index(METHOD).index)]
    unranked = rest.groupby(METHOD, sort=False).seed.nunique().reset_index(name="seeds")
    chosen = every.set_index(TRAINED).index.isin(table.set_index(TRAINED).index)
    tried = found.query("method == @PLAIN and setting == ''")  # how, by candidates if there are any
    tried = tried[tried.candidate | ~tried.groupby("dataset").candidate.transform("any")]
    tried = tried.drop_duplicates(TRAINED)[[*TRAINED, "val"]]
    compared = tried.set_index(TRAINED).index.isin(table.set_index(TRAINED).index)
    plain = every[(every.method == PLAIN) & chosen]
    both = plain.merge(plain, on=[*TRAINED, "seed"]).query("setting_x == ''")
    both = both[both.setting_y.str.startswith("data.source.")]  # otherwise held out
    tables = {"ranked": ranked, "rules": tuned.query("tried > 1"), "a_a": a_a(table)}
    tables |= {"hold_outs": both.filter(regex="^(dataset|model|seed|val_.|test_.)$")}
    tables |= {"lengths": every.query("setting == '' and method in @COPIES")[[*RUN, "rare"]]}
    return tables | {"unranked": unranked, "trainings": tried.assign(chosen=compared)}
