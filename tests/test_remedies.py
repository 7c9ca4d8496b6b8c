"""What the remedies restore and add, on hand-made records."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from handmade import write_groups
from statsmodels.stats.multitest import multipletests

from mnist_imbalance.plan import PlannedRun
from mnist_imbalance.report.gather import EPOCHS, STEPS, Gathered, gather
from mnist_imbalance.report.image_statistics import over_seeds_and_images, paired_images
from mnist_imbalance.report.remedies import (
    BY_COUNT,
    COMPARED,
    MARKS,
    REFERENCES,
    REMEDIES,
    compared,
    restored,
)
from mnist_imbalance.report.statistics import estimate, fieller, seeds_needed, seeds_to_decide

LABELS = numpy.repeat(numpy.arange(10), 1000)  # as hand-made predictions stand
SEEDS = range(3)
LONG = {  # labels 0-4 by seed, of runs of 50 epochs
    "original": (0.95, 0.96, 0.98),
    "imbalanced": (0.6, 0.61, 0.65),
    "augmented_40": (0.7, 0.74, 0.73),
    "augmented_100": (0.8, 0.82, 0.83),
    "weighted": (0.75, 0.76, 0.77),
    f"weighted{BY_COUNT}": (0.84, 0.87, 0.87),
    f"weighted, loss.minority_weight=10{BY_COUNT}": (0.5, 0.52, 0.55),
}
SHORT = {  # of runs of as many steps
    "original": (0.9, 0.92, 0.94),
    "augmented_40": (0.76, 0.75, 0.8),
    "augmented_100": (0.901, 0.918, 0.94),
    "duplicated_40": (0.72, 0.74, 0.78),
    "duplicated_100": (0.85, 0.85, 0.88),
    "noise_100": (0.86,),
    "rotation_100": (0.89, 0.87),
}
CNN = {  # it lost something in one seed, and gained in another
    **{"original": (0.9, 0.7, 0.82), "imbalanced": (0.8, 0.8, 0.8)},
    **{"duplicated_100": (0.85, 0.87, 0.86), "augmented_100": (0.86, 0.87, 0.87)},
}
KEYS = ["ground", "optimizer", "model"]
TEN = "10 copies: noise and rotations − unchanged"
FOUR = "4 copies: noise and rotations − unchanged"
INSTEAD = "weight 7, by images − 10 unchanged copies"
BY_IMAGES = "weight 7: by images − by weights"
ROTATION = "10 copies: rotations alone − unchanged"


def minority(run: PlannedRun) -> float | None:
    """Accuracy of labels 0-4; None where the run is missing."""
    if run.choices["model"] == "cnn":
        by_seed: Sequence[float] = CNN.get(run.condition, ())
    else:
        by_seed = (SHORT if run.experiment == "equal_steps" else LONG).get(run.condition, ())
    return dict(enumerate(by_seed)).get(run.config["seed"])


def make_schema_1(folder: Path) -> None:
    """Rewrite a record as version 0.2 left it, without predictions."""
    file = folder / "result.json"
    record = json.loads(file.read_text())
    for key in ("condition", "steps", "groups", "data_sha256"):
        del record[key]
    file.write_text(json.dumps(record | {"schema": 1}))
    (folder / "predictions.npz").unlink()


@pytest.fixture(scope="module")
def gathered(place: Path) -> Gathered:
    """Records, some without predictions and one whose predictions are another run's."""
    overlays = ("study.experiments=[data_sweep,equal_steps,normalize]", "study.seeds=[0,1,2]")
    keys, runs = write_groups(place, minority, *overlays)
    for run in runs:
        folder = place / run.config_hash[:12]
        of = (run.choices["model"], run.condition, run.experiment, run.config["seed"])
        if not folder.exists():
            continue
        if of == ("lstm", "weighted", "normalize", 1):
            make_schema_1(folder)
        if of[:3] == ("cnn", "augmented_100", "equal_steps"):
            (folder / "predictions.npz").unlink()
        if of == ("lstm", "augmented_40", "equal_steps", 0):
            (folder / "predictions.npz").unlink()
        if of == ("lstm", "rotation_100", "equal_steps", 0):
            file = folder / "predictions.npz"
            labels = LABELS.astype(numpy.uint8)
            numpy.savez_compressed(file, val=labels, test=labels)
    return gather(keys)


