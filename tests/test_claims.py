"""Every claim, on accuracies that it holds for and on ones that contradict it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
import pytest
from handmade import groups
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from mnist_imbalance.report.claims import (
    CLAIMS,
    LEFT,
    NOT_JUDGED,
    POINTS,
    Accuracies,
    Claim,
    judge_claims,
    name_deciding,
    name_weight,
    seeds_for,
)
from mnist_imbalance.report.gather import EPOCHS, STEPS, Gathered
from mnist_imbalance.report.statistics import seeds_to_decide
from mnist_imbalance.report.verdicts import Judgement, judge
from mnist_imbalance.runs import OnDemand

ByLabel = Sequence[float]
World = Mapping[str, ByLabel]  # by condition
SEEDS = (0, 1, 2)
LABELS = [*map(str, range(10)), "0-4", "5-9", "all"]
WEIGHTS = range(2, 11)
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, less their whole part, are all different
BY_NAME = {claim.name: claim for claim in CLAIMS}
all_claims = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
single_claims = pytest.mark.parametrize(
    "claim", [c for c in CLAIMS if not c.of_both], ids=lambda claim: claim.name
)


def table_1(
    original: ByLabel, imbalanced: ByLabel, augmented: ByLabel, per_label: ByLabel
) -> dict[str, ByLabel]:
    return {
        **{"original": original, "imbalanced": imbalanced, "per_label": per_label},
        **{"per_label_chosen": [each + 0.01 for each in per_label]},
        **{"augmented_40": augmented, "augmented_100": augmented},
    }


def sweep(minority: Mapping[int, float], majority_slope: float) -> dict[str, ByLabel]:
    return {
        name_weight(weight): groups(minority[weight], 0.6 + majority_slope * weight)
        for weight in WEIGHTS
    }


def peak_at(best: int) -> dict[int, float]:
    return {weight: 0.65 - 0.02 * abs(weight - best) for weight in WEIGHTS}


IMBALANCED = [0.5, 0.6, 0.3, 0.2, 0.4, *[0.7] * 5]
AUGMENTED = [0.505, 0.605, 0.305, 0.205, 0.405, *[0.7] * 5]
AS_REPORTED = {
    **table_1(groups(0.665, 0.6), IMBALANCED, AUGMENTED, groups(0.66, 0.64)),
    **sweep(peak_at(7), -0.004),
}
BETTER = {name: [each + 0.11 for each in of] for name, of in AS_REPORTED.items()}
OTHERWISE = {
    **table_1(groups(0.4, 0.7), groups(0.7, 0.6), groups(0.76, 0.74), groups(0.65, 0.45)),
    **sweep({weight: 0.5 + 0.02 * weight for weight in WEIGHTS}, 0.01),
}
RESTORED = table_1(groups(0.9, 0.9), groups(0.6, 0.9), groups(0.8, 0.9), groups(0.7, 0.85))
CONTRADICTED_BY = {  # where the claim compares more than OTHERWISE turns round
    **dict.fromkeys(("augmented_40_does_not_restore", "augmented_100_does_not_restore"), RESTORED),
    **dict.fromkeys(("weighting_restores", "most_labels_keep_up"), RESTORED),
    "majority_falls_slightly": sweep({w: 0.5 + 0.01 * w for w in WEIGHTS}, -0.02),
}


def rows(
    world: World, model: str, seed: int, shift: float = 0.0, scored: str = "test", **others: object
) -> list[dict[str, object]]:
    """One seed's scores of one model; labels are moved by up to 0.0006, each differently."""
    scale = 0.0006 if model == "lstm" else 0.0004
    made: list[dict[str, object]] = []
    for place, (condition, per_label) in enumerate(world.items()):
        moved = [
            each + shift + scale * (seed - 1) * ((10 * place + label) * GOLDEN % 1)
            for label, each in enumerate(per_label)
        ]
        means = [sum(moved[:5]) / 5, sum(moved[5:]) / 5, sum(moved) / 10]
        made += [
            {
                **{"model": model, "optimizer": "sgd", "condition": condition, "scored": scored},
                **{"label": label, "seed": seed, "data_seed": seed, "accuracy": accuracy},
                **{EPOCHS: True, STEPS: True},
                **others,
            }
            for label, accuracy in zip(LABELS, [*moved, *means], strict=True)
        ]
    return made


