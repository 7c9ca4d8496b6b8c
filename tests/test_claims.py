"""Every claim, on accuracies that it holds for and on ones that it does not."""

import math
from collections.abc import Mapping, Sequence

import pandas
import pytest

from mnist_imbalance.report.claims import CLAIMS, Accuracies, Claim, judge
from mnist_imbalance.report.gather import LABELS
from mnist_imbalance.report.statistics import Estimate, estimate

ByLabel = Sequence[float]
ByModel = Mapping[str, Mapping[str, ByLabel]]
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


def rows(
    by_model: ByModel,
    seed: int,
    shift: float = 0.0,
    all_scored: Sequence[str] = ("val", "test"),
) -> list[dict[str, object]]:
    """One seed's scores, all of them moved alike."""
    made: list[dict[str, object]] = []
    for model, conditions in by_model.items():
        for condition, per_label in conditions.items():
            moved = [accuracy + shift for accuracy in per_label]
            means = [sum(moved[:5]) / 5, sum(moved[5:]) / 5, sum(moved) / 10]
            weight = float(condition[7:]) if condition.startswith("weight_") else math.nan
            made += [
                {
                    **{"model": model, "condition": condition, "scored": scored},
                    **{"label": label, "seed": seed, "accuracy": accuracy, "weight": weight},
                }
                for scored in all_scored
                for label, accuracy in zip(LABELS, [*moved, *means], strict=True)
            ]
    return made


def accuracies(by_model: ByModel, jitter: Sequence[float] = (-0.002, 0.0, 0.002)) -> Accuracies:
    """Three seeds a condition; a seed moves all accuracies of all conditions alike."""
    seeds = enumerate(jitter)
    return Accuracies(pandas.DataFrame([r for s, shift in seeds for r in rows(by_model, s, shift)]))


def of_seeds(*by_seed: ByModel) -> Accuracies:
    """A seed for each."""
    seeds = enumerate(by_seed)
    return Accuracies(pandas.DataFrame([row for s, models in seeds for row in rows(models, s)]))


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


def test_the_smallest_comparison_is_found_in_each_seed() -> None:
    def seed(condition: str, label: int, least: float) -> ByModel:
        """The CNN is 0.1 above the LSTM, and labels 2, 3 and 4 are 0.1 below the others, but."""
        per_label = [0.7, 0.7, 0.6, 0.6, 0.6, *[0.7] * 5]
        above = {name: [0.1] * 10 for name in five(*[per_label] * 4)} | {condition: [least] * 10}
        per_label[label] = 0.6 + least
        cnn = {
            name: [a + b for a, b in zip(per_label, more, strict=True)]
            for name, more in above.items()
        }
        return {"lstm": five(*[per_label] * 4), "cnn": cnn}

    of = of_seeds(seed("original", 0, 0.01), seed("weighted", 9, 0.03))
    for name in ("cnn_beats_lstm", "best_lstm_is_below_the_cnn", "labels_2_3_4_are_worst"):
        assert effect_of(name, of).mean == pytest.approx((0.01 + 0.03) / 2)


def test_a_seed_with_a_run_missing_is_left_out() -> None:
    whole = {"lstm": AS_REPORTED, "cnn": BETTER}
    without = {name: of for name, of in BETTER.items() if name != "original"}
    for name in ("cnn_beats_lstm", "best_lstm_is_below_the_cnn"):
        assert effect_of(name, of_seeds(whole, whole, {**whole, "cnn": without})).n == 2


def test_a_peak_at_the_largest_weight_counts_against_the_claim() -> None:
    effect = effect_of("minority_peaks_inside", accuracies({"lstm": OTHERWISE}))
    assert effect.mean == pytest.approx(-0.02)
    assert effect_of("the_peak_is_7", accuracies({"lstm": OTHERWISE})).mean == pytest.approx(-0.06)


def test_a_weight_is_chosen_on_validation_data_and_measured_on_the_test_set() -> None:
    val = sweep({weight: 0.5 - 0.01 * abs(weight - 3) for weight in SWEPT}, 0.0)
    test = sweep({weight: 0.85 - 0.02 * abs(weight - 7) for weight in SWEPT}, 0.0)
    scored = [rows({"lstm": of}, 0, all_scored=[on]) for of, on in ((val, "val"), (test, "test"))]
    of = Accuracies(pandas.DataFrame([*scored[0], *scored[1]]))
    assert effect_of("minority_peaks_inside", of).mean == pytest.approx(0.77 - 0.79)
    assert effect_of("the_peak_is_7", of).mean == pytest.approx(0.02)


def test_a_sweep_without_weight_7_says_nothing_about_it() -> None:
    sparse = {name: of for name, of in AS_REPORTED.items() if name != "weight_7"}
    with pytest.raises(KeyError):
        effect_of("the_peak_is_7", accuracies({"lstm": sparse}))
    assert effect_of("minority_peaks_inside", accuracies({"lstm": sparse})).n == 3


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


def losing(lost: float) -> ByModel:
    return {"lstm": five(*[groups(0.5 + change, 0.5) for change in (lost, 0, 0.1, 0.1)])}


def test_without_a_certain_loss_there_is_no_verdict() -> None:
    for name in ("augmented_100_does_not_restore", "weighting_restores"):
        effect = effect_of(name, of_seeds(losing(-0.1), losing(0.01), losing(0.02)))
        assert (effect.n, judge(effect)) == (0, "undecided")


def test_no_seed_is_left_out_for_what_it_reached() -> None:
    effect = effect_of("weighting_restores", of_seeds(losing(-0.01), *[losing(0.1)] * 4))
    assert effect.n == 5
    assert effect.mean == pytest.approx(0.1 - (4 * 0.1 - 0.01) / 5 / 2)


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
