"""Estimates over seeds, and verdicts on claims; no model, condition or accuracy is known here.

Every interval is at 95 %, every test at 2.5 % to each side.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams
from statsmodels.stats.power import TTestPower

NAN = math.nan
ONE_SIDED = 0.025
DECIMALS = 12  # accuracies differ by more, so a smaller difference is a rounding error
VERDICTS = ("holds", "contradicted", "no difference", "undecided")
HOLDS, CONTRADICTED, NO_DIFFERENCE, UNDECIDED = VERDICTS
JUDGED = ["n", "effect", "low", "high", "verdict", "corrected", "p", "p_corrected"]
Effects: TypeAlias = pd.DataFrame | pd.Series  # a row a seed, a column a comparison


class Estimate(NamedTuple):
    """The mean over n seeds and its interval's ends, nan below two seeds."""

    n: int
    mean: float
    low: float
    high: float


def estimate(values: Iterable[float], new_run: bool = False) -> Estimate:
    """Return the mean with Student's t-interval, or the prediction interval of one new run."""
    known = np.asarray([value for value in values if not math.isnan(value)])
    n, mean = len(known), float(known.mean()) if len(known) else NAN
    if n < 2:
        return Estimate(n, mean, NAN, NAN)
    t = stats.t.ppf(1 - ONE_SIDED, n - 1)
    half = float(t * known.std(ddof=1) * math.sqrt(1 / n + new_run))
    return Estimate(n, mean, mean - half, mean + half)


def estimates(rows: pd.DataFrame, by: list[str], value: str, new_run: bool = False) -> pd.DataFrame:
    """Return the estimate of a column in every group, in the order of the groups."""
    groups = rows.groupby(by, sort=False)[value]
    found = [(*keys, *estimate(values, new_run)) for keys, values in groups]
    table = pd.DataFrame(found, columns=[*by, *Estimate._fields])
    return table.astype({"n": int, "mean": float, "low": float, "high": float})


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
    p_holds: float = NAN
    p_contradicted: float = NAN
    p_within: float = NAN
    deciding: int = 0

    @property
    def p(self) -> float:
        """The two-sided p of the claim's direction."""
        return float(np.minimum(1, 2 * min(self.p_holds, self.p_contradicted)))


def judge(effects: Effects | NDArray[np.float64], margin: float | None = None) -> Judgement:
    """Judge a claim by paired t-tests over seeds; the first rule that applies decides.

    - holds: every comparison is above zero (intersection-union; Berger 1982, Technometrics 24).
    - contradicted: some comparison is below zero, after Holm (1979) over the comparisons.
    - no difference: every comparison is within the margin (two one-sided tests; Schuirmann 1987).
    - undecided: otherwise, and always with fewer than two seeds.

    Effects are (seeds, comparisons), above zero where it holds; seeds with nan do not count. The
    margin is the largest effect that counts as no difference, None for never.
    """
    table = pd.DataFrame(effects).dropna().astype(float).round(DECIMALS).to_numpy()
    n = len(table)
    if table.size == 0:
        return Judgement(0, NAN, NAN, NAN, UNDECIDED)
    if n == 1:
        return Judgement(1, float(table.min()), NAN, NAN, UNDECIDED, deciding=int(table.argmin()))

    def test(against: float, side: str) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (table.mean(axis=0) - against) / (table.std(axis=0, ddof=1) / math.sqrt(n))
        # of seeds that all equal the tested value t is 0/0, and counts as 0
        p: NDArray[np.float64] = stats.t.sf(t if side == "above" else -t, n - 1)
        p[np.isnan(p)] = 0.5
        return p

    above, below = test(0, "above"), test(0, "below")
    p_holds, p_contradicted = float(above.max()), min(1.0, table.shape[1] * float(below.min()))
    p_within = NAN
    if margin is not None:
        p_within = float(max(test(-margin, "above").max(), test(margin, "below").max()))
    deciding = int(above.argmax())
    _, effect, low, high = estimate(table[:, deciding])
    verdict = _verdict(p_holds <= ONE_SIDED, p_contradicted <= ONE_SIDED, p_within <= ONE_SIDED)
    return Judgement(n, effect, low, high, verdict, p_holds, p_contradicted, p_within, deciding)