def accuracies(**worlds: World) -> Accuracies:
    """Three seeds of each model, equal on validation and test data."""
    return Accuracies(
        pandas.DataFrame(
            [
                row
                for model, world in worlds.items()
                for seed in SEEDS
                for scored in ("val", "test")
                for row in rows(world, model, seed, scored=scored)
            ]
        )
    )


def of_seeds(*worlds: World) -> Accuracies:
    """The LSTM, a seed for each world."""
    by_seed = enumerate(worlds)
    return Accuracies(
        pandas.DataFrame([row for seed, world in by_seed for row in rows(world, "lstm", seed)])
    )


def judged(claim: Claim, of: Accuracies) -> Judgement:
    return judge(claim.statistic(of, "both" if claim.of_both else "lstm"))


def judged_as(name: str, of: Accuracies) -> Judgement:
    return judged(BY_NAME[name], of)


@all_claims
def test_every_claim_can_hold(claim: Claim) -> None:
    judgement = judged(claim, accuracies(lstm=AS_REPORTED, cnn=BETTER))
    assert (judgement.n, judgement.verdict) == (3, "holds")
    assert judgement.low > 0


@all_claims
def test_every_claim_can_be_contradicted(claim: Claim) -> None:
    world = CONTRADICTED_BY.get(claim.name, OTHERWISE)
    judgement = judged(claim, accuracies(lstm=world, cnn=AS_REPORTED))
    assert (judgement.n, judgement.verdict) == (3, "contradicted")
    assert judgement.high < 0


@pytest.mark.parametrize(
    ("name", "deciding", "effect"),
    [  # 0-4, 5-9 and all: original .665, .6, .6325; imbalanced .4, .7, .55; a label .66, .64, .65
        ("imbalance_lowers_all", "", 0.6325 - 0.55),
        ("imbalance_lowers_0_4", "", 0.265),
        ("imbalance_raises_5_9", "", 0.1),
        ("change_is_like_the_cnns", "lstm, all", 0.6325 - 0.55),
        ("augmentation_brings_no_bounce", "augmented_100", 0.01 - 0.005 / 2),
        ("augmented_0_4_cannot_keep_up", "augmented_40", 0.7 - 0.405),
        ("augmented_40_does_not_restore", "", 0.265 / 2 - 0.005),
        ("augmentation_does_not_rebalance", "augmented_40", 0.295 - 0.3 / 2),
        ("augmented_stays_below_original", "augmented_100", 0.6325 - 0.5525),
        ("weighting_restores", "", 0.26 - 0.265 / 2),
        ("weighting_overtakes_on_each", "1", 0.66 - 0.6),
        ("most_labels_keep_up", "", 10 - 5),
        ("per_label_weights_balance", "", 0.3 / 2 - 0.02),
        ("weights_improve_all", "", 0.1),
        ("majority_falls_with_weight", "", 0.004),
        ("majority_falls_slightly", "", (5 - 3) * 0.02 - 8 * 0.004),
        ("the_peak_is_7", "8", 0.02),
        ("minority_falls_after_7", "7", 0.02),
        ("minority_peaks_inside", "", 0.65 - 0.59),
        ("large_weights_cost", "", (0.65 + 0.572) / 2 - (0.59 + 0.56) / 2),
        ("per_label_beats_one_weight", "", 0.65 - (0.65 + 0.572) / 2),
        ("chosen_weights_beat_one_weight", "", 0.66 - (0.65 + 0.572) / 2),
        ("labels_2_3_4_are_worst", "imbalanced, 0 − 4", 0.5 - 0.4),
        ("labels_2_3_4_are_worst_augmented", "augmented_40, 0 − 4", 0.505 - 0.405),
        ("cnn_beats_lstm", "augmented_100", 0.11),
        ("best_lstm_is_below_the_cnn", "imbalanced − per_label", 0.55 + 0.11 - 0.65),
    ],
)
def test_effects_have_the_size_that_they_say(name: str, deciding: str, effect: float) -> None:
    of = accuracies(lstm=AS_REPORTED, cnn=BETTER)
    judgement = judged_as(name, of)
    assert judgement.effect == pytest.approx(effect)
    effects = BY_NAME[name].statistic(of, "both" if BY_NAME[name].of_both else "lstm")
    assert name_deciding(effects, judgement) == deciding
    table = pandas.DataFrame(effects)
    ratios = table.mean() / table.std()
    assert ratios.iloc[judgement.deciding] == pytest.approx(ratios.min())


