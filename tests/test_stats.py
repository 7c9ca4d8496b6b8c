"""Estimates and verdicts by hand, by other libraries, and on edges."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from mnist_imbalance.report.stats import (
    Judgement,
    components,
    correct,
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
    n, mean, low, high = estimate([1.0, 2.0, math.nan, 3.0])
    assert (n, mean) == (3, 2.0)
    half = 4.302653 / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom; s.d. 1
    assert (low, high) == pytest.approx((2 - half, 2 + half))
    half = 4.302653 * math.sqrt(1 + 1 / 3)
    assert estimate([1.0, 2.0, 3.0], new_run=True) == pytest.approx((3, 2, 2 - half, 2 + half))


def test_few_seeds_give_no_interval() -> None:
    assert estimate([0.7])[:2] == (1, 0.7)
    assert np.isnan(estimate([0.7])[2:]).all()
    assert estimate([math.nan]) == pytest.approx((0, *[math.nan] * 3), nan_ok=True)
    assert estimate([0.5, 0.5]) == (2, 0.5, 0.5, 0.5)


def comparisons(*means: float) -> Values:
    """Five seeds with a spread of sqrt(2.5), so that the t-interval of each is ± 1.963."""
    spread: Values = np.arange(-2.0, 3.0)[:, None]
    return spread + np.array(means, dtype=np.float64)


def test_one_comparison_is_students_t_test() -> None:
    result = judge(comparisons(3))
    expected = scipy_stats.ttest_1samp(comparisons(3)[:, 0], 0, alternative="greater")
    assert (result.n, result.effect, result.verdict) == (5, 3, "holds")
    assert result.p_holds == pytest.approx(expected.pvalue)
    assert result.p == pytest.approx(2 * expected.pvalue)
    assert math.isnan(result.p_within)
    assert (result.low, result.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    assert judge(comparisons(-3)).verdict == "contradicted"
    within = DescrStatsW(comparisons(0.5)[:, 0]).ttost_mean(-2, 2)[0]
    assert judge(comparisons(0.5), margin=2).p_within == pytest.approx(within)


def test_every_comparison_must_be_above_zero_and_the_least_certain_decides() -> None:
    assert judge(comparisons(3, 4)).verdict == "holds"
    effects = comparisons(1, 1.5, 9)
    effects[:, 0] = 1 + (effects[:, 0] - 1) / 100  # small, and surely above zero
    result = judge(effects)
    assert (result.verdict, result.deciding, result.effect) == ("undecided", 1, 1.5)
    assert result.p_holds == judge(comparisons(1.5)).p_holds
    assert result.low < 0 < result.high


def test_contradicting_is_corrected_for_the_comparisons() -> None:
    assert judge(comparisons(-2.2)).verdict == "contradicted"
    result = judge(comparisons(-2.2, 0, 9))
    assert result.verdict == "undecided"
    one_sided = [judge(comparisons(mean)).p_contradicted for mean in (-2.2, 0, 9)]
    assert result.p_contradicted == pytest.approx(multipletests(one_sided, method="holm")[1].min())
    assert judge(comparisons(-5, 9, 9)).verdict == "contradicted"


def test_no_difference_needs_every_interval_within_the_margin() -> None:
    assert judge(comparisons(0, 0.5), margin=2.5).verdict == "no difference"
    assert judge(comparisons(0, -0.6), margin=2.5).verdict == "undecided"
    assert judge(comparisons(0, 0.5)).verdict == "undecided"
    assert judge(comparisons(2), margin=9).verdict == "holds"  # though also within


def test_seeds_that_are_all_equal() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdicts = {0.1: "holds", -0.1: "contradicted", 0.3 - 0.1 - 0.2: "undecided"}  # -2.8e-17
        assert {value: judge(np.full(5, value)).verdict for value in verdicts} == verdicts
        assert judge(np.zeros(5), margin=0.01).verdict == "no difference"
        constant = judge(np.tile([0.0, 0.01], (5, 1)), margin=0.01)
        assert (constant.verdict, constant.p_within) == ("undecided", 0.5)


def test_a_seed_with_a_missing_run_is_left_out() -> None:
    missing = np.vstack([comparisons(3, 4), [100.0, math.nan], [math.nan, -100.0]])
    assert judge(missing) == pytest.approx(judge(comparisons(3, 4)), nan_ok=True)


@pytest.mark.parametrize(
    ("effects", "n", "effect", "deciding"),
    [
        *(([], 0, math.nan, 0), ([0.5], 1, 0.5, 0)),
        *(([[0.5, 0.2]], 1, 0.2, 1), ([[0.5, math.nan]], 0, math.nan, 0)),
    ],
)
def test_too_few_runs_decide_nothing(
    effects: list[float], n: int, effect: float, deciding: int
) -> None:
    result = judge(np.array(effects), margin=1)
    assert (result.n, result.verdict, result.deciding) == (n, "undecided", deciding)
    assert result.effect == pytest.approx(effect, nan_ok=True)
    assert math.isnan(result.p)


def with_p(p_holds: float, p_contradicted: float, p_within: float = math.nan) -> Judgement:
    return Judgement(5, 0.0, 0.0, 0.0, "undecided", p_holds, p_contradicted, p_within)


def test_a_family_is_corrected_by_holm() -> None:
    family = [with_p(0.001, 0.999), with_p(0.98, 0.02), with_p(0.010, 0.99), with_p(0.6, 0.4)]
    family.insert(1, with_p(math.nan, math.nan))
    verdicts, p = zip(*correct(family), strict=True)
    # two-sided .002, .04, .02 and .8: times 4, 2 and 3 of four claims; the last at most 1
    assert p == pytest.approx([0.008, math.nan, 0.08, 0.06, 0.8], nan_ok=True)
    assert verdicts == ("holds", *["undecided"] * 4)
    p_values = [0.002, 0.04, 0.02, 0.8]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert correct([]) == []
    assert correct([with_p(0.98, 0.02)])[0][0] == "contradicted"


def test_no_difference_is_a_family_of_its_own() -> None:
    family = [with_p(0.3, 0.7, 0.01), with_p(0.3, 0.7, 0.02), with_p(0.001, 0.999)]
    assert [verdict for verdict, _ in correct(family)] == ["no difference"] * 2 + ["holds"]
    assert correct([*family, with_p(0.5, 0.5, 0.03)])[0][0] == "undecided"  # 0.02 · 3


def test_a_direction_that_the_correction_takes_is_undecided_not_no_difference() -> None:
    clear = judge(np.array([0.10, 0.14, 0.08, 0.16, 0.04]), margin=0.3)
    others = [judge(comparisons(0.1), margin=0.3)] * 24
    assert clear.verdict == "holds"
    assert correct([clear, *others])[0][0] == "undecided"
    assert correct([clear._replace(verdict="undecided"), *others])[0][0] == "no difference"


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


def test_fieller_and_the_verdict_on_a_fraction_agree() -> None:
    random = np.random.default_rng(1)
    verdicts = set()
    for _ in range(200):
        lost = random.normal(1, 0.2, size=5)
        gained = 0.6 * lost + random.normal(0, 0.1, size=5)
        _, _, low, high = ratio([*gained], [*lost])
        expected = "holds" if low > 0.5 else "contradicted" if high < 0.5 else "undecided"
        assert judge(gained - 0.5 * lost).verdict == expected or math.isinf(low)
        verdicts.add(expected)
    assert {"holds", "undecided"} <= verdicts


def crossed(images: float, weights: float, rest: float, levels: int, seed: int) -> pd.DataFrame:
    """Accuracies of levels × levels runs with the components' standard deviations planted."""
    random = np.random.default_rng(seed)
    by_image, by_weight = random.normal(size=(2, levels))
    values = 0.9 + images * by_image[:, None] + weights * by_weight
    values = values + rest * random.normal(size=values.shape)
    columns = dict(zip(("images", "weights"), np.indices(values.shape), strict=True))
    return pd.DataFrame({k: v.ravel() for k, v in (columns | {"value": values}).items()})


