"""How often the rules are wrong, over simulated studies whose truth is known.

A rate may exceed its nominal level by three binomial standard errors of the simulation.
"""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from mnist_imbalance.report.stats import (
    Judgement,
    correct,
    estimate,
    fieller,
    judge,
    over_seeds_and_images,
)

STUDIES = 2000
FAMILY = 10
of_seeds = pytest.mark.parametrize("n", [5, 10])


def at_most(level: float, studies: int = STUDIES) -> float:
    return level + 3 * math.sqrt(level * (1 - level) / studies)


def at_least(level: float, studies: int = STUDIES) -> float:
    return level - 3 * math.sqrt(level * (1 - level) / studies)


def studies(
    n: int, *means: float, margin: float | None = None, count: int = STUDIES
) -> list[Judgement]:
    """Judge studies whose comparisons have these true means, each with a spread of 1."""
    random = np.random.default_rng([n, len(means), count])
    effects = random.normal(size=(count, n, len(means))) + np.array(means)
    return [judge(of_study, margin) for of_study in effects]


def rate(verdict: str, judgements: list[Judgement]) -> float:
    return sum(each.verdict == verdict for each in judgements) / len(judgements)


@of_seeds
def test_of_eight_equal_comparisons_the_smallest_no_longer_refutes(n: int) -> None:
    judgements = studies(n, *[0.0] * 8)
    assert rate("holds", judgements) <= at_most(0.025)
    assert rate("contradicted", judgements) <= at_most(0.025)
    # the reason for the rule: each seed's smallest comparison with an ordinary interval
    effects = np.random.default_rng(n).normal(size=(STUDIES, n, 8))
    refuted = [estimate(smallest).high <= 0 for smallest in effects.min(axis=2)]
    assert sum(refuted) / STUDIES > 0.95


@of_seeds
def test_one_comparison_that_is_zero_does_not_hold(n: int) -> None:
    """The case in which "every comparison" is easiest to claim wrongly."""
    judgements = studies(n, 0.0, *[9.0] * 7)
    assert at_least(0.025) <= rate("holds", judgements) <= at_most(0.025)
    assert rate("contradicted", judgements) <= at_most(0.025)


@of_seeds
@pytest.mark.parametrize(
    ("means", "lowest"), [((3.0,), 0.025), ((3.0, 0.0, 0.0), 0.025), ((-3.0, 3.0), 0.0)]
)
def test_an_effect_at_the_margin_is_rarely_no_difference(
    n: int, means: tuple[float, ...], lowest: float
) -> None:
    judgements = studies(n, *means, margin=3)
    # by p_within, since verdicts of "holds" and "contradicted" come before "no difference"
    within = sum(each.p_within <= 0.025 for each in judgements) / STUDIES
    assert at_least(lowest) <= within <= at_most(0.025)
    assert rate("no difference", judgements) <= within


@of_seeds
def test_what_is_clear_is_found(n: int) -> None:
    assert rate("holds", studies(n, *[4.0] * 4)) > 0.95
    assert rate("contradicted", studies(n, -5.0, *[4.0] * 7)) > 0.95
    assert rate("no difference", studies(n, 0.0, 0.0, margin=5)) > 0.95


@of_seeds
def test_the_interval_shown_agrees_with_the_verdict(n: int) -> None:
    """Of the deciding comparison: above zero where the claim holds, and only there."""
    random = np.random.default_rng(n)
    effects = random.normal(size=(STUDIES, n, 3)) * [0.1, 1.0, 3.0] + [0.3, 1.0, 5.0]
    judgements = [judge(of_study) for of_study in effects]
    holding = [each.verdict == "holds" for each in judgements]
    assert [each.low > 0 for each in judgements] == holding
    assert 0.05 < sum(holding) / STUDIES < 1
    # the smallest mean is another one in most studies, and would show intervals above zero
    assert sum(each.deciding != 0 for each in judgements) / STUDIES > 0.5
    smallest = [estimate(of_study[:, 0]).low > 0 for of_study in effects]
    assert sum(smallest) > sum(holding)


