"""Estimates and verdicts by hand, by other libraries, and over studies whose truth is known."""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from mnist_imbalance.report import stats
from mnist_imbalance.report.stats import estimate, judge

STUDIES = 500  # whose rate of errors may exceed its level by three standard errors


def test_students_interval_and_that_of_one_new_run() -> None:
    half = 4.302653 / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom; s.d. 1
    assert estimate([1.0, 2.0, math.nan, 3.0]) == pytest.approx((3, 2, 2 - half, 2 + half))
    half = 4.302653 * math.sqrt(1 + 1 / 3)
    assert estimate([1.0, 2.0, 3.0], new_run=True) == pytest.approx((3, 2, 2 - half, 2 + half))
    assert estimate([0.7]) == pytest.approx((1, 0.7, math.nan, math.nan), nan_ok=True)
    assert estimate([math.nan]) == pytest.approx((0, *[math.nan] * 3), nan_ok=True)


def comparisons(*means: float) -> Any:
    """Five seeds with a spread of sqrt(2.5), so that the t-interval of each is ± 1.963."""
    return np.arange(-2.0, 3.0)[:, None] + np.array(means)


def test_one_comparison_is_students_t_test() -> None:
    result = judge(comparisons(3))
    expected = scipy.stats.ttest_1samp(comparisons(3)[:, 0], 0, alternative="greater").pvalue
    assert (result.n, result.effect, result.verdict) == (5, 3, "holds")
    assert (result.p_holds, result.p) == pytest.approx((expected, 2 * expected))
    assert math.isnan(result.p_within)
    assert (result.low, result.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    within = DescrStatsW(comparisons(0.5)[:, 0]).ttost_mean(-2, 2)[0]
    assert judge(comparisons(0.5), margin=2).p_within == pytest.approx(within)
    missing = np.vstack([comparisons(3), [[math.nan]]])  # its seed is left out
    assert judge(missing) == pytest.approx(result, nan_ok=True)


def test_the_first_rule_that_applies_decides_by_the_least_certain_comparison() -> None:
    for means, margin, verdict in (
        ((3, 4), None, "holds"),
        ((2,), 9, "holds"),  # though also within the margin
        ((-2.2,), None, "contradicted"),
        ((-2.2, 0, 9), None, "undecided"),  # corrected for three comparisons
        ((-5, 9, 9), None, "contradicted"),
        ((0, 0.5), 2.5, "no difference"),
        ((0, -0.6), 2.5, "undecided"),  # one interval leaves the margin
        ((0, 0.5), None, "undecided"),
    ):
        result = judge(comparisons(*means), margin)
        assert result.verdict == verdict
        one_sided = [judge(comparisons(mean)).p_contradicted for mean in means]
        holm = multipletests(one_sided, method="holm")[1]
        assert result.p_contradicted == pytest.approx(holm.min())
    effects = comparisons(1, 1.5, 9)
    effects[:, 0] = 1 + (effects[:, 0] - 1) / 100  # small, and surely above zero
    result = judge(effects)
    assert (result.verdict, result.deciding, result.effect) == ("undecided", 1, 1.5)
    assert result.low < 0 < result.high


def test_seeds_that_are_all_equal() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdicts = {0.1: "holds", -0.1: "contradicted", 0.3 - 0.1 - 0.2: "undecided"}  # -2.8e-17
        assert {value: judge(np.full(5, value)).verdict for value in verdicts} == verdicts
        assert judge(np.zeros(5), margin=0.01).verdict == "no difference"
        constant = judge(np.tile([0.0, 0.01], (5, 1)), margin=0.01)
        assert (constant.verdict, constant.p_within) == ("undecided", 0.5)


def test_too_few_runs_decide_nothing() -> None:
    few = {(): (0, math.nan, 0), (0.5,): (1, 0.5, 0), ((0.5, 0.2),): (1, 0.2, 1)}
    few |= {((0.5, math.nan),): (0, math.nan, 0)}
    for effects, (n, effect, deciding) in few.items():
        result = judge(np.array(effects), margin=1)
        assert (result.n, result.verdict, result.deciding) == (n, "undecided", deciding)
        assert (result.effect, result.p) == pytest.approx((effect, math.nan), nan_ok=True)


def test_a_family_is_corrected_by_holm() -> None:
    ways = [(0.001, 0.999), (math.nan, math.nan), (0.98, 0.02), (0.010, 0.99), (0.6, 0.4)]
    rows = [
        {"family": family, "verdict": "undecided", "p": 2 * min(up, down)}
        | {"p_holds": up, "p_contradicted": down, "p_within": math.nan}
        for family, (up, down) in (*((1, way) for way in ways), (2, ways[2]))
    ]
    found = stats.apply_holm(rows, ["family"], ["corrected", "p_corrected"])
    # two-sided .002, .04, .02 and .8: times 4, 2 and 3 of four claims; the last at most 1
    expected = [0.008, math.nan, 0.08, 0.06, 0.8, 0.04]
    assert found.p_corrected.to_numpy() == pytest.approx(expected, nan_ok=True)
    assert [*found.corrected] == ["holds", *["undecided"] * 4, "contradicted"]
    assert [*stats.apply_holm([], ["family"], ["n", "corrected"])] == ["n", "corrected"]


def ratio(gained: list[float], lost: list[float]) -> tuple[float, ...]:
    return stats.fieller(pd.Series(gained, dtype=float), pd.Series(lost, dtype=float))


def test_fieller_by_hand() -> None:
    # gained 1..5: mean 3, variance 2.5; lost 9, 11, 10, 9, 11: mean 10, variance 1; covariance 0.5.
    # With q = t² / 5 = 1.541730: a = 100 − q, b = 30 − 0.5 q, c = 9 − 2.5 q, that is
    # 98.458270, 29.229135 and 5.145675; √(b² − a c) = √(854.342333 − 506.634259) = 18.646932.
    expected = (5, 0.3, 0.107479, 0.486258)
    assert ratio([1, 2, 3, 4, 5], [9, 11, 10, 9, 11]) == pytest.approx(expected, abs=1e-6)
    assert ratio([1, 2, 3], [-1, 0, 1.5])[2:] == (-math.inf, math.inf)
    assert ratio([1, 1, 1], [2, 2, 2]) == (3, 0.5, 0.5, 0.5)
    assert np.isnan(ratio([1], [2])[2:] + ratio([], [])[1:]).all()


def test_effects_as_certain_as_each_other_are_combined_as_by_students_interval() -> None:
    effects = pd.DataFrame({"n": [5] * 3, "effect": [1.0, 2.0, 3.0]})
    half = 2.776445 * 0.5  # of each, with a variance of ¼, of which the true one is less
    found = stats.combine(effects.assign(low=effects.effect - half))
    assert found == pytest.approx((*estimate([1, 2, 3])[1:], math.sqrt(0.75)), abs=1e-5)
    *_, low, high, spread = stats.combine(effects.assign(effect=2, low=2 - half))
    wide = 4.302653 * 0.5 / math.sqrt(3)  # and no narrower where they happen to agree
    assert (low, high, spread) == pytest.approx((2 - wide, 2 + wide, 0), abs=1e-5)


of_seeds = pytest.mark.parametrize("n", [5, 10])


def within(rate: float, lowest: float, highest: float) -> bool:
    lower, upper = (3 * math.sqrt(p * (1 - p) / STUDIES) for p in (lowest, highest))
    return lowest - lower <= rate <= highest + upper


@of_seeds
@pytest.mark.parametrize(
    ("means", "lowest"),
    [((0.0,) * 8, 0), ((0.0, *[9.0] * 7), 0.025)],  # the latter is easiest to claim wrongly
)
def test_no_claim_is_judged_by_chance(n: int, means: tuple[float, ...], lowest: float) -> None:
    effects = np.random.default_rng(n).normal(size=(STUDIES, n, len(means))) + np.array(means)
    judgements = [*map(judge, effects)]
    found = pd.Series([judgement.verdict for judgement in judgements]).value_counts() / STUDIES
    assert within(found.get("holds", 0), lowest, 0.025)
    assert within(found.get("contradicted", 0), 0, 0.025)
    # the interval shown is that of the comparison which decides
    assert all((judgement.low > 0) == (judgement.verdict == "holds") for judgement in judgements)


@of_seeds
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_fiellers_interval_covers_the_true_fraction(n: int, spread: float) -> None:
    """With the larger spread, some studies do not know whether anything was lost."""
    random = np.random.default_rng(n)
    lost = random.normal(1, spread, size=(STUDIES, n))
    gained = 0.4 + 0.7 * (lost - 1) + random.normal(0, 0.1, size=(STUDIES, n))
    found = [stats.fieller(*map(pd.Series, pair)) for pair in zip(gained, lost, strict=True)]
    covered = sum(interval.low <= 0.4 <= interval.high for interval in found) / STUDIES
    unknown = sum(math.isinf(interval.low) for interval in found) / STUDIES
    assert unknown > 0.1 if spread == 1 else unknown < 0.01
    assert within(covered, 0.95, 1 if unknown else 0.95)


LABELS = np.repeat([0, 1], [60, 120])
LEVELS = np.array([[1.5, 1.0], [0.8, 0.6]])  # probits: one row per condition, one column per label


@of_seeds
@pytest.mark.parametrize(
    ("of_seed", "of_image", "highest", "seeds_highest"),
    [(0.3, 0.3, 1.0, 1.0), (0.5, 2.0, 1.0, 0.93), (0.0, 2.0, 1.0, 0.7), (1.0, 0.0, 0.99, 1.0)],
    ids=["little of both", "more of images", "images alone", "seeds alone"],
)
def test_the_interval_over_seeds_and_images_covers_the_truth(
    n: int, of_seed: float, of_image: float, highest: float, seeds_highest: float
) -> None:
    """It is wide where images matter, and so it may be; one over seeds alone is too narrow."""
    random, scale = np.random.default_rng(n), math.sqrt(1 + of_seed**2 + of_image**2)
    true = np.subtract(*scipy.stats.norm.cdf(LEVELS / scale).mean(axis=1))
    covers = seeds_cover = 0
    for _ in range(STUDIES):  # correct images, (2, n, images), from probits with planted effects
        probit = LEVELS[:, None, LABELS] + random.normal(size=(2, n, len(LABELS)))
        probit += of_seed * random.normal(size=(2, n, 1))
        first, second = probit + of_image * random.normal(size=(2, 1, len(LABELS))) > 0
        found = stats.over_seeds_and_images(first, second, LABELS)
        covers += found.low <= true <= found.high
        of_labels = [(first * 1.0 - second)[:, label == LABELS].mean(axis=1) for label in (0, 1)]
        alone = estimate(np.mean(of_labels, axis=0))
        seeds_cover += alone.low <= true <= alone.high
    assert within(covers / STUDIES, 0.95, highest)
    assert seeds_cover / STUDIES <= seeds_highest
