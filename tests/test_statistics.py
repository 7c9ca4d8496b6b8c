import math
import warnings

import numpy
import pandas
import pytest
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mnist_imbalance.report.image_statistics import over_seeds_and_images, paired_images
from mnist_imbalance.report.statistics import (
    Components,
    estimate,
    estimate_groups,
    fieller,
    predict_one,
    seeds_needed,
    seeds_to_decide,
    variance_components,
)
from mnist_imbalance.report.verdicts import Judgement, correct, judge

T_4 = 2.7764451  # at 97.5 % with 4 degrees of freedom


def test_students_interval() -> None:
    n, mean, low, high = estimate([1.0, 2.0, 3.0])
    assert (n, mean) == (3, 2.0)
    half = 4.302653 / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom; s.d. 1
    assert (low, high) == pytest.approx((2 - half, 2 + half))


def test_one_seed_gives_no_interval() -> None:
    n, mean, low, high = estimate([0.7])
    assert (n, mean) == (1, 0.7)
    assert math.isnan(low)
    assert math.isnan(high)


def test_missing_seeds_are_left_out_and_none_is_not_zero() -> None:
    assert estimate([0.5, math.nan, 0.5]) == (2, 0.5, 0.5, 0.5)
    n, mean, *_ = estimate([math.nan])
    assert n == 0
    assert math.isnan(mean)


def test_groups_keep_their_order_and_missing_ones_a_row() -> None:
    values = pandas.DataFrame(
        {"name": ["b", "a", "b"], "kind": ["x"] * 3, "value": [1.0, math.nan, 3.0]}
    )
    table = estimate_groups(values, ["name", "kind"], "value")
    assert list(table.columns) == ["name", "kind", "n", "mean", "low", "high"]
    assert list(table.name) == ["b", "a"]
    assert list(table.n) == [2, 0]
    assert table["mean"][0] == 2


def test_one_new_run_varies_more_than_the_mean() -> None:
    n, mean, low, high = predict_one([1.0, 2.0, math.nan, 3.0])
    half = 4.302653 * math.sqrt(1 + 1 / 3)
    assert (n, mean, low, high) == pytest.approx((3, 2, 2 - half, 2 + half))
    assert math.isnan(predict_one([1.0]).low)