def test_a_change_like_the_cnns_is_one_of_direction() -> None:
    """Each model's 0-4 and all fall and 5-9 rise, by however much."""
    claim = BY_NAME["change_is_like_the_cnns"]
    assert claim.unit == POINTS
    effects = claim.statistic(accuracies(lstm=AS_REPORTED, cnn=BETTER), "both")
    assert set(effects) == {f"{m}, {of}" for m in ("lstm", "cnn") for of in ("0-4", "5-9", "all")}
    assert effects["cnn, 0-4"].mean() == pytest.approx(0.265)
    assert effects["cnn, 5-9"].mean() == pytest.approx(0.1)
    much_larger = {**BETTER, "imbalanced": groups(0.1, 0.95)}
    assert judged(claim, accuracies(lstm=AS_REPORTED, cnn=much_larger)).verdict == "holds"
    for turned, label in ((groups(0.8, 0.72), "0-4"), (groups(0.3, 0.65), "5-9")):
        other = {**BETTER, "imbalanced": turned}
        of = accuracies(lstm=AS_REPORTED, cnn=other)
        judgement = judged(claim, of)
        assert judgement.verdict == "contradicted"
        assert name_deciding(claim.statistic(of, "both"), judgement) == f"cnn, {label}"


def test_a_bounce_is_one_of_the_overall_accuracy() -> None:
    def augmented(minority: float, majority: float) -> str:
        of = groups(minority, majority)
        world = {**AS_REPORTED, "augmented_40": of, "augmented_100": of}
        return judged_as("augmentation_brings_no_bounce", accuracies(lstm=world)).verdict

    assert augmented(0.45, 0.65) == "holds"  # labels 0-4 gain what 5-9 lose
    assert augmented(0.4, 0.73) == "contradicted"  # all gains .015
    assert augmented(0.43, 0.7) == "contradicted"


def test_with_augmentation_every_other_label_is_compared_in_both() -> None:
    name = "labels_2_3_4_are_worst_augmented"
    effects = BY_NAME[name].statistic(accuracies(lstm=AS_REPORTED), "lstm")
    assert effects.shape == (3, 2 * 7 * 3)
    assert effects["augmented_100, 9 − 3"].mean() == pytest.approx(0.7 - 0.205)
    for turned in ("augmented_40", "augmented_100"):
        world = {**AS_REPORTED, turned: [0.505, 0.605, 0.305, 0.205, 0.71, *[0.7] * 5]}
        of = accuracies(lstm=world)
        assert judged_as(name, of).verdict == "contradicted"
        assert judged_as("labels_2_3_4_are_worst", of).verdict == "holds"


def test_chosen_weights_are_not_ai3607s() -> None:
    world = {**AS_REPORTED, "per_label_chosen": groups(0.5, 0.6)}
    of = accuracies(lstm=world)
    assert judged_as("chosen_weights_beat_one_weight", of).verdict == "contradicted"
    assert judged_as("per_label_beats_one_weight", of).verdict == "holds"


def test_seeds_pair() -> None:
    frames = [rows(AS_REPORTED, "lstm", seed, shift=0.2 * seed) for seed in SEEDS]
    of = Accuracies(pandas.DataFrame([row for of_seed in frames for row in of_seed]))
    assert of("lstm", "original", "0-4").std() == pytest.approx(0.2, rel=0.01)
    judgement = judged_as("imbalance_lowers_0_4", of)
    assert (judgement.low, judgement.high) == pytest.approx((0.265, 0.265), abs=0.002)