@pytest.fixture(scope="module")
def rows(gathered: Gathered) -> pandas.DataFrame:
    return restored(gathered).set_index([*KEYS, "condition"]).sort_index()


@pytest.fixture(scope="module")
def pairs(gathered: Gathered) -> pandas.DataFrame:
    return compared(gathered, LABELS)


def row_of(
    pairs: pandas.DataFrame, comparison: str, model: str = "lstm", ground: str = STEPS
) -> Any:
    [row] = pairs[
        (pairs.comparison == comparison) & (pairs.model == model) & (pairs.ground == ground)
    ].itertuples()
    return row


def test_the_records_without_predictions_are_counted_as_runs(gathered: Gathered) -> None:
    assert gathered.damaged == []
    known = zip(gathered.runs.model, gathered.runs.condition, gathered.runs.seed, strict=True)
    assert ("lstm", "weighted", 1) in set(known)
    schemas = [result.schema_version for result in gathered.results.values()]
    assert schemas.count(1) == 1


def test_the_fraction_is_of_the_loss_with_fiellers_interval(rows: pandas.DataFrame) -> None:
    row = rows.loc[STEPS, "sgd", "lstm", "duplicated_100"]
    assert row.n == 3
    assert row.lost == pytest.approx(0.3)  # .3, .31, .29
    lost = estimate([0.3, 0.31, 0.29])
    assert (row.lost_low, row.lost_high) == pytest.approx((lost.low, lost.high))
    assert 0 < row.lost_low < 0.3 < row.lost_high
    assert row.fraction == pytest.approx(0.24 / 0.3)  # .25, .24, .23
    ends = fieller([0.25, 0.24, 0.23], [0.3, 0.31, 0.29])
    assert (row.low, row.high) == pytest.approx((ends.low, ends.high))
    assert 0.5 < row.low < 0.8 < row.high < 0.95
    assert [row[f"above_{mark:g}"] for mark in MARKS] == ["holds", "undecided", "contradicted"]
    assert row.minority == pytest.approx(0.86)
    assert row.majority == pytest.approx(0.9)
    assert row.overall == pytest.approx((0.86 + 0.9) / 2)
    assert row.remedy == "10 unchanged copies"


def test_verdicts_at_the_marks_are_where_fiellers_interval_lies(rows: pandas.DataFrame) -> None:
    seen = set()
    for _, row in rows[numpy.isfinite(rows.low)].iterrows():
        for mark in MARKS:
            inside = "undecided" if row.low <= mark <= row.high else "contradicted"
            expected = "holds" if row.low > mark else inside
            assert row[f"above_{mark:g}"] == expected
            seen.add(expected)
    assert seen == {"holds", "undecided", "contradicted"}


def test_what_was_lost_and_what_was_not_stand_first(gathered: Gathered) -> None:
    table = restored(gathered)
    assert list(REFERENCES) == ["imbalanced", "original"]
    assert not REFERENCES.keys() & REMEDIES.keys()
    for _, of in table.groupby(KEYS):
        assert list(of.condition[:2]) == ["imbalanced", "original"]
        assert list(of.remedy[:2]) == ["none", "all images"]
        assert list(of.condition[2:]) == [each for each in REMEDIES if each in set(of.condition)]
    rows = table.set_index([*KEYS, "condition"]).sort_index()
    for ground, original in ((STEPS, 0.92), (EPOCHS, (0.95 + 0.96 + 0.98) / 3)):
        none, whole = (rows.loc[ground, "sgd", "lstm", name] for name in REFERENCES)
        assert (none.n, whole.n) == (3, 3)
        assert (none.fraction, none.low, none.high) == pytest.approx((0, 0, 0))
        assert (whole.fraction, whole.low, whole.high) == pytest.approx((1, 1, 1))
        assert none.minority == pytest.approx(0.62)
        assert whole.minority == pytest.approx(original)
        assert whole.overall == pytest.approx((original + 0.9) / 2)
        assert none.lost == whole.lost == pytest.approx(original - 0.62)
        assert (none.not_below_original, whole.not_below_original) == ("contradicted", "holds")
        assert {none[f"above_{mark:g}"] for mark in MARKS} == {"contradicted"}
        assert {whole[f"above_{mark:g}"] for mark in MARKS} == {"holds"}