def test_one_comparison_is_students_t_test() -> None:
    # mean 3, s.d. sqrt(2.5), so t = 3 / sqrt(2.5 / 5) = 4.243
    result = judge([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (result.n, result.effect, result.verdict) == (5, 3, "holds")
    half = T_4 * math.sqrt(0.5)
    assert (result.low, result.high) == pytest.approx((3 - half, 3 + half))
    assert result.p_holds == pytest.approx(0.00662, abs=1e-5)
    assert result.p_contradicted == pytest.approx(1 - result.p_holds)
    assert math.isnan(result.p_within)
    opposite = judge([-1.0, -2.0, -3.0, -4.0, -5.0])
    assert opposite.verdict == "contradicted"
    assert opposite.p_contradicted == pytest.approx(result.p_holds)


def comparisons(*means: float) -> NDArray[numpy.float64]:
    """Five seeds with a spread of sqrt(2.5), so that the t-interval of each is ± 1.963."""
    spread: NDArray[numpy.float64] = numpy.arange(-2.0, 3.0)[:, None]
    return spread + numpy.array(means, dtype=numpy.float64)


def test_every_comparison_must_be_above_zero() -> None:
    assert judge(comparisons(3, 4)).verdict == "holds"
    result = judge(comparisons(9, 1, 9))
    assert result.verdict == "undecided"
    assert (result.effect, result.deciding) == (1, 1)
    assert result.p_holds == judge(comparisons(1)).p_holds


def test_the_comparison_that_decides_is_the_least_certain_not_the_smallest() -> None:
    effects = comparisons(1, 1.5, 9)
    effects[:, 0] = 1 + (effects[:, 0] - 1) / 100  # small, and surely above zero
    result = judge(effects)
    alone = judge(effects[:, 1])
    assert (result.verdict, result.deciding) == ("undecided", 1)
    assert result[1:4] == pytest.approx(alone[1:4])  # effect, low and high
    assert result.effect == 1.5
    assert result.p_holds == pytest.approx(alone.p_holds)
    assert result.low < 0 < result.high
    assert judge(comparisons(3)).deciding == 0


def test_of_comparisons_below_zero_the_clearest_decides() -> None:
    effects = comparisons(-4, -3, 9)
    effects[:, 1] = -3 + (effects[:, 1] + 3) / 100
    result = judge(effects)
    assert (result.verdict, result.deciding, result.effect) == ("contradicted", 1, -3)
    assert result.high < 0


def test_contradicting_is_corrected_for_the_comparisons() -> None:
    alone = judge(comparisons(-2.2))
    assert alone.verdict == "contradicted"
    result = judge(comparisons(-2.2, 0, 9))
    assert result.verdict == "undecided"
    one_sided = [judge(comparisons(mean)).p_contradicted for mean in (-2.2, 0, 9)]
    assert result.p_contradicted == pytest.approx(multipletests(one_sided, method="holm")[1].min())
    assert judge(comparisons(-5, 9, 9)).verdict == "contradicted"


def test_no_difference_needs_every_interval_within_the_margin() -> None:
    assert judge(comparisons(0, 0.5), margin=2.5).verdict == "no difference"
    assert judge(comparisons(0, 0.6), margin=2.5).verdict == "undecided"
    assert judge(comparisons(0, -0.6), margin=2.5).verdict == "undecided"
    assert judge(comparisons(0, 0.5)).verdict == "undecided"
    assert judge(comparisons(2), margin=9).verdict == "holds"  # though also within
    assert judge(comparisons(-2), margin=9).verdict == "contradicted"


def test_seeds_that_are_all_equal() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judge([0.1] * 5).verdict == "holds"
        assert judge([-0.1] * 5).verdict == "contradicted"
        assert judge([0.0] * 5, margin=0.01).verdict == "no difference"
        assert judge([0.0] * 5).verdict == "undecided"
        assert judge([0.3 - 0.1 - 0.2] * 5).verdict == "undecided"  # -2.8e-17
        at_the_margin = judge([0.01, -0.01] * 5, margin=0.01)
        assert at_the_margin.verdict == "no difference"
        constant = judge(numpy.tile([0.0, 0.01], (5, 1)), margin=0.01)
        assert (constant.verdict, constant.p_within) == ("undecided", 0.5)


def test_a_seed_with_a_missing_run_is_left_out() -> None:
    effects = comparisons(3, 4)
    missing = numpy.vstack([effects, [100.0, math.nan], [math.nan, -100.0]])
    assert judge(missing) == pytest.approx(judge(effects), nan_ok=True)


@pytest.mark.parametrize(
    ("effects", "n", "effect", "deciding"),
    [
        *(([], 0, math.nan, 0), ([0.5], 1, 0.5, 0), ([[0.5, 0.2]], 1, 0.2, 1)),
        *(([[], [], []], 0, math.nan, 0), ([[0.5, math.nan]], 0, math.nan, 0)),
    ],
)
def test_too_few_runs_decide_nothing(
    effects: list[float], n: int, effect: float, deciding: int
) -> None:
    result = judge(effects, margin=1)
    assert (result.n, result.verdict, result.deciding) == (n, "undecided", deciding)
    assert result.effect == pytest.approx(effect, nan_ok=True)
    assert numpy.isnan(result[2:7]).all()


def judged(p_holds: float, p_contradicted: float, p_within: float = math.nan) -> Judgement:
    """Let only p-values speak, of a claim with no direction of its own."""
    return Judgement(5, 0.0, 0.0, 0.0, p_holds, p_contradicted, p_within, "undecided", 0)


def test_holm_by_hand_and_by_statsmodels() -> None:
    family = [judged(0.001, 0.999), judged(0.98, 0.02), judged(0.010, 0.99), judged(0.6, 0.4)]
    family.insert(1, judged(math.nan, math.nan))
    corrected = correct(family)
    # two-sided .002, .04, .02 and .8: times 4, 2 and 3 of four claims; the last at most 1
    assert [each.p for each in corrected] == pytest.approx(
        [0.008, math.nan, 0.08, 0.06, 0.8], nan_ok=True
    )
    assert [each.verdict for each in corrected] == ["holds"] + ["undecided"] * 4
    known = [each.p for each in corrected if not math.isnan(each.p)]
    assert known == pytest.approx(multipletests([0.002, 0.04, 0.02, 0.8], method="holm")[1])
    assert correct([]) == []
    assert correct([judged(0.98, 0.02)])[0].verdict == "contradicted"


def test_no_difference_is_a_family_of_its_own() -> None:
    family = [judged(0.3, 0.7, 0.01), judged(0.3, 0.7, 0.02), judged(0.001, 0.999)]
    corrected = correct(family)
    assert [each.p_within for each in corrected] == pytest.approx(
        [0.04, 0.04, math.nan], nan_ok=True
    )
    assert [each.verdict for each in corrected] == ["no difference", "no difference", "holds"]
    assert correct([*family, judged(0.5, 0.5, 0.03)])[0].verdict == "undecided"  # 0.02 · 3


@pytest.mark.parametrize(("sign", "raw"), [(1, "holds"), (-1, "contradicted")])
def test_a_direction_that_the_correction_takes_is_undecided_not_no_difference(
    sign: int, raw: str
) -> None:
    clear = judge(sign * numpy.array([0.10, 0.14, 0.08, 0.16, 0.04]), margin=0.3)
    assert clear.verdict == raw
    assert clear.p_within <= 0.025 / 25
    others = [judge(comparisons(0.1), margin=0.3)] * 24
    assert {each.verdict for each in others} == {"undecided"}
    in_family = correct([clear, *others])[0]
    assert in_family.p > 0.05
    assert in_family.p_within <= 0.05
    assert in_family.verdict == "undecided"
    # alone it keeps its direction, and without one it would be within the margin
    assert correct([clear])[0].verdict == raw
    assert correct([clear._replace(verdict="undecided"), *others])[0].verdict == "no difference"


def test_fieller_by_hand() -> None:
    # gained 1..5: mean 3, variance 2.5; lost 9, 11, 10, 9, 11: mean 10, variance 1; covariance 0.5.
    # With q = t² / 5 = 1.541730: a = 100 − q, b = 30 − 0.5 q, c = 9 − 2.5 q, that is
    # 98.458270, 29.229135 and 5.145675; √(b² − a c) = √(854.342333 − 506.634259) = 18.646932.
    result = fieller([1, 2, 3, 4, 5], [9, 11, 10, 9, 11])
    assert (result.n, result.mean) == (5, 0.3)
    assert (result.low, result.high) == pytest.approx((0.107479, 0.486258), abs=1e-6)


def test_fieller_where_there_is_little_or_nothing() -> None:
    assert fieller([1, 2, 3], [-1, 0, 1.5])[2:] == (-math.inf, math.inf)
    assert fieller([1, 2, 3], [0, 0, 0])[2:] == (-math.inf, math.inf)
    assert fieller([1, 1, 1], [2, 2, 2]) == (3, 0.5, 0.5, 0.5)
    assert fieller([1, math.nan], [2, 2])[:2] == (1, 0.5)
    assert math.isnan(fieller([1], [2]).low)
    assert math.isnan(fieller([], []).mean)


def test_fieller_and_the_verdict_on_a_fraction_agree() -> None:
    random = numpy.random.default_rng(1)
    verdicts = []
    for _ in range(200):
        lost = random.normal(1, 0.2, size=5)
        gained = 0.6 * lost + random.normal(0, 0.1, size=5)
        interval = fieller(gained, lost)
        if math.isinf(interval.low):
            continue
        above, below = interval.low > 0.5, interval.high < 0.5
        expected = "holds" if above else "contradicted" if below else "undecided"
        verdicts.append(judge(gained - 0.5 * lost).verdict)
        assert verdicts[-1] == expected
    assert {"holds", "undecided"} <= set(verdicts)


def crossed(images: float, weights: float, rest: float, levels: int, seed: int) -> pandas.DataFrame:
    """Accuracies of levels × levels runs with the components' standard deviations planted."""
    random = numpy.random.default_rng(seed)
    by_image, by_weight = random.normal(size=(2, levels))
    values = 0.9 + images * by_image[:, None] + weights * by_weight
    values += rest * random.normal(size=values.shape)
    data_seed, other_seed = numpy.indices(values.shape)
    columns = {"data_seed": data_seed, "seed": other_seed, "value": values}
    return pandas.DataFrame({name: column.ravel() for name, column in columns.items()})


def test_planted_components_are_recovered() -> None:
    planted = (0.02, 0.01, 0.005)
    designs = [variance_components(crossed(*planted, 5, seed)) for seed in range(100)]
    variances = numpy.array([each[:3] for each in designs]) ** 2
    error = variances.std(axis=0, ddof=1) / math.sqrt(len(designs))
    assert (abs(variances.mean(axis=0) - numpy.square(planted)) < 3 * error).all()
    assert (error < 0.15 * numpy.square(planted)).all()
    assert [sum(each[3:]) for each in designs] == pytest.approx([1] * len(designs))


def test_components_of_a_balanced_design_are_those_of_the_analysis_of_variance() -> None:
    runs = crossed(0.02, 0.01, 0.005, 6, seed=1)
    table = runs.pivot(index="data_seed", columns="seed", values="value").to_numpy()
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    of_rest = (rest**2).sum() / 25
    of_images = table.mean(axis=1).var(ddof=1) - of_rest / 6
    of_weights = table.mean(axis=0).var(ddof=1) - of_rest / 6
    assert min(of_images, of_weights) > 0
    expected = numpy.sqrt([of_images, of_weights, of_rest])
    assert variance_components(runs)[:3] == pytest.approx(expected, rel=0.01)


def test_components_that_are_not_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alike = [variance_components(crossed(0, 0, 0.01, 5, seed)) for seed in range(40)]
    assert numpy.isfinite(alike).all()
    at_zero = numpy.array([each.images for each in alike]) < 1e-5
    assert 0.3 < at_zero.mean() < 0.8  # in half of the designs the estimate would be negative
    constant = crossed(0, 0, 0, 3, seed=1)
    assert variance_components(constant)[:3] == (0, 0, 0)
    one_level = crossed(0.1, 0.1, 0.1, 4, seed=1).query("seed == 0")
    nowhere = Components(*[math.nan] * 6)
    assert variance_components(one_level) == pytest.approx(nowhere, nan_ok=True)
    diagonal = crossed(0.1, 0.1, 0.1, 4, seed=1).query("seed == data_seed")
    assert variance_components(diagonal) == pytest.approx(nowhere, nan_ok=True)


def test_seeds_for_a_power_of_four_fifths() -> None:
    spread_1 = [-math.sqrt(0.5), math.sqrt(0.5), math.nan]
    assert seeds_needed(spread_1, 1) == 10  # as in textbooks' tables: 0.803, and 0.763 with 9
    assert seeds_needed(spread_1, -1) == 10
    assert seeds_needed(spread_1, 0.5) == 34
    assert seeds_needed(spread_1, 0.1) == 787
    assert seeds_needed(spread_1, 0.08) is None  # 1229
    assert [seeds_needed(spread_1, huge) for huge in (5, 10, 100, 1e8)] == [3] * 4


def test_seeds_where_there_is_no_spread_or_no_difference() -> None:
    assert seeds_needed([0.5], 1) is None
    assert seeds_needed([0.5, 0.5], 1) == 3
    assert seeds_needed([0.5, 0.6], 0) is None
    assert seeds_to_decide([]) is None
    assert seeds_to_decide([-1.0, 1.0]) is None
    effects = [0.5, 1.5, math.nan, 1.0]
    assert seeds_to_decide(effects) == seeds_needed(effects, 1.0) == 5


def right(*seeds: str) -> NDArray[numpy.bool_]:
    """Networks by their images: 1 for a correct one."""
    return numpy.array([[image == "1" for image in seed] for seed in seeds])


def test_one_seeds_images_by_mcnemar() -> None:
    random = numpy.random.default_rng(1)
    first, second = random.random((1, 300)) < 0.9, random.random((1, 300)) < 0.8
    result = paired_images(first, second)
    only_first, only_second = (first & ~second).sum(), (~first & second).sum()
    both, neither = (first & second).sum(), (~first & ~second).sum()
    table = [[both, only_first], [only_second, neither]]
    expected = mcnemar(table, exact=False, correction=False)
    assert (result.gained, result.lost) == (only_first, only_second)
    assert result.p == pytest.approx(expected.pvalue)


def test_an_images_seeds_count_as_one() -> None:
    first, second = right("11110", "11111"), right("00110", "00010")
    # an image's seeds: +2, +2, +1, 0, +1, so z = 6 / √(4 + 4 + 1 + 1)
    result = paired_images(first, second)
    assert result == pytest.approx((4, 0, math.erfc(6 / math.sqrt(10) / math.sqrt(2))))
    repeated = paired_images(numpy.tile(first, (3, 1)), numpy.tile(second, (3, 1)))
    assert repeated == pytest.approx(result)
    swapped = paired_images(second, first)
    assert swapped == pytest.approx((0, 4, result.p))
    assert paired_images(first, first) == (0, 0, 1)
    with pytest.raises(ValueError, match="not paired"):
        paired_images(first, second[:1])


def test_a_groups_accuracy_is_the_mean_of_its_labels() -> None:
    labels = numpy.array([0, 1, 1, 1, 2])
    first, second = right("11110", "11000"), right("01110", "01111")
    result = over_seeds_and_images(first, second, labels, [0, 1])
    assert result.n == 2
    assert result.mean == pytest.approx((0.5 + (0.5 - 1 / 3)) / 2)
    nothing = numpy.zeros_like(first)
    alone = over_seeds_and_images(first, nothing, labels, [1])
    assert alone.mean == pytest.approx((1 + 1 / 3) / 2)
    of_seeds = (1 - 1 / 3) ** 2 / 2 / 2
    of_images = 1 / 18 / 3  # means over seeds 1, 1/2, 1/2: variance (without n − 1) 1/18
    of_both = ((0 + 2 / 9 / 3) / 2 - of_images) / 2  # images' variance by seed: 0, 2/9
    t_1 = 12.7062047  # at 97.5 % with 1 degree of freedom
    half = t_1 * math.sqrt(of_seeds + of_images + of_both)
    assert (alone.low, alone.high) == pytest.approx((alone.mean - half, alone.mean + half))
    one = over_seeds_and_images(first[:1], nothing[:1], labels, [1, 2])
    assert (one.n, one.mean) == (1, 0.5)
    assert math.isnan(one.low)
    with pytest.raises(ValueError, match="no images"):
        over_seeds_and_images(first, nothing, labels, [0, 3])
    with pytest.raises(ValueError, match="not paired"):
        over_seeds_and_images(first, second[:1], labels, [0])


def test_the_closed_form_is_what_drawing_seeds_and_images_tends_to() -> None:
    random = numpy.random.default_rng(1)
    labels = numpy.repeat([0, 1, 2], [40, 20, 30])
    first = random.random((4, 90)) + random.normal(0, 0.1, (4, 1)) < 0.8
    second = random.random((4, 90)) < 0.5
    result = over_seeds_and_images(first, second, labels, [0, 1])
    of_label = [(first.astype(int) - second)[:, labels == label] for label in (0, 1)]
    drawn = []
    for _ in range(20_000):
        seeds = random.integers(4, size=4)
        images = [random.integers(part.shape[1], size=part.shape[1]) for part in of_label]
        pairs = zip(of_label, images, strict=True)
        drawn.append(sum(part[seeds][:, i].mean() / 2 for part, i in pairs))
    # the seeds' part is larger by n / (n − 1); 20,000 draws know a s.d. to 0.5 %, three times that
    of_seeds = numpy.var(sum(part.mean(axis=1) / 2 for part in of_label), ddof=1) / 4
    expected = math.sqrt(numpy.var(drawn) + of_seeds / 4)
    assert (result.high - result.mean) / 3.182446 == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("size", [3, 4])
def test_crossed_seeds_that_leave_nothing_for_the_rest_are_split_all_the_same(size: int) -> None:
    runs = [(0.5 + 0.01 * i + 0.003 * j, i, j) for i in range(size) for j in range(size)]
    found = variance_components(pandas.DataFrame(runs, columns=["value", "data_seed", "seed"]))
    assert found.rest_share < 1e-6
    assert found.images > 0.004
    assert found.weights > 0.002
