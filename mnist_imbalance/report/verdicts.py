"""The verdicts on claims, by tests over seeds; the module knows no model, condition or accuracy.

A test is at a 95 % two-sided level: at 2.5 % to each side.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.weightstats import DescrStatsW

from mnist_imbalance.report.statistics import DECIMALS, ONE_SIDED

HOLDS, CONTRADICTED, NO_DIFFERENCE, UNDECIDED = VERDICTS = (
    "holds",
    "contradicted",
    "no difference",
    "undecided",
)
TOLD = [
    "n",
    "effect",
    "low",
    "high",
    "verdict",
    "corrected",
    "p",
    "p_corrected",
]  # of a claim, in tables


class Judgement(NamedTuple):
    """What the runs say about a claim.

    Attributes:
        n: Seeds that have every comparison.
        effect: Mean over seeds of the comparison that decides, the least certain to be above zero;
            nan where n is 0.
        low: Lower end of that comparison's own 95 % t-interval; nan where n is below 2.
        high: Upper end.
        p_holds: One-sided p of "every comparison is above zero"; nan where n is below 2.
        p_contradicted: One-sided p of "some comparison is below zero", after Holm.
        p_within: p of "every comparison is within the margin"; nan without a margin.
        verdict: One of `VERDICTS`.
        deciding: Number of the comparison that decides.
    """

    n: int
    effect: float
    low: float
    high: float
    p_holds: float
    p_contradicted: float
    p_within: float
    verdict: str
    deciding: int


def judge(effects: ArrayLike, margin: float | None = None) -> Judgement:
    """Judge a claim by paired t-tests over seeds; the first of these rules that applies decides.

    - holds: every comparison is above zero, each tested at 2.5 % without correction
      (intersection-union test; Berger 1982, Technometrics 24).
    - contradicted: some comparison is below zero, at 2.5 % after Holm (1979, Scandinavian Journal
      of Statistics 6) over the comparisons.
    - no difference: every comparison's 95 % interval is within ±margin (two one-sided tests at
      2.5 %; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15).
    - undecided: otherwise, and always with fewer than two seeds or without comparisons.

    With several comparisons the interval alone does not tell the verdict: it is of one of them,
    the one that decides.

    Args:
        effects: (seeds, comparisons), or (seeds,) for one comparison; above zero where the claim
            holds. Seeds that lack a comparison (nan) are left out; values are rounded to 12
            decimals, so that a difference of equals is zero.
        margin: Largest effect that counts as no difference, in the effects' unit; None for never.
    """
    table = numpy.asarray(effects, dtype=float)
    table = table.reshape(len(table), -1) if table.size else table.reshape(0, 0)
    table = table[~numpy.isnan(table).any(axis=1)].round(DECIMALS)
    n = len(table)
    if n < 2:
        deciding = int(table[0].argmin()) if table.size else 0
        effect = float(table[0, deciding]) if table.size else math.nan
        nan = math.nan
        return Judgement(n, effect, nan, nan, nan, nan, nan, UNDECIDED, deciding)
    over_seeds = DescrStatsW(table)
    p_within = math.nan
    with numpy.errstate(divide="ignore", invalid="ignore"):  # seeds that are all equal
        above = over_seeds.ttest_mean(0, alternative="larger")[1]
        below = over_seeds.ttest_mean(0, alternative="smaller")[1]
        if margin is not None:
            p_within = _largest(over_seeds.ttost_mean(-margin, margin)[0])
    p_holds = _largest(above)
    # the smallest of k p-values is multiplied by k, by Holm as by Bonferroni
    p_contradicted = min(1.0, table.shape[1] * float(numpy.nan_to_num(below, nan=0.5).min()))
    deciding = int(numpy.nan_to_num(above, nan=0.5).argmax())
    low, high = (float(ends[deciding]) for ends in over_seeds.tconfint_mean())
    verdict = _verdict(p_holds <= ONE_SIDED, p_contradicted <= ONE_SIDED, p_within <= ONE_SIDED)
    effect = float(over_seeds.mean[deciding])
    return Judgement(n, effect, low, high, p_holds, p_contradicted, p_within, verdict, deciding)


def _largest(p_values: NDArray[numpy.float64]) -> float:
    """Return the largest; equal seeds exactly at the tested value, 0/0, count as t = 0."""
    return float(numpy.nan_to_num(p_values, nan=0.5).max())


def _verdict(holds: bool, contradicted: bool, within: bool) -> str:
    if holds:
        return HOLDS
    if contradicted:
        return CONTRADICTED
    return NO_DIFFERENCE if within else UNDECIDED


def two_sided(judgement: Judgement) -> float:
    """Return the two-sided p of the claim's direction, uncorrected; nan where n is below 2."""
    if judgement.n < 2:
        return math.nan
    return min(1.0, 2 * min(judgement.p_holds, judgement.p_contradicted))


class Corrected(NamedTuple):
    """A claim's verdict as one of a family.

    Attributes:
        p: Two-sided p of the claim's direction, after Holm; nan where the claim has none.
        p_within: Two-sided p of "no difference", after Holm; nan where the claim has none.
        verdict: One of `VERDICTS`, at 5 % over the family.
    """

    p: float
    p_within: float
    verdict: str


def correct(judgements: Sequence[Judgement]) -> list[Corrected]:
    """Correct verdicts for the number of claims in a declared family, by Holm (1979).

    A claim's directional p is min(1, 2·min(p_holds, p_contradicted)), so "holds" and
    "contradicted" share one family at 5 %; "no difference", with 2·p_within, is another one.
    Claims whose p is nan stay undecided and do not count.

    Returns:
        One for each judgement, in order.
    """
    p_values = numpy.array(
        [(min(each.p_holds, each.p_contradicted), each.p_within) for each in judgements]
    ).reshape(-1, 2)
    adjusted = numpy.column_stack([_holm(2 * column) for column in p_values.T])
    corrected = []
    for judgement, (p, p_within) in zip(judgements, adjusted.tolist(), strict=True):
        above = judgement.p_holds < judgement.p_contradicted
        level = 2 * ONE_SIDED
        within = p_within <= level and judgement.verdict not in (HOLDS, CONTRADICTED)
        verdict = _verdict(p <= level and above, p <= level and not above, within)
        corrected.append(Corrected(p, p_within, verdict))
    return corrected


def with_verdicts(
    family: Sequence[tuple[dict[str, object], Judgement]],
) -> list[dict[str, object]]:
    """Return the rows of a family with what is told of their judgements, `TOLD`."""
    corrected = correct([judgement for _, judgement in family])
    return [
        row
        | {key: getattr(judgement, key) for key in ("n", "effect", "low", "high", "verdict")}
        | {"corrected": in_family.verdict}
        | {"p": two_sided(judgement), "p_corrected": in_family.p}
        for (row, judgement), in_family in zip(family, corrected, strict=True)
    ]


def _holm(p_values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Adjust p-values, which may exceed 1 or be nan; nan are left out of the family."""
    known = ~numpy.isnan(p_values)
    adjusted = numpy.full(len(p_values), math.nan)
    order = numpy.flatnonzero(known)[p_values[known].argsort()]
    # written out, since statsmodels' multipletests collects garbage, half a second each time
    stepped = p_values[order] * numpy.arange(len(order), 0, -1)
    adjusted[order] = numpy.minimum(numpy.maximum.accumulate(stepped), 1)
    return adjusted