def test_an_uncertain_loss_has_an_interval_around_zero(rows: pandas.DataFrame) -> None:
    row = rows.loc[STEPS, "sgd", "cnn", "duplicated_100"]
    lost = estimate([0.1, -0.1, 0.02])
    assert (row.lost_low, row.lost_high) == pytest.approx((lost.low, lost.high))
    assert row.lost_low < 0 < row.lost_high


def test_harm_is_a_negative_fraction(rows: pandas.DataFrame) -> None:
    row = rows.loc[STEPS, "sgd", "lstm", f"weighted, loss.minority_weight=10{BY_COUNT}"]
    assert row.fraction == pytest.approx(-0.29 / 0.9)  # of -.1, -.09, -.1
    assert row["above_0.5"] == "contradicted"


def test_not_below_original(rows: pandas.DataFrame) -> None:
    at_steps = rows.loc[STEPS, "sgd", "lstm"]
    assert at_steps.not_below_original["augmented_100"] == "holds"  # by at most 0.2 points
    assert at_steps.not_below_original["duplicated_100"] == "contradicted"  # by 5 to 7
    assert at_steps.not_below_original["rotation_100"] == "undecided"  # by 1 and 5
    # above the original in one seed and below it in another
    assert rows.loc[STEPS, "sgd", "cnn", "augmented_100"].not_below_original == "undecided"


def test_only_seeds_with_all_three_runs_count(rows: pandas.DataFrame) -> None:
    two = rows.loc[STEPS, "sgd", "lstm", "rotation_100"]
    assert two.n == 2
    assert two.lost == pytest.approx(0.305)
    assert two.fraction == pytest.approx((0.29 + 0.26) / (0.3 + 0.31))
    one = rows.loc[STEPS, "sgd", "lstm", "noise_100"]
    assert (one.n, one.fraction) == (1, pytest.approx(0.26 / 0.3))
    assert math.isnan(one.low)
    verdicts = [one[f"above_{mark:g}"] for mark in MARKS]
    assert {*verdicts, one.not_below_original} == {"undecided"}
    assert (STEPS, "sgd", "cnn", "noise_100") not in rows.index


def test_the_accuracies_are_of_the_seeds_that_the_fraction_is_of(gathered: Gathered) -> None:
    seed_2 = gathered.scores.seed == 2
    gone = (gathered.scores.condition == "imbalanced") & seed_2
    less = gathered.scores.assign(accuracy=gathered.scores.accuracy.mask(gone))
    row = restored(replace(gathered, scores=less)).set_index([*KEYS, "condition"])
    row = row.loc[STEPS, "sgd", "lstm", "duplicated_100"]
    assert (row.n, row.minority) == (2, pytest.approx(0.85))


def test_runs_with_a_last_step_stand_on_equal_steps_only(rows: pandas.DataFrame) -> None:
    at = {ground: rows.loc[ground, "sgd", "lstm"] for ground in (STEPS, EPOCHS)}
    assert at[STEPS].minority["augmented_100"] == pytest.approx((0.901 + 0.918 + 0.94) / 3)
    assert at[EPOCHS].minority["augmented_100"] == pytest.approx((0.8 + 0.82 + 0.83) / 3)
    assert "duplicated_100" in at[STEPS].index
    assert "duplicated_100" not in at[EPOCHS].index


