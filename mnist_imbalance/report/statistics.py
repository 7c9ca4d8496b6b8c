"""Estimates over seeds: means, ratios, their spread, and how many seeds it takes.

Everything here takes values by seed and knows no model, condition or accuracy.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

import numpy
import pandas
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import minimize
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams
from statsmodels.stats.power import TTestPower

ONE_SIDED = 0.025  # to each side of a 95 % interval
DECIMALS = 12  # accuracies differ by more, so what is smaller is rounding
FEWEST_SEEDS = 3  # two find only what is 12 times the spread
MOST_SEEDS = 1000
SMALLEST_RATIO = 1e-8  # of a variance component to the rest


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


def predict_one(values: Iterable[float]) -> Estimate:
    """Return the mean and the 95 % prediction interval for one new run.

    That is mean ± t·s·√(1 + 1/n), in the values' unit: where a single published run should lie
    if it was made as these runs were. Ends are nan where fewer than two values are known.
    """
    n, mean, low, high = estimate(values)
    half = (high - low) / 2 * math.sqrt(n + 1)  # the mean's own half width is t·s/√n
    return Estimate(n, mean, mean - half, mean + half)


def fieller(gained: ArrayLike, lost: ArrayLike) -> Estimate:
    """Return the fraction restored, mean(gained) / mean(lost), with its 95 % interval.

    The interval is Fieller's (1954, Journal of the Royal Statistical Society B 16) for paired
    values, with their covariance and Student's t at n − 1 degrees of freedom.

    Args:
        gained: (seeds,), in any unit; seeds where either value is nan are left out.
        lost: (seeds,), in the same unit.

    Returns:
        Ends are -inf and inf where ``lost`` does not differ from zero at 5 %, since every fraction
        may then be true, and nan with fewer than two seeds.
    """
    pairs = numpy.column_stack([gained, lost]).astype(float)
    pairs = pairs[~numpy.isnan(pairs).any(axis=1)]
    n = len(pairs)
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    gain, loss = pairs.mean(axis=0).tolist()
    ratio = gain / loss if loss else math.nan
    if n < 2:
        return Estimate(n, ratio, math.nan, math.nan)
    squared_t = float(stats.t.ppf(1 - ONE_SIDED, n - 1)) ** 2
    (of_gain, of_both), (_, of_loss) = (squared_t / n * numpy.cov(pairs.T)).tolist()
    # fractions f with (gain − f·loss)² ≤ t²·variance(gain − f·loss): a·f² − 2·b·f + c ≤ 0
    a, b, c = loss**2 - of_loss, gain * loss - of_both, gain**2 - of_gain
    if a <= 0:
        return Estimate(n, ratio, -math.inf, math.inf)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Estimate(n, ratio, (b - root) / a, (b + root) / a)


class Components(NamedTuple):
    """What makes runs of one condition differ.

    Attributes:
        images: Standard deviation from the choice of training images, in the values' unit.
        weights: From the initial weights and the order of the images.
        rest: From everything else, such as the two's interaction and the device.
        images_share: Share of the variance, in [0, 1].
        weights_share: Share of the variance.
        rest_share: Share of the variance.
    """

    images: float
    weights: float
    rest: float
    images_share: float
    weights_share: float
    rest_share: float


def variance_components(values: pandas.DataFrame) -> Components:
    """Split the variance of runs with crossed seeds by a mixed model, fitted by REML.

    A component that the runs show no sign of is estimated as next to zero, 0.0001 of the rest's
    standard deviation; with five levels of a seed an estimate is very uncertain.

    Args:
        values: Columns value, data_seed and seed, a row a run; every data_seed should be combined
            with every seed. Rows whose value is nan are left out.

    Returns:
        All nan where a seed has fewer than two levels, no level is repeated or no fit converges;
        shares are nan where all values are equal.
    """
    known = values[["value", "data_seed", "seed"]].dropna()
    levels = known[["data_seed", "seed"]].nunique()
    if levels.min() < 2 or len(known) <= levels.max():
        return Components(*[math.nan] * 6)
    spread = float(known.value.std())
    if round(spread, DECIMALS) == 0:
        return Components(0.0, 0.0, 0.0, *[math.nan] * 3)
    scaled = known.assign(value=(known.value - known.value.mean()) / spread)
    model = MixedLM.from_formula(
        "value ~ 1",
        scaled,
        groups=numpy.ones(len(scaled)),  # one, as the two factors are crossed
        vc_formula={"images": "0 + C(data_seed)", "weights": "0 + C(seed)"},
    )
    # REML's optimum without MixedLM.fit, whose Hessian fails where a component is zero
    model.reml, model.cov_pen, model.fe_pen = True, None, None  # as fit sets them

    def unlikely(logs: NDArray[numpy.float64]) -> float:
        try:
            with numpy.errstate(divide="ignore", invalid="ignore"):
                likely = model.loglike(MixedLMParams.from_components(vcomp=numpy.exp(logs)))
        except numpy.linalg.LinAlgError:  # where nothing is left for the rest
            return math.inf
        return math.inf if math.isnan(likely) else -float(likely)

    found = minimize(
        unlikely,
        x0=[0.0, 0.0],  # variances are given relative to the rest's
        method="Nelder-Mead",
        bounds=[(math.log(SMALLEST_RATIO), -math.log(SMALLEST_RATIO))] * 2,
        options={"xatol": 1e-4, "fatol": 1e-8, "maxiter": 2000},
    )
    variances = numpy.full(3, math.nan)
    if found.success:
        ratios, others = numpy.exp(found.x), numpy.zeros((0, 0))
        mean, _ = model.get_fe_params(others, ratios)
        variances = model.get_scale(mean, others, ratios) * numpy.array([*ratios, 1])
    deviations = spread * numpy.sqrt(variances)
    return Components(*deviations.tolist(), *(variances / variances.sum()).tolist())


def seeds_needed(effects: ArrayLike, difference: float) -> int | None:
    """Return the number of seeds with which a paired t-test finds a difference.

    The test is two-sided at 5 % and finds it with a probability of at least 0.8.

    Args:
        effects: (seeds,), paired differences that tell the spread; nan are left out.
        difference: The true mean to find, in their unit.

    Returns:
        At least `FEWEST_SEEDS`; None where it is more than `MOST_SEEDS` or where fewer than two
        seeds tell no spread.
    """
    known = numpy.asarray(effects, dtype=float)
    known = known[~numpy.isnan(known)].round(DECIMALS)
    difference = round(abs(difference), DECIMALS)
    if len(known) < 2 or not difference > 0:
        return None
    spread = float(known.std(ddof=1))
    if spread == 0:
        return FEWEST_SEEDS

    def finds(seeds: int) -> bool:  # nan, by overflow, only where the power is next to 1
        return not TTestPower().power(difference / spread, seeds, 2 * ONE_SIDED) < 0.8

    seeds = range(FEWEST_SEEDS, MOST_SEEDS + 1)
    enough = bisect_left(seeds, True, key=finds)
    return seeds[enough] if enough < len(seeds) else None


def seeds_to_decide(effects: ArrayLike) -> int | None:
    """Return the number of seeds that would find an effect as large as the observed mean.

    A rough guide, since it takes the observed mean and spread for the true ones. See
    `seeds_needed`; None also where the observed mean is zero.
    """
    known = numpy.asarray(effects, dtype=float)
    return seeds_needed(known, estimate(known).mean)
