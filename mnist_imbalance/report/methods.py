"""Which method is best: all methods of one plain training, ranked, paired by seed.

The rules are those of ``docs/protocol_methods.md``. All tables are made from that of
`method_runs.tabulate_methods`.
"""

import math
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas

from mnist_imbalance.report.claims import margin_of
from mnist_imbalance.report.method_runs import ORIGINAL, PLAIN, TRAINED
from mnist_imbalance.report.statistics import estimate
from mnist_imbalance.report.verdicts import TOLD, correct, judge, two_sided, with_verdicts

ORACLE = "test"
RULES = ("balanced validation", "imbalanced validation", ORACLE)
TOGETHER = 0.05  # of p, above which two methods are not told apart


def trainings(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return how long and at which rate the plain loss was tried, for the first seed and imbalance.

    Returns:
        Columns of `TRAINED`, val (balanced validation accuracy) and chosen, whether the methods are
        compared with this training.
    """
    plain = tuning(runs)
    plain = plain[(plain.method == PLAIN) & (plain.setting == "")]
    compared = in_comparison(runs)[TRAINED].drop_duplicates().assign(chosen=True)
    made = plain[[*TRAINED, "val"]].merge(compared, on=TRAINED, how="left")
    return made.assign(chosen=made.chosen.notna())


def in_comparison(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the runs of each model's training with which the most methods were trained."""
    kept = []
    for _, of_model in runs.groupby("model", sort=False):
        counted = of_model.groupby(TRAINED[1:]).method.nunique()
        if counted.max() > 1:
            training = dict(zip(TRAINED[1:], counted.idxmax(), strict=True))
            kept.append(of_model[(of_model[list(training)] == training).all(axis=1)])
    return pandas.concat(kept) if kept else runs.iloc[:0]


def tuning(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return of each method the runs by which its setting is chosen.

    They are those of the first seed where the most images were kept; first come the settings that
    were trained most often, so that of equals the one that the study chose is found.
    """
    several = runs[runs.method != ORIGINAL]
    of_method = several.groupby(["model", "method"])
    first = (several.seed == of_method.seed.transform("min")) & (
        several.keep == of_method.keep.transform("max")
    )
    trained = several.groupby(["model", "method", "setting"]).seed.transform("size")
    return several[first].loc[trained[first].sort_values(ascending=False, kind="stable").index]


def best(tried: pandas.DataFrame, column: str) -> pandas.Series:
    """Return the row of the highest score, the first of equals."""
    row: pandas.Series = tried.loc[tried[column].round(6).idxmax()]
    return row


def chosen(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the runs with the setting of each method that is best on validation images."""
    if runs.empty:
        return runs
    settings = {
        key: best(tried, "val").setting
        for key, tried in tuning(runs).groupby(["model", "method"], sort=False)
    }
    keys = zip(runs.model, runs.method, strict=True)
    return runs[[settings.get(key, "") == own for key, own in zip(keys, runs.setting, strict=True)]]


def places(runs: pandas.DataFrame) -> Iterable[tuple[str, float, pandas.DataFrame]]:
    """Go through models and imbalances; the runs with all images stand beside each."""
    for model, of_model in runs.groupby("model", sort=False):
        all_images = of_model[of_model.method == ORIGINAL]
        for keep, of_keep in of_model[of_model.method != ORIGINAL].groupby("keep", sort=False):
            yield str(model), float(str(keep)), pandas.concat([of_keep, all_images])


def ranked(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Rank the methods by balanced test accuracy, and compare each with the plain loss.

    Returns:
        Columns of `TRAINED`, keep, method, setting, tried (settings), rank (1 is best; nan for
        `ORIGINAL`), seeds, mean, mean_low and mean_high (of the balanced test accuracy), rare and
        frequent (means of the groups' accuracies), those of `verdicts.TOLD` (of the difference to
        the plain loss; the family is all methods of one model and imbalance), and seconds.
    """
    runs = in_comparison(runs)
    tried = tuning(runs).groupby(["model", "method"]).setting.nunique()
    rows: list[dict[str, Any]] = []
    for model, keep, here in places(chosen(runs)):
        by_seed = here.pivot_table(index="seed", columns="method", values="test", sort=False)
        means = here.groupby("method", sort=False)[["rare", "frequent", "seconds"]].mean()
        order = by_seed.mean().sort_values(ascending=False, kind="stable").index
        competitors = [method for method in order if method != ORIGINAL]
        family = []
        for method in order:
            at = here[here.method == method].iloc[0]
            competes = method in competitors
            row: dict[str, Any] = {name: at[name] for name in (*TRAINED, "method", "setting")}
            row |= {"keep": keep, "tried": int(tried.get((model, method), 1))}
            row |= {"rank": competitors.index(method) + 1 if competes else math.nan}
            seeds, mean, low, high = estimate(by_seed[method])
            row |= {"seeds": seeds, "mean": mean, "mean_low": low, "mean_high": high}
            row |= means.loc[method].to_dict()
            known = competes and method != PLAIN and PLAIN in by_seed
            effects = by_seed[method] - by_seed[PLAIN] if known else by_seed[method][:0]
            family.append((row, judge(effects.dropna(), margin_of(model))))
        rows += with_verdicts(family)
    columns = [*TRAINED, "keep", "method", "setting", "tried", "rank", "seeds", "mean"]
    columns += ["mean_low", "mean_high", "rare", "frequent", *TOLD, "seconds"]
    return pandas.DataFrame(rows, columns=columns)


def pairs(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Compare all methods pair by pair, the better one first.

    Returns:
        Columns model, keep, first, second, n (seeds of both), effect, low, high, p (two-sided) and
        p_corrected (by Holm over all pairs of that model and imbalance).
    """
    rows = []
    for model, keep, here in places(chosen(in_comparison(runs))):
        here = here[here.method != ORIGINAL]
        by_seed = here.pivot_table(index="seed", columns="method", values="test", sort=False)
        order = by_seed.mean().sort_values(ascending=False, kind="stable").index
        judged = [
            (first, second, judge((by_seed[first] - by_seed[second]).dropna()))
            for first, second in combinations(order, 2)
        ]
        corrected = correct([each for *_, each in judged])
        rows += [
            (model, keep, first, second, *each[:4], two_sided(each), in_family.p)
            for (first, second, each), in_family in zip(judged, corrected, strict=True)
        ]
    columns = ["model", "keep", "first", "second", "n", "effect", "low", "high", "p", "p_corrected"]
    return pandas.DataFrame(rows, columns=columns)


def metrics(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the mean over seeds of what else was scored on the test set, a row a method.

    Returns:
        Columns model, keep, method, seeds (that have them) and the metrics by their names; methods
        without any are left out.
    """
    rows = []
    for model, keep, here in places(chosen(in_comparison(runs))):
        for method, of_method in here.groupby("method", sort=False):
            scored = [each for each in of_method.metrics if each]
            means = pandas.DataFrame(scored, dtype=float)
            if len(means):
                row = {"model": model, "keep": keep, "method": method, "seeds": len(means)}
                rows.append(row | means.mean().to_dict())
    return pandas.DataFrame(rows, columns=None if rows else ["model", "keep", "method", "seeds"])


def cliques(of_place: pandas.DataFrame) -> list[tuple[str, str]]:
    """Return the first and last method of every longest row of methods that are not told apart.

    Demšar, 2006, "Statistical comparisons of classifiers over multiple data sets": its picture
    joins them.

    Args:
        of_place: The rows of `pairs` of one model and imbalance, the methods in their order.
    """
    order = list(dict.fromkeys([*of_place["first"], *of_place["second"]]))
    apart = {(row.first, row.second) for row in of_place.itertuples() if row.p_corrected < TOGETHER}
    found: list[tuple[int, int]] = []
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and not any(
            (order[each], order[end + 1]) in apart for each in range(start, end + 1)
        ):
            end += 1
        if end > start and not (found and found[-1][1] >= end):
            found.append((start, end))
    return [(order[start], order[end]) for start, end in found]


def rules(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return which setting each of `RULES` chooses, and its balanced test accuracy.

    Returns:
        Columns model, method, tried, and for each rule its setting and, with " scores" behind its
        name, the test accuracy; a row for each method that was tuned.
    """
    rows = []
    runs = in_comparison(runs)
    for (model, method), tried in tuning(runs).groupby(["model", "method"], sort=False):
        if len(tried) > 1:
            found = [best(tried, column) for column in ("val", "imbalanced", "test")]
            settings = {rule: row.setting for rule, row in zip(RULES, found, strict=True)}
            scores = {f"{rule} scores": row.test for rule, row in zip(RULES, found, strict=True)}
            rows.append(
                {"model": model, "method": method, "tried": len(tried), **settings, **scores}
            )
    columns = ["model", "method", "tried", *RULES, *(f"{rule} scores" for rule in RULES)]
    return pandas.DataFrame(rows, columns=columns)