@all_claims
def test_a_seed_with_a_missing_run_is_left_out(claim: Claim) -> None:
    made = [rows(AS_REPORTED, "lstm", s, scored=on) for s in SEEDS for on in ("val", "test")]
    made += [rows(BETTER, "cnn", s, scored=on) for s in SEEDS for on in ("val", "test")]
    scores = pandas.DataFrame([row for of_seed in made for row in of_seed])
    first = scores.seed == 0
    none = scores.assign(accuracy=scores.accuracy.mask(first))
    assert judged(claim, Accuracies(none)).n == 2
    pandas.testing.assert_frame_equal(
        pandas.DataFrame(claim.statistic(Accuracies(none), "lstm")).dropna(),
        pandas.DataFrame(claim.statistic(Accuracies(scores[~first]), "lstm")),
    )


def test_each_missing_run_leaves_its_seed_out() -> None:
    counted = {
        "imbalance_lowers_0_4": {"original", "imbalanced"},
        "augmented_0_4_cannot_keep_up": {"augmented_40", "augmented_100"},
        "weighting_restores": {"original", "imbalanced", "per_label"},
        "the_peak_is_7": set(map(name_weight, WEIGHTS)),
        "labels_2_3_4_are_worst": {"imbalanced"},
        "labels_2_3_4_are_worst_augmented": {"augmented_40", "augmented_100"},
        "chosen_weights_beat_one_weight": {"per_label_chosen", "weighted"},
        "majority_falls_slightly": set(map(name_weight, WEIGHTS)),
    }
    for name, needed in counted.items():
        for gone in AS_REPORTED:
            some = {condition: of for condition, of in AS_REPORTED.items() if condition != gone}
            n = judged_as(name, of_seeds(AS_REPORTED, AS_REPORTED, some)).n
            assert n == (2 if gone in needed else 3), (name, gone)


def losing(lost: float) -> World:
    """What the imbalance took; augmentation and weights regain 0.1."""
    return table_1(*[groups(0.5 + change, 0.5) for change in (lost, 0, 0.1, 0.1)])


RESTORING = [
    "augmented_40_does_not_restore",
    "augmented_100_does_not_restore",
    "weighting_restores",
]


@pytest.mark.parametrize("name", RESTORING)
@pytest.mark.parametrize("lost", [(-0.1, -0.1, -0.1), (0, 0, 0), (-0.1, 0.01, 0.02), (0.1,)])
def test_without_a_certain_loss_nothing_is_judged_restored(
    name: str, lost: Sequence[float]
) -> None:
    judgement = judged_as(name, of_seeds(*map(losing, lost)))
    assert (judgement.n, judgement.verdict) == (0, "undecided")


def test_no_seed_is_left_out_for_what_it_reached() -> None:
    judgement = judged_as("weighting_restores", of_seeds(losing(-0.01), *[losing(0.1)] * 4))
    assert judgement.n == 5
    assert judgement.effect == pytest.approx(0.1 - (4 * 0.1 - 0.01) / 5 / 2, abs=0.001)


def test_a_label_that_lies_exactly_the_margin_below_keeps_up() -> None:
    world = table_1(*[groups(0.9 - change, 0.9 - change) for change in (0, 0.3, 0.3, 0.01)])
    scores = pandas.DataFrame(rows(world, "lstm", 1))  # a seed whose conditions are not moved
    effects = BY_NAME["most_labels_keep_up"].statistic(Accuracies(scores), "lstm")
    assert effects.tolist() == [5]