def test_planted_components_are_recovered_as_by_the_analysis_of_variance() -> None:
    planted = np.square([0.02, 0.01, 0.005])
    found = np.array([[*components(crossed(0.02, 0.01, 0.005, 5, s)).values()] for s in range(60)])
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (abs(found.mean(axis=0) - planted) < 3 * error).all()
    runs = crossed(0.02, 0.01, 0.005, 6, seed=1)
    table = runs.pivot(index="images", columns="weights", values="value").to_numpy()
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    rest = (rest**2).sum() / 25
    expected = [table.mean(axis=axis).var(ddof=1) - rest / 6 for axis in (1, 0)]
    assert components(runs) == pytest.approx(
        dict(zip(("images", "weights", "rest"), [*expected, rest], strict=True)), rel=0.02
    )


def test_components_that_are_not_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [components(crossed(0, 0, 0.01, 5, seed))["images"] for seed in range(40)]
    assert 0.3 < np.mean(np.array(found) < 1e-10) < 0.8  # half would be negative
    assert components(crossed(0, 0, 0, 3, seed=1)) == {"images": 0, "weights": 0, "rest": 0}
    nothing_left = components(crossed(0.02, 0.01, 0, 4, seed=1))
    assert nothing_left["rest"] < 1e-6 * nothing_left["images"]


def test_seeds_for_a_power_of_four_fifths() -> None:
    spread_1 = [-math.sqrt(0.5), math.sqrt(0.5), math.nan]
    assert seeds_needed(spread_1, 1) == 10  # as in textbooks' tables: 0.803, and 0.763 with 9
    assert seeds_needed(spread_1, -0.5) == 34
    assert [seeds_needed(spread_1, huge) for huge in (5, 100, 1e8)] == [3] * 3
    assert seeds_needed([0.5, 0.5], 1) == 3
    few = [seeds_needed(spread_1, 0.08), seeds_needed([0.5], 1), seeds_needed([0.5, 0.6], 0)]
    assert np.isnan(few).all()


def test_the_seeds_that_would_decide() -> None:
    effects = pd.DataFrame(comparisons(0.5, 1) / 2)
    needed = [seeds_needed(effects[column], effects[column].mean()) for column in effects]
    assert seeds_to_decide(effects, judge(effects)) == max(needed)
    against = pd.DataFrame(comparisons(-0.5, -1, 9) / 2)
    assert seeds_to_decide(against, judge(against)) == min(needed)
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
    for _ in range(20_000):
        seeds = random.integers(4, size=4)
        images = [random.integers(part.shape[1], size=part.shape[1]) for part in parts]
        drawn.append(sum(p[seeds][:, i].mean() / 2 for p, i in zip(parts, images, strict=True)))
    # the seeds' part is larger by n / (n − 1); 20,000 draws know a s.d. to 0.5 %, three times that
    seeds_part = np.var(sum(part.mean(axis=1) / 2 for part in parts), ddof=1) / 4
    expected = math.sqrt(np.var(drawn) + seeds_part / 4)
    assert (result.high - result.mean) / 3.182446 == pytest.approx(expected, rel=0.015)
    assert math.isnan(over_seeds_and_images(first[:1], second[:1], labels).low)