def test_runs_of_50_imbalanced_epochs_stand_on_both_grounds(rows: pandas.DataFrame) -> None:
    at = {ground: rows.loc[ground, "sgd", "lstm"] for ground in (STEPS, EPOCHS)}
    for of_ground in at.values():
        assert of_ground.minority["weighted"] == pytest.approx(0.76)
        assert of_ground.n["weighted"] == 3
    assert at[STEPS].fraction["weighted"] == pytest.approx((0.76 - 0.62) / (0.92 - 0.62))
    lost = (0.95 + 0.96 + 0.98) / 3 - 0.62
    assert at[EPOCHS].lost["weighted"] == pytest.approx(lost)
    assert at[EPOCHS].fraction["weighted"] == pytest.approx((0.76 - 0.62) / lost)


def test_of_an_uncertain_loss_any_fraction_may_be_true(rows: pandas.DataFrame) -> None:
    row = rows.loc[STEPS, "sgd", "cnn", "duplicated_100"]
    assert (row.n, row.lost) == (3, pytest.approx(0.02 / 3))
    assert (row.low, row.high) == (-math.inf, math.inf)
    assert [row[f"above_{mark:g}"] for mark in MARKS] == ["undecided"] * 3


def test_where_the_imbalance_helped_nothing_is_restored(gathered: Gathered) -> None:
    swapped = {"original": "imbalanced", "imbalanced": "original"}
    at_epochs = gathered.scores[gathered.scores[EPOCHS]]
    turned = at_epochs.assign(condition=at_epochs.condition.replace(swapped))
    found = restored(replace(gathered, scores=turned)).set_index([*KEYS, "condition"])
    row = found.loc[EPOCHS, "sgd", "lstm", "augmented_100"]
    assert row.lost < 0
    assert math.isfinite(row.low)
    assert [row[f"above_{mark:g}"] for mark in MARKS] == ["undecided"] * 3


def test_a_comparison_is_paired_by_seed(pairs: pandas.DataFrame) -> None:
    row = row_of(pairs, TEN)
    assert (row.first, row.second) == ("augmented_100", "duplicated_100")
    assert (row.n, row.effect) == (3, pytest.approx(0.179 / 3))  # .051, .068, .06
    half = 4.302653 * numpy.std([0.051, 0.068, 0.06], ddof=1) / 3**0.5
    assert (row.low, row.high) == pytest.approx((row.effect - half, row.effect + half))
    assert row.verdict == "holds"
    assert row.margin == 0.01
    assert row_of(pairs, TEN, "cnn").margin == 0.005


def test_what_a_difference_costs_the_other_labels_stands_beside(gathered: Gathered) -> None:
    scores = gathered.scores
    moved = {0: 0.03, 1: 0.01, 2: 0.02}  # what the copies with noise lose on 5-9
    of_first = (scores.condition == "augmented_100") & (scores.label == "5-9")
    costly = scores.accuracy - scores.seed.map(moved).where(of_first, 0)
    of_all = (scores.condition == "augmented_100") & (scores.label == "all")
    costly -= scores.seed.map(moved).where(of_all, 0) / 2
    row = row_of(compared(replace(gathered, scores=scores.assign(accuracy=costly)), None), TEN)
    minority = numpy.array([0.051, 0.068, 0.06])
    majority = -numpy.array([0.03, 0.01, 0.02])
    for name, differences in (("majority", majority), ("overall", (minority + majority) / 2)):
        found = [getattr(row, f"{name}{end}") for end in ("", "_low", "_high")]
        assert found == pytest.approx(estimate(differences)[1:])
    assert row.effect == pytest.approx(minority.mean())
    assert row.overall_low < row.overall < row.overall_high


