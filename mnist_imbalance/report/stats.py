"""Estimates over seeds and verdicts, at 95 %; no model, condition or accuracy is known here."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

NAN = math.nan
ONE_SIDED = 0.025
DECIMALS = 12  # accuracies differ by more, so a smaller difference is a rounding error
VERDICTS = ("holds", "contradicted", "no difference", "undecided")
HOLDS, CONTRADICTED, NO_DIFFERENCE, UNDECIDED = VERDICTS
JUDGED = ["n", "effect", "low", "high", "verdict", "corrected", "p", "p_corrected"]
TESTED = ["p_holds", "p_contradicted", "p_within"]
Effects: TypeAlias = pd.DataFrame | pd.Series  # one row per seed, one column per comparison


class Estimate(NamedTuple):
    """The mean over n seeds and its interval's ends, nan below two seeds."""

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Iterable[float], new_run: bool = False) -> Estimate:
    """Return the mean with Student's t-interval, or that of one new run after three or more."""
    known = np.asarray([value for value in values if not math.isnan(value)])
    n, mean = len(known), float(known.mean()) if len(known) else NAN
    if n < 2 + new_run:
        return Estimate(n, mean, NAN, NAN)
    t = stats.t.ppf(1 - ONE_SIDED, n - 1)
    half = float(t * known.std(ddof=1) * math.sqrt(1 / n + new_run))
    return Estimate(n, mean, mean - half, mean + half)


def estimates(rows: pd.DataFrame, by: list[str], value: str, new_run: bool = False) -> pd.DataFrame:
    """Return the estimate of a column in every group, in the order of the groups."""
    groups = rows.groupby(by, sort=False)[value]
    rows = [(*k, *estimate(own, new_run), own.min(), own.max()) for k, own in groups]
    return pd.DataFrame(rows, columns=[*by, *Estimate._fields, "least", "most"])


def fieller(gained: pd.Series, lost: pd.Series) -> Estimate:
    """Return mean(gained) / mean(lost) with Fieller's interval (1954, JRSS B 16) for pairs.

    The ends are infinite where ``lost`` does not differ from zero: every fraction may be true.
    """
    n, gain, loss = len(gained), float(gained.mean()), float(lost.mean())
    ratio = gain / loss if n and loss else NAN
    if n < 2:
        return Estimate(n, ratio, NAN, NAN)
    scale = stats.t.ppf(1 - ONE_SIDED, n - 1) ** 2 / n
    (gain_gain, gain_loss), (_, loss_loss) = (scale * np.cov(gained, lost)).tolist()
    # fractions f with (gain − f·loss)² ≤ t²·variance(gain − f·loss): a·f² − 2·b·f + c ≤ 0
    a, b, c = loss**2 - loss_loss, gain * loss - gain_loss, gain**2 - gain_gain
    if a <= 0:
        return Estimate(n, ratio, -math.inf, math.inf)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Estimate(n, ratio, (b - root) / a, (b + root) / a)


class Judgement(NamedTuple):
    """A claim's verdict; effect, low and high are those of the comparison that decides."""

    n: int
    effect: float
    low: float
    high: float
    verdict: str
    p: float = NAN  # two-sided
    p_holds: float = NAN
    p_contradicted: float = NAN
    p_within: float = NAN
    deciding: int = 0


def judge(effects: Effects | NDArray[np.float64], margin: float | None = None) -> Judgement:
    """Judge a claim by paired t-tests over seeds; the first rule that applies decides.

    - holds: every comparison is above zero (intersection-union; Berger 1982, Technometrics 24).
    - contradicted: some comparison is below zero, after Holm (1979) over the comparisons.
    - no difference: every comparison is within the margin (two one-sided tests; Schuirmann 1987).
    - undecided: otherwise, and always with fewer than two seeds.

    Effects are (seeds, comparisons), above zero where it holds; seeds with nan do not count. The
    margin is the largest effect that counts as no difference, None for never.
    """
    table = np.column_stack([np.asarray(effects, float)])
    table = table[~np.isnan(table).any(axis=1)].round(DECIMALS)
    n = len(table) if table.size else 0
    if n < 2:
        lowest = (float(table.min()), NAN, NAN) if n else (NAN, NAN, NAN)
        return Judgement(n, *lowest, UNDECIDED, deciding=int(table.argmin()) if n else 0)

    def test(against: float, sign: int) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (table.mean(axis=0) - against) / (table.std(axis=0, ddof=1) / math.sqrt(n))
        # of seeds that all equal the tested value t is 0/0, and counts as 0
        return np.nan_to_num(stats.t.sf(sign * t, n - 1), nan=0.5)

    above, below = test(0, 1), test(0, -1)
    p_holds, p_contradicted = float(above.max()), min(1.0, table.shape[1] * float(below.min()))
    within = () if margin is None else (*test(-margin, 1), *test(margin, -1))
    p_within = float(max(within, default=NAN))
    deciding = int(above.argmax())
    _, effect, low, high = estimate(table[:, deciding])
    rules = {HOLDS: p_holds, CONTRADICTED: p_contradicted, NO_DIFFERENCE: p_within}
    verdict = next((rule for rule, p in rules.items() if p <= ONE_SIDED), UNDECIDED)
    p = min(1.0, 2 * min(p_holds, p_contradicted))
    return Judgement(n, effect, low, high, verdict, p, p_holds, p_contradicted, p_within, deciding)