def _verdict(holds: bool, contradicted: bool, within: bool) -> str:
    if holds or contradicted:
        return HOLDS if holds else CONTRADICTED
    return NO_DIFFERENCE if within else UNDECIDED


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm; nan does not count."""
    # not by multipletests of statsmodels, which collects garbage, half a second each time
    p = pd.Series(p_values, dtype=float)
    order = p.dropna().sort_values(kind="stable")
    stepped = order * np.arange(len(order), 0, -1)
    return [*stepped.cummax().clip(upper=1).reindex(p.index)]


def correct(family: Sequence[Judgement]) -> list[tuple[str, float]]:
    """Return the verdict and p of every claim after Holm's correction, at 5 % over the family.

    "Holds" and "contradicted" share one family, "no difference" is another one.
    """
    p = holm([2 * min(judgement.p_holds, judgement.p_contradicted) for judgement in family])
    p_within = holm([2 * judgement.p_within for judgement in family])
    corrected = []
    for judgement, direction, equal in zip(family, p, p_within, strict=True):
        above, found = judgement.p_holds < judgement.p_contradicted, direction <= 2 * ONE_SIDED
        same = equal <= 2 * ONE_SIDED and judgement.verdict not in (HOLDS, CONTRADICTED)
        corrected.append((_verdict(found and above, found and not above, same), direction))
    return corrected


def judged(family: Sequence[tuple[dict[str, Any], Judgement]]) -> list[dict[str, Any]]:
    """Return the rows of a family with their judgements, raw and corrected, as `JUDGED`."""
    corrected = correct([judgement for _, judgement in family])
    rows = []
    for (row, judgement), (verdict, p) in zip(family, corrected, strict=True):
        said = judgement._asdict() | {"p": judgement.p, "corrected": verdict, "p_corrected": p}
        rows.append(row | {key: said[key] for key in JUDGED})
    return rows


def seeds_needed(effects: Iterable[float], difference: float) -> float:
    """Return with how many seeds, 3 to 1000, a paired t-test finds a difference with power 0.8."""
    spread = float(pd.Series([*effects], dtype=float).round(DECIMALS).std())
    difference, seeds = round(abs(difference), DECIMALS), range(3, 1001)
    if math.isnan(spread) or not difference > 0:
        return NAN

    def finds(n: int) -> bool:  # nan, by overflow, only where the power is next to 1
        return not TTestPower().power(difference / spread, n, 2 * ONE_SIDED) < 0.8

    enough = bisect_left(seeds, True, key=finds) if spread else 0
    return seeds[enough] if enough < len(seeds) else NAN


def seeds_to_decide(effects: Effects, judgement: Judgement) -> float:
    """Return roughly how many seeds would decide an undecided claim, its means being the true ones.

    The clearest of the comparisons below zero decides; without any, the least clear one.
    """
    table = pd.DataFrame(effects).dropna()
    if judgement.verdict != UNDECIDED or len(table) < 2:
        return NAN
    below = table.columns[table.mean() < 0]
    needed = [seeds_needed(table[c], table[c].mean()) for c in (below if len(below) else table)]
    counts = pd.Series(needed).fillna(math.inf)
    decisive = float(counts.min() if len(below) else counts.max())
    return max(decisive, len(table) + 1) if math.isfinite(decisive) else NAN


def components(values: pd.DataFrame) -> dict[Hashable, float]:
    """Return the variances by source of runs with crossed seeds, by a mixed model fitted by REML.

    The values have a column "value", and one of levels for each of the two sources; a row a run.
    """
    first, second = sources = [column for column in values if column != "value"]
    spread = float(values.value.std())
    if round(spread, DECIMALS) == 0:
        return dict.fromkeys([*sources, "rest"], 0.0)
    scaled = (values.value - values.value.mean()) / spread
    table = pd.DataFrame({"value": scaled, "a": values[first], "b": values[second]})
    one_group, formulas = np.ones(len(values)), {"a": "0 + C(a)", "b": "0 + C(b)"}  # crossed
    model = MixedLM.from_formula("value ~ 1", table, groups=one_group, vc_formula=formulas)
    # REML's optimum without MixedLM.fit, whose Hessian fails where a component is zero
    model.reml, model.cov_pen, model.fe_pen = True, None, None  # as fit sets them

    def unlikely(logs: NDArray[np.float64]) -> float:
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                likely = model.loglike(MixedLMParams.from_components(vcomp=np.exp(logs)))
        except np.linalg.LinAlgError:  # where nothing is left for the rest
            return math.inf
        return math.inf if math.isnan(likely) else -float(likely)

    # over the logs of both variances relative to the rest's
    options = {"xatol": 1e-4, "fatol": 1e-8, "maxiter": 2000}
    bounds = [(math.log(1e-8), math.log(1e8))] * 2
    found = optimize.minimize(
        unlikely, [0, 0], method="Nelder-Mead", bounds=bounds, options=options
    )
    ratios, others = np.exp(found.x), np.zeros((0, 0))
    scale = model.get_scale(model.get_fe_params(others, ratios)[0], others, ratios)
    variances = (spread**2 * scale * np.array([*ratios, 1])).tolist()
    return dict(zip([*sources, "rest"], variances, strict=True))


def over_seeds_and_images(
    first: NDArray[np.bool_], second: NDArray[np.bool_], labels: NDArray[np.integer[Any]]
) -> Estimate:
    """Return the mean difference of accuracies with an interval over new seeds and new images.

    The variance is that of the pigeonhole bootstrap (Owen 2007, AOAS 1) with infinitely many
    replicates, with n / (n − 1) on the seeds' part and Student's t, since seeds are few. It is
    conservative: in simulations of 5 and 10 seeds it covers 95 to 99.9 %. Of two conditions paired
    by seed, first and second are (seeds, images), right or wrong; the labels (images,) count alike.
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


def paired_images(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Return images gained, images lost and McNemar's p, clustered by image, given the networks.

    Seeds agree on an image, so it counts as one: z = Σd / √Σd² with d its seeds gained less those
    lost (Durkalski et al. 2003, Statistics in Medicine 22). Arguments as above.
    """
    by_image = first.sum(axis=0, dtype=int) - second.sum(axis=0, dtype=int)
    z = by_image.sum() / math.sqrt((by_image**2).sum()) if by_image.any() else 0.0
    return int((by_image > 0).sum()), int((by_image < 0).sum()), float(2 * stats.norm.sf(abs(z)))