def test_a_weight_is_chosen_on_validation_data_and_measured_on_the_test_set() -> None:
    made = [
        row
        for seed in SEEDS
        for best, scored in ((3, "val"), (7, "test"))
        for row in rows(sweep(peak_at(best), 0.0), "lstm", seed, scored=scored)
    ]
    of = Accuracies(pandas.DataFrame(made))
    assert judged_as("minority_peaks_inside", of).effect == pytest.approx(0.57 - 0.59)
    assert judged_as("large_weights_cost", of).effect == pytest.approx((0.57 - 0.59) / 2)
    at_7 = BY_NAME["the_peak_is_7"].statistic(of, "lstm").mean()  # on the test set, as AI3607
    for weight in {*WEIGHTS} - {7}:
        assert at_7[weight] == pytest.approx(0.02 * abs(weight - 7))


def test_the_largest_weight_is_none_of_the_lower() -> None:
    judgement = judged_as("minority_peaks_inside", accuracies(lstm=OTHERWISE))
    assert judgement.effect == pytest.approx(0.68 - 0.70)


@single_claims
def test_claims_read_ai3607s_own_weights_only(claim: Claim) -> None:
    one = name_weight(7)
    others = {
        **{name_weight(weight): groups(0.99, 0.1) for weight in (1, 15, 50)},
        **{f"{name_weight(w)}, loss.normalize=count": groups(0.99, 0.1) for w in (3, 7, 10)},
        f"{one}, data.keep=0.05": groups(0.99, 0.1),
    }
    ours, theirs = (
        claim.statistic(accuracies(lstm=world), "lstm")
        for world in ({**AS_REPORTED, **others}, AS_REPORTED)
    )
    pandas.testing.assert_frame_equal(pandas.DataFrame(ours), pandas.DataFrame(theirs))


def test_weights_are_2_to_10_divided_by_their_sum() -> None:
    assert list(accuracies(lstm=AS_REPORTED).over_weights("lstm", "0-4")) == list(WEIGHTS)


@pytest.mark.parametrize("gone", [7, 8])
def test_a_sweep_without_a_weight_says_nothing_of_it(gone: int) -> None:
    some = {name: of for name, of in AS_REPORTED.items() if name != name_weight(gone)}
    of = accuracies(lstm=some)
    with pytest.raises(KeyError):
        judged_as("minority_falls_after_7", of)
    assert judged_as("minority_peaks_inside", of).n == 3


def test_a_sweep_that_no_seed_has_whole_is_undecided() -> None:
    scores = pandas.DataFrame(
        [
            row
            for seed in SEEDS
            for scored in ("val", "test")
            for row in rows(AS_REPORTED, "lstm", seed, scored=scored)
        ]
    )
    gone = scores.condition == name_weight(4)
    claims = judge_claims(gathered(scores.assign(accuracy=scores.accuracy.mask(gone))))
    claims = claims.set_index("claim")
    for name in ("majority_falls_with_weight", "minority_peaks_inside", "large_weights_cost"):
        assert (claims.n[name], claims.verdict[name]) == (0, "undecided")
        assert math.isnan(claims.p[name])
    assert claims.n["imbalance_lowers_0_4"] == 3


def test_what_the_study_does_not_plan_is_no_claim() -> None:
    of = accuracies(lstm=table_1(*[groups(0.5, 0.5)] * 4))
    with pytest.raises(KeyError):
        of.over_weights("lstm", "0-4")
    with pytest.raises(KeyError):
        of("cnn", "original", "all")


def gathered(scores: pandas.DataFrame) -> Gathered:
    return Gathered(pandas.DataFrame(), scores, {}, OnDemand({}), OnDemand({}), [])


def noisy(scale: float, seeds: int = 5) -> pandas.DataFrame:
    """Both models with both optimizers, each run with noise of its own; Adam has no sweep."""
    random = numpy.random.default_rng(7)
    made = []
    for optimizer in ("sgd", "adam"):
        for model, world in (("lstm", AS_REPORTED), ("cnn", BETTER)):
            shown = {c: of for c, of in world.items() if optimizer == "sgd" or "weighted" not in c}
            for seed in range(seeds):
                moved = {
                    condition: [each + random.normal(scale=scale) for each in of]
                    for condition, of in shown.items()
                }
                for scored in ("val", "test"):
                    made += rows(moved, model, seed, scored=scored, optimizer=optimizer)
    return pandas.DataFrame(made)