def test_seeds_that_would_find_the_margin_are_told_of_every_comparison(
    pairs: pandas.DataFrame,
) -> None:
    clear = row_of(pairs, TEN)
    assert clear.verdict == "holds"
    assert math.isnan(clear.seeds_to_decide)
    assert clear.seeds_for_margin == seeds_needed([0.051, 0.068, 0.06], 0.01)
    undecided = row_of(pairs, FOUR)
    effects = [0.04, 0.01, 0.02]
    to_decide: Any = seeds_to_decide(effects)
    assert undecided.seeds_for_margin == seeds_needed(effects, 0.01)
    assert undecided.seeds_to_decide == max(4, to_decide)
    assert undecided.seeds_for_margin > undecided.seeds_to_decide  # .01 is less than was seen
    of_cnn = row_of(pairs, TEN, "cnn")
    assert of_cnn.seeds_for_margin == seeds_needed([0.01, 0.0, 0.01], 0.005)
    one = row_of(pairs, "10 copies: noise alone − unchanged")
    assert one.n == 1
    assert math.isnan(one.seeds_for_margin)


def test_an_undecided_comparison_needs_more_seeds_than_it_has(pairs: pandas.DataFrame) -> None:
    told = pairs[pairs.seeds_to_decide.notna()]
    assert (told.verdict == "undecided").all()
    assert (told.seeds_to_decide > told.n).all()


def test_verdicts_of_comparisons(pairs: pandas.DataFrame) -> None:
    verdicts = {
        (FOUR, STEPS): "undecided",  # +.04, +.01, +.02
        (INSTEAD, STEPS): "undecided",  # -.01, +.02, -.01
        (BY_IMAGES, STEPS): "holds",  # +.09, +.11, +.10
        (BY_IMAGES, EPOCHS): "holds",
    }
    for (comparison, ground), verdict in verdicts.items():
        assert row_of(pairs, comparison, ground=ground).verdict == verdict
    undecided = row_of(pairs, FOUR)
    assert 3 < undecided.seeds_to_decide < 20
    assert math.isnan(row_of(pairs, BY_IMAGES).seeds_to_decide)


def test_worse_and_no_difference(gathered: Gathered) -> None:
    def turned(shift: Sequence[float]) -> Any:
        """The copies with noise and rotation beside the same, moved in each seed."""
        scores = gathered.scores[gathered.scores[STEPS] & (gathered.scores.model == "lstm")]
        first = scores[scores.condition == "augmented_100"]
        moved = first.accuracy + first.seed.map(dict(enumerate(shift)))
        second = first.assign(condition="duplicated_100", accuracy=moved)
        found = compared(replace(gathered, scores=pandas.concat([first, second])), None)
        return row_of(found, TEN)

    assert turned((0.05, 0.06, 0.055)).verdict == "contradicted"
    assert turned((0.002, -0.002, 0.001)).verdict == "no difference"


def test_verdicts_are_corrected_within_a_model_on_one_ground(pairs: pandas.DataFrame) -> None:
    families = pairs.groupby(KEYS)
    assert {key: len(of) for key, of in families}[STEPS, "sgd", "lstm"] == 9
    for _, family in families:
        known = family[family.p.notna()]
        assert (known.n > 1).all()
        assert family.p_corrected[family.p.isna()].isna().all()
        if len(known):
            holm = multipletests(known.p, method="holm")[1]
            assert known.p_corrected.to_numpy() == pytest.approx(holm)
            clear = known.corrected.isin(["holds", "contradicted"])
            assert list(clear) == list(known.p_corrected <= 0.05)
    assert families.p.count().max() == 7
    of_lstm = families.get_group((STEPS, "sgd", "lstm")).set_index("comparison")
    assert of_lstm.n[of_lstm.p.isna()].to_dict() == {
        "10 copies: noise alone − unchanged": 1,
        "10 copies: noise and rotations − noise alone": 1,
    }
    assert (pairs.p_corrected > pairs.p + 1e-6).any()


