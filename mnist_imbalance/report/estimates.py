"""Mean and 95 % interval over seeds."""

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

import pandas
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        n: Seeds.
        mean: nan where n is 0.
        low: Lower end of the 95 % interval; nan where n is below 2.
        high: Upper end.
    """

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Iterable[float]) -> Estimate:
    """Estimate the mean with Student's t-interval; values that are nan are left out."""
    known = [value for value in values if not math.isnan(value)]
    n = len(known)
    if n < 2:
        return Estimate(n, known[0] if known else math.nan, math.nan, math.nan)
    mean = fmean(known)
    half = float(stats.t.ppf(0.975, n - 1)) * stdev(known) / math.sqrt(n)
    return Estimate(n, mean, mean - half, mean + half)


def estimate_groups(values: pandas.DataFrame, by: list[str], value: str) -> pandas.DataFrame:
    """Estimate a column's mean in every group, a row a group in the groups' order.

    Returns:
        The columns of ``by``, then n, mean, low and high.
    """
    rows = [(*keys, *estimate(group[value])) for keys, group in values.groupby(by, sort=False)]
    table = pandas.DataFrame(rows, columns=[*by, *Estimate._fields])
    return table.astype({"n": int, "mean": float, "low": float, "high": float})