@pytest.fixture(scope="module")
def claims() -> pandas.DataFrame:
    return judge_claims(gathered(noisy(0.08)))


def test_columns(claims: pandas.DataFrame) -> None:
    order = ["claim", "section", "model", "optimizer", "n", "effect", "low", "high", "verdict"]
    assert list(claims.columns[: len(order)]) == order
    place = list(claims.columns).index("deciding")
    assert list(claims.columns[place - 1 : place + 3]) == [
        *("comparisons", "deciding", "margin", "seeds_to_decide")
    ]
    single = [claim.name for claim in CLAIMS if not claim.of_both]
    both = [claim.name for claim in CLAIMS if claim.of_both]
    sgd = claims[claims.optimizer == "sgd"]
    assert list(sgd.claim[sgd.model == "cnn"]) == single
    assert set(sgd.claim[sgd.model == "both"]) == set(both)
    adam = claims[claims.optimizer == "adam"]
    assert "the_peak_is_7" not in set(adam.claim)
    assert "weighting_restores" in set(adam.claim)
    assert set(claims.n) == {5}


def test_verdicts_are_corrected_within_one_model_and_one_optimizer(
    claims: pandas.DataFrame,
) -> None:
    family = claims.model.replace("both", "lstm") + " " + claims.optimizer
    assert len(claims[family == "lstm sgd"]) == len(CLAIMS)
    assert len(claims[family == "cnn sgd"]) == sum(not claim.of_both for claim in CLAIMS)
    for _, of_family in claims.groupby(family):
        holm = multipletests(of_family.p, method="holm")[1]
        assert of_family.p_corrected.to_numpy() == pytest.approx(holm)
        assert (of_family.p_corrected > of_family.p + 1e-6).any()
    together = multipletests(claims.p, method="holm")[1]
    assert not numpy.allclose(claims.p_corrected, together)


def test_a_corrected_verdict_is_that_of_its_corrected_p(claims: pandas.DataFrame) -> None:
    clear = claims.corrected.isin(["holds", "contradicted"])
    assert list(clear) == list(claims.p_corrected <= 0.05)
    assert (claims.verdict[clear] == claims.corrected[clear]).all()
    lost = claims[claims.verdict.isin(["holds", "contradicted"]) & ~clear]
    assert len(lost)  # correction takes some verdicts away
    assert (lost.p_corrected > 0.05).all()


def test_a_claim_of_no_difference_gets_no_margin() -> None:
    world = {**AS_REPORTED, "original": IMBALANCED, "per_label": IMBALANCED}
    world |= {name: groups(0.42, 0.7) for name in ("augmented_40", "augmented_100")}
    made = [row for seed in SEEDS for row in rows(world, "lstm", seed)]
    made += [row for seed in SEEDS for row in rows(BETTER, "cnn", seed)]
    claims = judge_claims(gathered(pandas.DataFrame(made)))
    assert claims.margin[claims.unit != POINTS].isna().all()
    assert {"augmentation_brings_no_bounce"} == set(claims.claim[claims.unit == LEFT])
    margins = claims[claims.unit == POINTS].groupby("model").margin.unique()
    assert {model: list(of) for model, of in margins.items()} == {
        "lstm": [0.01],
        "cnn": [0.005],
        "both": [0.005],
    }
    of_lstm = claims[claims.model == "lstm"].set_index("claim")
    assert of_lstm.effect["augmentation_brings_no_bounce"] == pytest.approx(0, abs=0.001)
    assert of_lstm.verdict["augmentation_brings_no_bounce"] == "undecided"
    assert of_lstm.verdict["weights_improve_all"] == "no difference"


def test_seeds_that_would_decide_are_told_of_undecided_claims_only(
    claims: pandas.DataFrame,
) -> None:
    undecided = claims.verdict == "undecided"
    assert claims.seeds_to_decide[~undecided].isna().all()
    told = claims[undecided & claims.seeds_to_decide.notna()]
    assert len(told)
    assert (told.seeds_to_decide > told.n).all()
    assert numpy.isfinite(told.seeds_to_decide).all()


