"""Where the spread of equal runs comes from: the choice of images, or the initial weights."""

import math

import pandas

from mnist_imbalance.report.gather import STEPS, Gathered
from mnist_imbalance.report.statistics import variance_components

FEWEST = 3  # seeds of each kind
NAMES = ("choice of images", "initial weights and order", "rest")  # as of `Components`


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
            parts = zip(NAMES, found[:3], found[3:], strict=True)
            rows += [(*keys, len(runs), *part) for part in parts]
    return pandas.DataFrame(rows, columns=[*by, "n", "component", "sd", "share"])
