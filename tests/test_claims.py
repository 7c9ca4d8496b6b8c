"""Every claim, on accuracies that it holds for and on ones that it does not."""

import math
from collections.abc import Mapping, Sequence

import pandas
import pytest

from mnist_imbalance.report.claims import CLAIMS, Accuracies, Claim, judge
from mnist_imbalance.report.estimates import Estimate, estimate
from mnist_imbalance.report.gather import LABELS

ByLabel = Sequence[float]
SWEPT = range(2, 11)


def groups(minority: float, majority: float) -> ByLabel:
    return [minority] * 5 + [majority] * 5


def five(
    original: ByLabel, imbalanced: ByLabel, augmented: ByLabel, weighted: ByLabel
) -> dict[str, ByLabel]:
    return {
        "original": original,
        "imbalanced": imbalanced,
        "augmented_40": augmented,
        "augmented_100": augmented,
        "weighted": weighted,
    }


def sweep(minority: Mapping[int, float], majority_slope: float) -> dict[str, ByLabel]:
    return {
        f"weight_{weight}": groups(minority[weight], 0.8 + majority_slope * weight)
        for weight in SWEPT
    }


AS_REPORTED = {
    **five(groups(0.9, 0.8), groups(0.6, 0.9), groups(0.65, 0.9), groups(0.86, 0.84)),
    **sweep({weight: 0.85 - 0.02 * abs(weight - 7) for weight in SWEPT}, -0.01),
}
AS_REPORTED["imbalanced"] = [0.7, 0.8, 0.5, 0.4, 0.6, *[0.9] * 5]
OTHERWISE = {
    **five(groups(0.6, 0.9), groups(0.9, 0.8), groups(0.5, 0.8), groups(0.95, 0.7)),
    **sweep({weight: 0.7 + 0.02 * weight for weight in SWEPT}, 0.01),
}
RESTORED = five(groups(0.9, 0.9), groups(0.6, 0.9), groups(0.8, 0.9), groups(0.7, 0.9))
BETTER = {name: [0.95] * 10 for name in AS_REPORTED}
DOES_NOT_HOLD = {  # where the claim compares more than OTHERWISE turns round
    "augmented_40_does_not_restore": RESTORED,
    "augmented_100_does_not_restore": RESTORED,
    "weighting_restores": RESTORED,
}


def accuracies(
    by_model: Mapping[str, Mapping[str, ByLabel]], jitter: Sequence[float] = (-0.002, 0.0, 0.002)
) -> Accuracies:
    """Three seeds a condition; a seed moves all accuracies of all conditions alike."""
    rows = []
    for model, conditions in by_model.items():
        for condition, per_label in conditions.items():
            for seed, shift in enumerate(jitter):
                moved = [accuracy + shift for accuracy in per_label]
                means = [sum(moved[:5]) / 5, sum(moved[5:]) / 5, sum(moved) / 10]
                weight = float(condition[7:]) if condition.startswith("weight_") else math.nan
                rows += [
                    {
                        **{"model": model, "condition": condition, "scored": scored},
                        **{"label": label, "seed": seed, "accuracy": accuracy, "weight": weight},
                    }
                    for scored in ("val", "test")
                    for label, accuracy in zip(LABELS, [*moved, *means], strict=True)
                ]
    return Accuracies(pandas.DataFrame(rows))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_claim_can_hold(claim: Claim) -> None:
    of = accuracies({"lstm": AS_REPORTED, "cnn": BETTER if claim.of_both else AS_REPORTED})
    conditions = AS_REPORTED
    if claim.name == "per_label_beats_one_weight":
        conditions = {**AS_REPORTED, "weighted": groups(0.9, 0.9)}
        of = accuracies({"lstm": conditions})
    if claim.name == "large_weights_cost":
        conditions = sweep({weight: 0.85 - 0.02 * abs(weight - 7) for weight in SWEPT}, 0.0)
        of = accuracies({"lstm": conditions})
    effect = estimate(claim.statistic(of, "lstm"))
    assert effect.n == 3
    assert judge(effect) == "holds"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_claim_can_fail(claim: Claim) -> None:
    conditions = DOES_NOT_HOLD.get(claim.name, OTHERWISE)
    of = accuracies({"lstm": BETTER if claim.of_both else conditions, "cnn": conditions})
    effect = estimate(claim.statistic(of, "lstm"))
    assert effect.n == 3
    assert judge(effect) == "does not hold"


def test_effects_have_the_size_that_they_say() -> None:
    of = accuracies({"lstm": AS_REPORTED})
    by_name = {claim.name: estimate(claim.statistic(of, "lstm")).mean for claim in CLAIMS[:7]}
    assert by_name["imbalance_lowers_0_4"] == pytest.approx(0.3)
    assert by_name["imbalance_raises_5_9"] == pytest.approx(0.1)
    assert by_name["augmented_40_does_not_restore"] == pytest.approx(0.15 - 0.05)
    assert by_name["weighting_restores"] == pytest.approx(0.26 - 0.15)
    assert by_name["majority_falls_with_weight"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "holds"),
        (-0.02, -0.01, "does not hold"),
        (0.0, 0.0, "does not hold"),
        (-0.01, 0.01, "undecided"),
        (0.0, 0.01, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert judge(Estimate(3, (low + high) / 2, low, high)) == verdict


def effect_of(name: str, of: Accuracies) -> Estimate:
    [claim] = [claim for claim in CLAIMS if claim.name == name]
    return estimate(claim.statistic(of, "lstm"))


def test_of_several_comparisons_the_smallest_counts() -> None:
    models = {"lstm": AS_REPORTED, "cnn": {**BETTER, "imbalanced": [0.65] * 10}}
    assert effect_of("cnn_beats_lstm", accuracies(models)).mean == pytest.approx(-0.1)
    assert effect_of("labels_2_3_4_are_worst", accuracies(models)).mean == pytest.approx(0.1)
    best_is_below = effect_of("best_lstm_is_below_the_cnn", accuracies(models))
    assert best_is_below.mean == pytest.approx(0.65 - 0.85)


def test_claims_are_about_the_reports_own_weights() -> None:
    beyond = {**AS_REPORTED, "weight_50": groups(0.99, 0.1)}
    for claim in CLAIMS:
        if not claim.of_both:
            ours, theirs = (
                claim.statistic(accuracies({"lstm": conditions}), "lstm")
                for conditions in (beyond, AS_REPORTED)
            )
            pandas.testing.assert_series_equal(ours, theirs)


@pytest.mark.parametrize("lost", [-0.1, 0.0])
def test_where_nothing_was_lost_nothing_can_be_restored(lost: float) -> None:
    conditions = five(*[groups(0.5 + change, 0.5) for change in (lost, 0, 0.1, 0.1)])
    for name in ("augmented_40_does_not_restore", "weighting_restores"):
        effect = effect_of(name, accuracies({"lstm": conditions}))
        assert (effect.n, judge(effect)) == (0, "undecided")


def test_differences_are_paired_by_seed() -> None:
    wide = accuracies({"lstm": AS_REPORTED}, jitter=(-0.2, 0.0, 0.2))
    claim = CLAIMS[0]
    effect = estimate(claim.statistic(wide, "lstm"))
    assert effect.low == pytest.approx(0.3)  # seeds differ widely, their differences do not
    assert effect.high == pytest.approx(0.3)


def test_what_the_study_does_not_plan_is_no_claim() -> None:
    of = accuracies({"lstm": five(*[groups(0.5, 0.5)] * 4)})
    with pytest.raises(KeyError):
        of.over_weights("lstm", "0-4")
    with pytest.raises(KeyError):
        of("cnn", "original", "all")