def test_more_seeds_than_there_are_would_decide() -> None:
    seeds = numpy.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    clear, unclear, below, far_below, zero = (seeds + mean for mean in (1.9, 0.9, -0.9, -1.9, 0.0))

    def told(**effects: NDArray[numpy.float64]) -> float:
        table = pandas.DataFrame(effects)
        judgement = judge(table)
        assert judgement.verdict == "undecided"
        return seeds_for(table, judgement)

    needed: dict[str, Any] = {"clear": seeds_to_decide(clear), "unclear": seeds_to_decide(unclear)}
    assert 5 < needed["clear"] < needed["unclear"]
    # above zero, the least clear decides; of those below, the clearest
    assert told(a=clear, b=unclear) == told(a=unclear, b=clear) == needed["unclear"]
    assert told(a=clear, b=below) == needed["unclear"]
    assert told(a=below, b=far_below, c=clear) == needed["clear"]
    # zero is never decided, but another below zero may be
    assert math.isnan(told(a=clear, b=zero))
    assert told(a=zero, b=below) == needed["unclear"]
    # three are said to be enough of a mean that looks clear, and are no more than there are
    looks_clear = numpy.array([0.0, 1.0, 1.0])
    few = pandas.DataFrame({"a": [0.3, 1.0, 1.7], "b": looks_clear})
    judgement = judge(few)
    assert judgement.verdict == "undecided"
    assert seeds_for(few, judgement) > len(few)
    many_below = pandas.DataFrame({f"c{i}": seeds - 2.0 for i in range(20)})
    judgement = judge(many_below)
    assert judgement.verdict == "undecided"  # by Holm, though each alone is clear
    alone: Any = seeds_to_decide(seeds - 2.0)
    assert alone <= seeds_for(many_below, judgement)
    assert seeds_for(many_below, judgement) > 5


def test_the_deciding_comparison_is_named_where_there_are_several(
    claims: pandas.DataFrame,
) -> None:
    several = claims.comparisons > 1
    assert (claims.deciding[~several] == "").all()
    assert (claims.deciding[several] != "").all()
    of = Accuracies(noisy(0.08).query("optimizer == 'sgd'"))
    by_name = claims[(claims.optimizer == "sgd") & (claims.model != "cnn")].set_index("claim")
    for name, row in by_name[by_name.comparisons > 1].iterrows():
        table = pandas.DataFrame(BY_NAME[str(name)].statistic(of, row.model))
        [number] = [i for i, column in enumerate(table) if str(column) == row.deciding]
        alone = judge(table.iloc[:, number])
        assert (row.effect, row.low, row.high) == pytest.approx(alone[1:4])
        assert alone.p_holds == pytest.approx(judge(table).p_holds)


def test_one_seed_decides_nothing() -> None:
    claims = judge_claims(gathered(noisy(0.0, seeds=1)))
    assert set(claims.verdict) == set(claims.corrected) == {"undecided"}
    assert claims[["low", "high", "p", "p_corrected"]].isna().all(axis=None)
    restoring = claims.claim.isin(RESTORING)
    assert set(claims.n[~restoring]) == {1}
    assert set(claims.n[restoring]) == {0}  # one seed makes no loss certain


def test_only_runs_at_equal_epochs_count() -> None:
    scores = noisy(0.0, seeds=2)
    scores = scores[(scores.model == "lstm") & (scores.optimizer == "sgd")]
    longer = scores[scores.condition == "original"].assign(**{EPOCHS: False, "accuracy": 0.0})
    alone, beside = (
        judge_claims(gathered(each)) for each in (scores, pandas.concat([longer, scores]))
    )
    pandas.testing.assert_frame_equal(alone, beside)


def test_what_is_not_judged_says_where_it_stands_and_why() -> None:
    assert NOT_JUDGED
    sentences = {claim.sentence for claim in CLAIMS}
    for sentence, (section, why) in NOT_JUDGED.items():
        assert sentence not in sentences
        assert sentence.endswith(".")
        assert all(part.replace(".", "").isdigit() for part in section.split(", "))
        assert len(why) > 10