def holm(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted by Holm; nan does not count."""
    # not by multipletests of statsmodels, which collects garbage, half a second each time
    order = p_values.dropna().sort_values(kind="stable")
    stepped = order * np.arange(len(order), 0, -1)
    return stepped.cummax().clip(upper=1).reindex(p_values.index)


def apply_holm(rows: list[dict[str, Any]], family: list[str], columns: list[str]) -> pd.DataFrame:
    """Return columns of judged rows, corrected by Holm within each family."""
    table = pd.DataFrame(rows).reindex(columns=dict.fromkeys([*family, *columns, *JUDGED, *TESTED]))
    table["p_corrected"], within = (
        table[name].astype(float).groupby([table[key] for key in family]).transform(holm)
        for name in ("p", "p_within")
    )
    found, above = table.p_corrected <= 2 * ONE_SIDED, table.p_holds < table.p_contradicted
    equal = (within <= ONE_SIDED) & ~table.verdict.isin([HOLDS, CONTRADICTED])
    rules = [found & above, found & ~above, equal]  # the first two share one correction
    table["corrected"] = np.select(rules, VERDICTS[:3], UNDECIDED)
    return table[columns]


def combine(effects: pd.DataFrame) -> tuple[float, float, float, float]:
    """Return the mean of effects over comparisons, its interval's ends, and their true s.d.

    By Paule and Mandel (1982) with Hartung and Knapp's interval, never narrower than without their
    factor (Röver et al. 2015). Rows have n, effect and low.
    """
    halves = (effects.effect - effects.low) / stats.t.ppf(1 - ONE_SIDED, effects.n - 1)
    with np.errstate(divide="ignore"):  # of effects that are all the same
        found = combine_effects(effects.effect.to_numpy(), halves.to_numpy() ** 2, use_t=True)
    _, usual, _, scaled = found.conf_int()
    low, high = float(min(usual[0], scaled[0])), float(max(usual[1], scaled[1]))
    return float(found.mean_effect_re), low, high, math.sqrt(max(found.tau2, 0))


def over_seeds_and_images(
    first: NDArray[np.bool_], second: NDArray[np.bool_], labels: NDArray[np.integer[Any]]
) -> Estimate:
    """Return the mean difference of accuracies with an interval over new seeds and new images.

    The variance is that of infinitely many replicates of the pigeonhole bootstrap (Owen 2007,
    AOAS 1), with n / (n − 1) on the seeds' part and Student's t: conservative. Both conditions,
    paired by seed, are (seeds, images), right or wrong; the labels (images,) count alike.
    """
    difference = first.astype(np.int8) - second.astype(np.int8)
    parts = [difference[:, labels == label] for label in np.unique(labels)]
    by_seed = np.mean([part.mean(axis=1) for part in parts], axis=0)
    n, mean = len(first), float(by_seed.mean())
    if n < 2:
        return Estimate(n, mean, NAN, NAN)
    images = sum(part.sum(axis=0).var() / part.shape[1] for part in parts) / len(parts) ** 2 / n**2
    both = sum(part.var(axis=1).sum() / part.shape[1] for part in parts) / len(parts) ** 2 / n
    variance = by_seed.var(ddof=1) / n + images + (both - images) / n
    half = float(stats.t.ppf(1 - ONE_SIDED, n - 1)) * math.sqrt(variance)
    return Estimate(n, mean, mean - half, mean + half)
