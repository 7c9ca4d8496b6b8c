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
    corrected,
    estimate,
    fieller,
    judge,
    over_seeds_and_images,
)

STUDIES = 500
FAMILY = 10
of_seeds = pytest.mark.parametrize("n", [5, 10])


def at_most(level: float) -> float:
    return level + 3 * math.sqrt(level * (1 - level) / STUDIES)


def at_least(level: float) -> float:
    return level - 3 * math.sqrt(level * (1 - level) / STUDIES)


def studies(
    n: int, *means: float, margin: float | None = None, count: int = STUDIES
) -> list[Judgement]:
    """Judge studies whose comparisons have these true means, each with a spread of 1."""
    random = np.random.default_rng([n, len(means), count])
    effects = random.normal(size=(count, n, len(means))) + np.array(means)
    return [judge(of_study, margin) for of_study in effects]


def rate(verdict: str, judgements: list[Judgement]) -> float:
    return sum(judgement.verdict == verdict for judgement in judgements) / len(judgements)


@of_seeds
@pytest.mark.parametrize(
    ("means", "lowest"),
    [((0.0,) * 8, 0), ((0.0, *[9.0] * 7), 0.025)],  # the latter is easiest to claim wrongly
)
def test_no_claim_holds_or_is_contradicted_by_chance(
    n: int, means: tuple[float, ...], lowest: float
) -> None:
    judgements = studies(n, *means)
    assert at_least(lowest) <= rate("holds", judgements) <= at_most(0.025)
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
    within = sum(judgement.p_within <= 0.025 for judgement in judgements) / STUDIES
    assert at_least(lowest) <= within <= at_most(0.025)
    assert rate("no difference", judgements) <= within


@of_seeds
def test_a_clear_effect_is_found(n: int) -> None:
    assert rate("holds", studies(n, *[4.0] * 4)) > 0.95
    assert rate("contradicted", studies(n, -5.0, *[4.0] * 7)) > 0.95
    assert rate("no difference", studies(n, 0.0, 0.0, margin=5)) > 0.95


@of_seeds
def test_the_interval_shown_agrees_with_the_verdict(n: int) -> None:
    """Of the deciding comparison: above zero where the claim holds, and only there."""
    random = np.random.default_rng(n)
    effects = random.normal(size=(STUDIES, n, 3)) * [0.1, 1.0, 3.0] + [0.3, 1.0, 5.0]
    judgements = [judge(of_study) for of_study in effects]
    holding = [judgement.verdict == "holds" for judgement in judgements]
    assert [judgement.low > 0 for judgement in judgements] == holding
    assert 0.05 < sum(holding) / STUDIES < 1
    # the smallest mean is another one in most studies, and would show intervals above zero
    assert sum(judgement.deciding != 0 for judgement in judgements) / STUDIES > 0.5


@of_seeds
def test_a_family_of_ten_is_wrong_at_its_level(n: int) -> None:
    judgements = studies(n, 0.0, count=FAMILY * STUDIES)
    rows = [
        judgement._asdict() | {"family": at // FAMILY} for at, judgement in enumerate(judgements)
    ]
    found = corrected(rows, ["family"], ["family", "verdict", "corrected"])
    wrong = found[["verdict", "corrected"]].isin(["holds", "contradicted"]).groupby(found.family)
    single, family = wrong.any().mean()
    assert single > 0.3  # 1 − 0.95¹⁰ is 0.4
    assert at_least(0.04) <= family <= at_most(0.05)  # and not for want of power


@of_seeds
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_fiellers_interval_covers_the_true_fraction(n: int, spread: float) -> None:
    """With the larger spread, some studies do not know whether anything was lost."""
    random = np.random.default_rng(n)
    lost = random.normal(1, spread, size=(STUDIES, n))
    gained = 0.4 + 0.7 * (lost - 1) + random.normal(0, 0.1, size=(STUDIES, n))
    found = [fieller(*map(pd.Series, pair)) for pair in zip(gained, lost, strict=True)]
    covered = sum(interval.low <= 0.4 <= interval.high for interval in found) / STUDIES
    unknown = sum(math.isinf(interval.low) for interval in found) / STUDIES
    assert unknown > 0.1 if spread == 1 else unknown < 0.01
    assert at_least(0.95) <= covered <= (1 if unknown else at_most(0.95))
    for (gain, loss), interval in zip(zip(gained, lost, strict=True), found, strict=True):
        verdict = "holds" if interval.low > 0.5 else "contradicted" if interval.high < 0.5 else ""
        assert judge(gain - 0.5 * loss).verdict == (verdict or "undecided") or unknown


@of_seeds
def test_a_new_run_lies_in_the_interval_for_one(n: int) -> None:
    runs = np.random.default_rng(n).normal(0.9, 0.02, size=(STUDIES, n + 1))
    found = [estimate(seeds, new_run=True) for seeds in runs[:, :n]]
    inside = [own.low <= new <= own.high for own, new in zip(found, runs[:, n], strict=True)]
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
    [(0.3, 0.3, 1.0, 1.0), (0.5, 2.0, 1.0, 0.93), (0.0, 2.0, 1.0, 0.7), (1.0, 0.0, 0.99, 1.0)],
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