@of_seeds
def test_a_family_of_ten_is_wrong_at_its_level(n: int) -> None:
    judgements = studies(n, 0.0, count=FAMILY * STUDIES)
    families = [judgements[start : start + FAMILY] for start in range(0, len(judgements), FAMILY)]

    def wrong(verdicts: list[list[str]]) -> float:
        return sum(not {"holds", "contradicted"}.isdisjoint(each) for each in verdicts) / STUDIES

    single = wrong([[each.verdict for each in family] for family in families])
    assert single > 0.35  # 1 − 0.95¹⁰
    corrected = wrong([[verdict for verdict, _ in correct(family)] for family in families])
    assert corrected <= at_most(0.05)
    assert corrected >= at_least(0.04)  # and not for want of power


@of_seeds
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_fiellers_interval_covers_the_true_fraction(n: int, spread: float) -> None:
    """With the larger spread, some studies do not know whether anything was lost."""
    random = np.random.default_rng(n)
    lost = random.normal(1, spread, size=(STUDIES, n))
    gained = 0.4 + 0.7 * (lost - 1) + random.normal(0, 0.1, size=(STUDIES, n))
    found = [fieller(*map(pd.Series, pair)) for pair in zip(gained, lost, strict=True)]
    covers = [each.low <= 0.4 <= each.high for each in found]
    assert sum(covers) / STUDIES >= at_least(0.95)
    unknown = sum(math.isinf(each.low) for each in found) / STUDIES
    assert unknown > 0.1 if spread == 1 else unknown < 0.01
    if not unknown:
        assert sum(covers) / STUDIES <= at_most(0.95)


@of_seeds
def test_a_new_run_lies_in_the_interval_for_one(n: int) -> None:
    runs = np.random.default_rng(n).normal(0.9, 0.02, size=(STUDIES, n + 1))
    found = [estimate(seeds, new_run=True) for seeds in runs[:, :n]]
    inside = [each.low <= new <= each.high for each, new in zip(found, runs[:, n], strict=True)]
    assert at_least(0.95) <= sum(inside) / STUDIES <= at_most(0.95)


LABELS = np.repeat([0, 1], [60, 120])
LEVELS = np.array([[1.5, 1.0], [0.8, 0.6]])  # probits: a row a condition, a column a label


def networks(
    random: np.random.Generator, n: int, of_seed: float, of_image: float
) -> NDArray[np.bool_]:
    """Draw two conditions' correct images, (2, n, images), from probits with planted effects."""
    probit = LEVELS[:, None, LABELS] + random.normal(size=(2, n, len(LABELS)))
    probit = probit + of_seed * random.normal(size=(2, n, 1))
    probit = probit + of_image * random.normal(size=(2, 1, len(LABELS)))
    return probit > 0


@of_seeds
@pytest.mark.parametrize(
    ("of_seed", "of_image", "highest", "seeds_highest"),
    [(0.3, 0.3, 0.995, 1.0), (0.5, 2.0, 0.995, 0.92), (0.0, 2.0, 1.0, 0.65), (1.0, 0.0, 0.98, 1.0)],
    ids=["little of both", "more of images", "images alone", "seeds alone"],
)
def test_the_interval_over_seeds_and_images_covers_the_truth(
    n: int, of_seed: float, of_image: float, highest: float, seeds_highest: float
) -> None:
    """It is wide where images matter, and so it may be; one over seeds alone is too narrow."""
    random = np.random.default_rng([n, int(10 * of_seed), int(10 * of_image)])
    scale = math.sqrt(1 + of_seed**2 + of_image**2)
    true = np.subtract(*stats.norm.cdf(LEVELS / scale).mean(axis=1))
    covers = seeds_cover = 0
    for _ in range(STUDIES):
        first, second = networks(random, n, of_seed, of_image)
        found = over_seeds_and_images(first, second, LABELS)
        covers += found.low <= true <= found.high
        of_labels = [(first * 1.0 - second)[:, label == LABELS].mean(axis=1) for label in (0, 1)]
        alone = estimate(np.mean(of_labels, axis=0))
        seeds_cover += alone.low <= true <= alone.high
    assert at_least(0.95) <= covers / STUDIES <= highest
    assert seeds_cover / STUDIES <= seeds_highest
