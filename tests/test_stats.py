"""Estimates and verdicts by hand, by other libraries, and on edges."""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from mnist_imbalance.report.stats import (
    components,
    corrected,
    estimate,
    fieller,
    holm,
    judge,
    over_seeds_and_images,
    paired_images,
    seeds_needed,
    seeds_to_decide,
)

Values = NDArray[np.float64]


def test_students_interval_and_that_of_one_new_run() -> None:
    half = 4.302653 / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom; s.d. 1
    assert estimate([1.0, 2.0, math.nan, 3.0]) == pytest.approx((3, 2, 2 - half, 2 + half))
    half = 4.302653 * math.sqrt(1 + 1 / 3)
    assert estimate([1.0, 2.0, 3.0], new_run=True) == pytest.approx((3, 2, 2 - half, 2 + half))
    assert estimate([0.7]) == pytest.approx((1, 0.7, math.nan, math.nan), nan_ok=True)
    assert estimate([math.nan]) == pytest.approx((0, *[math.nan] * 3), nan_ok=True)
    assert estimate([0.5, 0.5]) == (2, 0.5, 0.5, 0.5)


def comparisons(*means: float) -> Values:
    """Five seeds with a spread of sqrt(2.5), so that the t-interval of each is ± 1.963."""
    spread: Values = np.arange(-2.0, 3.0)[:, None]
    return spread + np.array(means, dtype=np.float64)