def right(by_seed: Sequence[float]) -> numpy.ndarray:
    """Which images are right, (seeds, 10000): of every label the first."""
    limits = numpy.array([[each] * 5 + [0.9] * 5 for each in by_seed])
    return numpy.arange(1000)[None, None] < numpy.round(1000 * limits)[:, :, None]


def test_predictions_give_an_interval_over_images_too(pairs: pandas.DataFrame) -> None:
    row = row_of(pairs, TEN)
    first, second = (
        right(SHORT[name]).reshape(3, -1) for name in ("augmented_100", "duplicated_100")
    )
    wide = over_seeds_and_images(first, second, LABELS, range(5))
    assert wide.mean == pytest.approx(row.effect)
    assert row.n_images == 3
    assert (row.low_images, row.high_images) == pytest.approx((wide.low, wide.high))
    assert row.low_images < row.low < row.high < row.high_images


def test_images_are_won_and_lost(pairs: pandas.DataFrame) -> None:
    row = row_of(pairs, TEN)
    # of a label, images 850 to 939 are right with more seeds, and no image with fewer
    assert (row.gained, row.lost) == (5 * 90, 0)
    row = row_of(pairs, INSTEAD)
    # .84, .87, .87 against .85, .85, .88: 840 to 849 -1, 850 to 869 +1, 870 to 879 -1
    assert (row.gained, row.lost) == (5 * 20, 5 * 20)
    assert row.p_images == pytest.approx(1)
    first, second = (  # without seed 1, which has no predictions
        right(of)[:, :5].reshape(2, -1) for of in ((0.84, 0.87), (0.75, 0.77))
    )
    images = paired_images(first, second)
    row = row_of(pairs, BY_IMAGES)
    assert (row.gained, row.lost, row.p_images) == (images.gained, images.lost, images.p)


def test_a_record_without_predictions_is_not_dropped(pairs: pandas.DataFrame) -> None:
    of_schema_1 = row_of(pairs, BY_IMAGES)
    assert (of_schema_1.n, of_schema_1.n_images) == (3, 2)
    assert of_schema_1.effect == pytest.approx(0.1)
    removed = row_of(pairs, FOUR)
    assert (removed.n, removed.n_images) == (3, 2)
    all_removed = row_of(pairs, TEN, "cnn")
    assert (all_removed.n, all_removed.n_images) == (3, 0)
    assert all_removed.effect == pytest.approx(0.02 / 3)
    assert math.isnan(all_removed.low_images)
    assert math.isnan(all_removed.p_images)


def test_predictions_that_contradict_the_record_are_not_used(pairs: pandas.DataFrame) -> None:
    row = row_of(pairs, ROTATION)
    assert (row.n, row.n_images) == (2, 1)
    # of seed 1 alone: .87 against .85; seed 0's file says that every image is right
    assert (row.gained, row.lost) == (5 * 20, 0)
    assert math.isnan(row.low_images)


def test_without_the_test_sets_labels_only_seeds_are_drawn(
    gathered: Gathered, pairs: pandas.DataFrame
) -> None:
    without = compared(gathered, None)
    assert list(without.columns) == list(pairs.columns)
    assert set(without.n_images) == {0}
    shared = ["comparison", "n", "effect", "low", "high", "verdict", "corrected", "p"]
    pandas.testing.assert_frame_equal(without[shared], pairs[shared])


def test_labels_in_another_order_fit_no_predictions(gathered: Gathered) -> None:
    assert set(compared(gathered, LABELS[::-1]).n_images) == {0}


def test_every_pair_is_of_two_remedies_that_the_report_names(pairs: pandas.DataFrame) -> None:
    assert set(pairs.comparison) < set(COMPARED)
    assert {TEN, FOUR, INSTEAD, BY_IMAGES, ROTATION} <= set(pairs.comparison)
    for row in pairs.itertuples():
        assert (row.first, row.second) == COMPARED[row.comparison]
    planned = pairs[pairs.ground == EPOCHS]
    assert set(planned.comparison) == {BY_IMAGES}  # no copies at equal epochs