def test_one_comparison_is_students_t_test() -> None:
    result = judge(comparisons(3))
    expected = scipy_stats.ttest_1samp(comparisons(3)[:, 0], 0, alternative="greater").pvalue
    assert (result.n, result.effect, result.verdict) == (5, 3, "holds")
    assert (result.p_holds, result.p) == pytest.approx((expected, 2 * expected))
    assert math.isnan(result.p_within)
    assert (result.low, result.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    within = DescrStatsW(comparisons(0.5)[:, 0]).ttost_mean(-2, 2)[0]
    assert judge(comparisons(0.5), margin=2).p_within == pytest.approx(within)
    missing = np.vstack([comparisons(3), [[math.nan]]])  # its seed is left out
    assert judge(missing) == pytest.approx(result, nan_ok=True)


@pytest.mark.parametrize(
    ("means", "margin", "verdict"),
    [
        ((3, 4), None, "holds"),
        ((2,), 9, "holds"),  # though also within the margin
        ((-3,), None, "contradicted"),
        ((-2.2,), None, "contradicted"),
        ((-2.2, 0, 9), None, "undecided"),  # corrected for three comparisons
        ((-5, 9, 9), None, "contradicted"),
        ((0, 0.5), 2.5, "no difference"),
        ((0, -0.6), 2.5, "undecided"),  # one interval leaves the margin
        ((0, 0.5), None, "undecided"),
    ],
)
def test_the_first_rule_that_applies_decides(
    means: tuple[float, ...], margin: float | None, verdict: str
) -> None:
    result = judge(comparisons(*means), margin)
    assert result.verdict == verdict
    one_sided = [judge(comparisons(mean)).p_contradicted for mean in means]
    holm = multipletests(one_sided, method="holm")[1]
    assert result.p_contradicted == pytest.approx(holm.min())


def test_the_least_certain_comparison_decides() -> None:
    effects = comparisons(1, 1.5, 9)
    effects[:, 0] = 1 + (effects[:, 0] - 1) / 100  # small, and surely above zero
    result = judge(effects)
    assert (result.verdict, result.deciding, result.effect) == ("undecided", 1, 1.5)
    assert result.p_holds == judge(comparisons(1.5)).p_holds
    assert result.low < 0 < result.high


def test_seeds_that_are_all_equal() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdicts = {0.1: "holds", -0.1: "contradicted", 0.3 - 0.1 - 0.2: "undecided"}  # -2.8e-17
        assert {value: judge(np.full(5, value)).verdict for value in verdicts} == verdicts
        assert judge(np.zeros(5), margin=0.01).verdict == "no difference"
        constant = judge(np.tile([0.0, 0.01], (5, 1)), margin=0.01)
        assert (constant.verdict, constant.p_within) == ("undecided", 0.5)


@pytest.mark.parametrize(
    ("effects", "n", "effect", "deciding"),
    [
        *(([], 0, math.nan, 0), ([0.5], 1, 0.5, 0)),
        *(([[0.5, 0.2]], 1, 0.2, 1), ([[0.5, math.nan]], 0, math.nan, 0)),
    ],
)
def test_too_few_runs_decide_nothing(
    effects: list[Any], n: int, effect: float, deciding: int
) -> None:
    result = judge(np.array(effects), margin=1)
    assert (result.n, result.verdict, result.deciding) == (n, "undecided", deciding)
    assert (result.effect, result.p) == pytest.approx((effect, math.nan), nan_ok=True)


def row(p_holds: float, p_contradicted: float, p_within: float = math.nan) -> dict[str, Any]:
    p = 2 * min(p_holds, p_contradicted)
    values = {"p": p, "p_holds": p_holds, "p_contradicted": p_contradicted, "p_within": p_within}
    return values | {"family": 1, "verdict": "undecided"}


def test_a_family_is_corrected_by_holm() -> None:
    family = [row(0.001, 0.999), row(0.98, 0.02), row(0.010, 0.99), row(0.6, 0.4)]
    family.insert(1, row(math.nan, math.nan))
    other = row(0.98, 0.02) | {"family": 2}
    found = corrected([*family, other], ["family"], ["corrected", "p_corrected"])
    # two-sided .002, .04, .02 and .8: times 4, 2 and 3 of four claims; the last at most 1
    expected = [0.008, math.nan, 0.08, 0.06, 0.8, 0.04]
    assert found.p_corrected.to_numpy() == pytest.approx(expected, nan_ok=True)
    assert [*found.corrected] == ["holds", *["undecided"] * 4, "contradicted"]
    p_values = [0.002, 0.04, 0.02, 0.8]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(pd.Series(p_values)).to_numpy() == pytest.approx(expected)
    assert [*corrected([], ["family"], ["n", "corrected"])] == ["n", "corrected"]


def test_a_claim_of_another_direction_is_no_equality() -> None:
    holding, others = judge(comparisons(2.2), margin=9), [judge(comparisons(0.1), margin=0.3)] * 24
    for verdict, expected in (("holds", "undecided"), ("undecided", "no difference")):
        family = [holding._replace(verdict=verdict), *others]
        rows = [judgement._asdict() | {"family": 1} for judgement in family]
        assert corrected(rows, ["family"], ["corrected"]).corrected[0] == expected


def ratio(gained: list[float], lost: list[float]) -> tuple[float, ...]:
    return fieller(pd.Series(gained, dtype=float), pd.Series(lost, dtype=float))


def test_fieller_by_hand() -> None:
    # gained 1..5: mean 3, variance 2.5; lost 9, 11, 10, 9, 11: mean 10, variance 1; covariance 0.5.
    # With q = t² / 5 = 1.541730: a = 100 − q, b = 30 − 0.5 q, c = 9 − 2.5 q, that is
    # 98.458270, 29.229135 and 5.145675; √(b² − a c) = √(854.342333 − 506.634259) = 18.646932.
    expected = (5, 0.3, 0.107479, 0.486258)
    assert ratio([1, 2, 3, 4, 5], [9, 11, 10, 9, 11]) == pytest.approx(expected, abs=1e-6)
    assert ratio([1, 2, 3], [-1, 0, 1.5])[2:] == (-math.inf, math.inf)
    assert ratio([1, 2, 3], [0, 0, 0])[2:] == (-math.inf, math.inf)
    assert ratio([1, 1, 1], [2, 2, 2]) == (3, 0.5, 0.5, 0.5)
    assert ratio([1], [2])[:2] == (1, 0.5)
    assert np.isnan(ratio([1], [2])[2:] + ratio([], [])[1:]).all()


def test_planted_components_are_recovered_as_by_the_analysis_of_variance() -> None:
    random = np.random.default_rng(1)
    by_row, by_column = random.normal(0, 0.02, (6, 1)), random.normal(0, 0.01, 6)
    square = 0.9 + by_row + by_column + random.normal(0, 0.005, (6, 6))
    rest = square - square.mean(axis=1, keepdims=True) - square.mean(axis=0) + square.mean()
    rest = (rest**2).sum() / 25
    expected = [square.mean(axis=axis).var(ddof=1) - rest / 6 for axis in (1, 0)]
    assert components(square) == pytest.approx([*expected, rest], rel=0.001)
    assert components(np.ones((3, 3))).tolist() == [0, 0, 0]
    none = components(0.9 + by_row + random.normal(0, 0.005, (6, 6)) * [[1, -1] * 3])
    assert none[1] < 0.05 * none[0]
    nothing_left = components(by_row + by_column)
    assert nothing_left[2] < 1e-6 * nothing_left[0]


def test_seeds_for_a_power_of_four_fifths() -> None:
    spread_1 = [-math.sqrt(0.5), math.sqrt(0.5), math.nan]
    assert seeds_needed(spread_1, 1) == 10  # as in textbooks' tables: 0.803, and 0.763 with 9
    assert seeds_needed(spread_1, -0.5) == 34
    assert [seeds_needed(spread_1, huge) for huge in (5, 100, 1e8)] == [3] * 3
    assert seeds_needed([0.5, 0.5], 1) == 3
    few = [seeds_needed(spread_1, 0.08), seeds_needed([0.5], 1), seeds_needed([0.5, 0.6], 0)]
    assert np.isnan(few).all()


def test_the_seeds_that_would_decide() -> None:
    for means, choose in (((0.5, 1), max), ((-0.5, -1, 9), min)):
        effects = pd.DataFrame(comparisons(*means) / 2)
        needed = [seeds_needed(effects[column], mean / 2) for column, mean in enumerate(means)]
        assert seeds_to_decide(effects, judge(effects)) == choose(needed[:2])
    assert math.isnan(seeds_to_decide(effects + 9, judge(effects + 9)))
    clear = pd.DataFrame(comparisons(1.9))
    assert seeds_to_decide(clear, judge(clear)) > 5  # more than there are


def right(*seeds: str) -> NDArray[np.bool_]:
    """Networks by their images: 1 for a correct one."""
    return np.array([[image == "1" for image in seed] for seed in seeds])


def test_images_by_mcnemar_whose_seeds_count_as_one() -> None:
    random = np.random.default_rng(1)
    one, other = random.random((1, 300)) < 0.9, random.random((1, 300)) < 0.8
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), 0]]
    expected = mcnemar(table, exact=False, correction=False).pvalue
    assert paired_images(one, other) == pytest.approx((table[0][1], table[1][0], expected))
    first, second = right("11110", "11111"), right("00110", "00010")
    # an image's seeds: +2, +2, +1, 0, +1, so z = 6 / √(4 + 4 + 1 + 1)
    result = paired_images(first, second)
    assert result == pytest.approx((4, 0, math.erfc(6 / math.sqrt(10) / math.sqrt(2))))
    assert paired_images(np.tile(first, (3, 1)), np.tile(second, (3, 1))) == pytest.approx(result)
    assert paired_images(first, first) == (0, 0, 1)


def test_the_interval_over_images_is_what_drawing_seeds_and_images_tends_to() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], [40, 20])
    first = random.random((4, 60)) + random.normal(0, 0.1, (4, 1)) < 0.8
    second = random.random((4, 60)) < 0.5
    result = over_seeds_and_images(first, second, labels)
    parts = [(first.astype(int) - second)[:, labels == label] for label in (0, 1)]
    assert result.mean == pytest.approx(sum(part.mean() / 2 for part in parts))
    drawn = []
    for _ in range(5000):
        seeds = random.integers(4, size=4)
        images = [random.integers(part.shape[1], size=part.shape[1]) for part in parts]
        drawn.append(sum(p[seeds][:, i].mean() / 2 for p, i in zip(parts, images, strict=True)))
    # the seeds' part is larger by n / (n − 1); 5000 draws know a s.d. to 1 %, three times that
    seeds_part = np.var(sum(part.mean(axis=1) / 2 for part in parts), ddof=1) / 4
    expected = math.sqrt(np.var(drawn) + seeds_part / 4)
    assert (result.high - result.mean) / 3.182446 == pytest.approx(expected, rel=0.03)
    assert math.isnan(over_seeds_and_images(first[:1], second[:1], labels).low)
