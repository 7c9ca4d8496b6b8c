"""The report's tables, of hand-made runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, groups, predictions, run, weighted

from mnist_imbalance.records import table as records
from mnist_imbalance.report import tables
from mnist_imbalance.report.stats import estimate, fieller, seeds_needed
from mnist_imbalance.report.tables import EPOCHS, STEPS, on_grounds

pytest_plugins = ["made_runs"]
LAST = {"trainer.max_steps": 11650}
NO_LABELS = np.array([], int)
AT_STEPS = {  # of labels 0-4, by seed
    "original": (0.92, 0.93, 0.91),
    "augmented_100": (0.901, 0.918, 0.94),
    "duplicated_100": (0.85, 0.85, 0.88),
    "rotation_100": (0.91, 0.88),
    "noise_100": (0.88,),
}
AT_BOTH = {
    "imbalanced": (0.62, 0.62, 0.62),
    "weighted, loss.normalize=count": (0.84, 0.87, 0.87),
    "weighted": (0.75, 0.76, 0.77),
}
CNN = {"original": (0.9, 0.7, 0.82), "imbalanced": (0.8, 0.8, 0.8)}


def by_seed(reached: Mapping[str, Sequence[float]], **others: Any) -> list[dict[str, Any]]:
    return [
        run(name, seed, groups(rare, 0.9), **others)
        for name, accuracies in reached.items()
        for seed, rare in enumerate(accuracies)
    ]


def made() -> pd.DataFrame:
    """Runs on both grounds, and the original set at equal epochs."""
    rows = by_seed(AT_STEPS, epochs=28, per_epoch=430, config=LAST) + by_seed(AT_BOTH)
    rows += by_seed({"original": (0.95, 0.96, 0.97)}, per_epoch=430) + by_seed(CNN, model="cnn")
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return on_grounds(made())


def test_a_fraction_is_paired_by_seed(runs: pd.DataFrame) -> None:
    restored = tables.restored(runs).set_index(["ground", "model", "condition"])
    row = restored.loc[STEPS, "lstm", "duplicated_100"]
    lost = np.array(AT_STEPS["original"]) - 0.62
    expected = fieller(pd.Series(AT_STEPS["duplicated_100"]) - 0.62, pd.Series(lost))
    assert (row.n, row.fraction, row.low, row.high) == pytest.approx(expected)
    assert (row.lost, row.lost_low, row.lost_high) == pytest.approx(estimate(lost)[1:])
    assert (row.minority, row.majority, row.overall) == pytest.approx((0.86, 0.9, 0.88))
    assert (row.remedy, row.rare, row.frequent) == ("10 unchanged copies", "0-4", "5-9")
    marks = [row["above_0.5"], row["above_0.8"], row["above_0.95"]]
    assert marks == ["holds", "undecided", "undecided"]
    one = restored.loc[STEPS, "lstm", "noise_100"]
    assert (one.n, one.fraction) == (1, pytest.approx(0.26 / 0.3))
    assert {one["above_0.5"], one.not_below_original} == {"undecided"}
    uncertain = restored.loc[EPOCHS, "cnn", "original"]  # whether anything was lost
    assert (uncertain.low, uncertain.high) == (-math.inf, math.inf)
    assert {uncertain["above_0.5"], uncertain["above_0.95"]} == {"undecided"}


TEN = "10 copies: noise and rotations − unchanged"


def compared_row(runs: pd.DataFrame, labels: Any, name: str = TEN, ground: str = STEPS) -> Any:
    found = tables.compared(runs, labels)
    at = (found.comparison == name) & (found.ground == ground) & (found.model == "lstm")
    return found[at].iloc[0]


@pytest.mark.usefixtures("kept_in_memory")
def test_a_comparison_is_over_seeds_and_over_images(
    runs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = np.array([0.051, 0.068, 0.06])
    row = compared_row(runs, LABELS)
    assert (row.n, row.effect, row.low, row.high) == pytest.approx(estimate(effects))
    assert (row.majority, row.overall) == pytest.approx((0, effects.mean() / 2))
    assert (row.verdict, row.margin, row.n_images) == ("holds", 0.01, 3)
    assert row.low_images < row.low < row.high < row.high_images
    # of a label, images 850 to 939 are right with more seeds, and no image with fewer
    assert (row.gained, row.lost) == (5 * 90, 0)
    assert row.seeds_for_margin == seeds_needed(effects, 0.01)
    undecided = compared_row(runs, LABELS, "10 copies: noise and rotations − rotations alone")
    assert undecided.verdict == "undecided"
    assert undecided.seeds_to_decide > undecided.n == 2
    by_images = compared_row(runs, LABELS, "weight 7: by images − by weights", EPOCHS)
    assert by_images.effect == pytest.approx(0.1)
    for labels in (NO_LABELS, LABELS[::-1]):  # unknown, or others than the record's
        row = compared_row(runs, labels)
        assert (row.n, row.n_images) == (3, 0)
        assert math.isnan(row.p_images)
    wrong = {row.config_hash: predictions(row) for row in runs.itertuples() if row.seed}
    wrong |= {row.config_hash: LABELS for row in runs.itertuples() if not row.seed}
    monkeypatch.setattr(records, "predictions", lambda runs: wrong)
    assert compared_row(runs, LABELS).n_images == 2
    one = {key: wrong[key] for key in runs[runs.seed == 1].config_hash}
    monkeypatch.setattr(records, "predictions", lambda runs: one)
    row = compared_row(runs, LABELS)
    assert (row.n_images, row.gained) == (1, 5 * 68)
    assert math.isnan(row.low_images)


def test_runs_that_stand_on_no_ground_say_why() -> None:
    rows = made()
    other = [run("imbalanced", s, groups(0.1, 0.1), epochs=e) for s, e in ((0, 1), (1, 200))]
    other += [run("original", 0, groups(0, 0), config={"trainer.limit_train_batches": 0.1})]
    other += [run("weighted", 0, groups(0, 0), config={"data.note": 1})]
    other += [run("imbalanced", 0, groups(0, 0), config={"scheduler._target_": "cosine"})]
    found = on_grounds(pd.concat([rows, pd.DataFrame(other)], ignore_index=True))
    assert len(found) == len(rows) + 4  # one is of the methods
    pd.testing.assert_frame_equal(tables.differences(found), tables.differences(on_grounds(rows)))
    assert tables.left_out(found)[["why", "condition", "seeds"]].to_numpy().tolist() == [
        ["trained on a part of the images", "original", "0"],
        ["of another length", "imbalanced", "0"],
        ["of another length", "imbalanced", "1"],
        ["another run has the same name", "weighted", "0"],
    ]


def test_the_longest_of_equally_many_lengths_is_common() -> None:
    two = [run("imbalanced", 0, groups(0.5, 0.9), epochs=epochs) for epochs in (1, 50)]
    found = on_grounds(pd.DataFrame(two))
    assert found[found[EPOCHS]].epochs.tolist() == found[found[STEPS]].epochs.tolist() == [50]
    without = on_grounds(pd.DataFrame([run("original", s, groups(0.5, 0.9)) for s in range(2)]))
    assert without[EPOCHS].all()


@pytest.mark.usefixtures("kept_in_memory")
def test_groups_and_labels_are_those_of_the_records() -> None:
    three = {"many": [0, 1], "medium": [2], "few": [3, 4], "all": [*range(5)]}
    rows = [
        run(name, seed, [0.9, 0.8, 0.7, 0.6, 0.5], groups=three)
        for name in ("original", "imbalanced", "weighted")
        for seed in range(2)
    ]
    found = on_grounds(pd.DataFrame(rows))
    means = tables.all_conditions(found).set_index(["condition", "label"])["mean"]
    assert means["original"].to_dict() == pytest.approx(
        {"many": 0.85, "medium": 0.7, "few": 0.55, "all": 0.7}
    )
    everything = tables.tabulate(pd.DataFrame(rows), NO_LABELS)
    assert everything["claims"].empty
    assert set(everything["restored"].rare) == {"many"}
    assert set(everything["restored"].frequent) == {"medium"}
    mixed = on_grounds(pd.concat([pd.DataFrame(rows), made()], ignore_index=True))
    assert tables.rare_and_frequent(mixed) == ("0-4", "5-9")  # of most runs
    assert tables.all_conditions(mixed).query("label == 'few'").n.tolist() == [2, 2, 2]
    none = pd.DataFrame(rows[:1]).iloc[:0]
    assert all(table.empty for table in tables.tabulate(none, NO_LABELS).values())


def test_weights_are_chosen_on_validation_data_and_on_the_test_set() -> None:
    rows = [  # validation likes 5 and, of label 0 alone, 9; the test set likes 10
        weighted(
            w, s, groups(0.5 + w / 100, 0.9), [0.1 * (w == 9) + 0.8, *[0.5 + 0.1 * (w == 5)] * 9]
        )
        for w in range(2, 11)
        for s in range(2)
    ]
    runs = on_grounds(pd.DataFrame(rows))
    one, by_label = tables.selection(runs).to_dict("records")
    assert (one["n"], one["on_validation"], one["on_test"]) == pytest.approx((2, 0.55, 0.6))
    assert by_label["on_validation"] == pytest.approx((0.59 + 4 * 0.55) / 5)
    assert tables.optimum(runs)[["by_seed", "largest"]].to_numpy().tolist() == [["5 5", 10]]


IMAGES = (-0.06, -0.01, 0.02, 0.05)  # what the choice of images adds to the accuracy of 0-4
STARTS = (-0.01, 0.02, -0.02, 0.01)  # the initial weights and the order


def crossed(*gone: tuple[int, int]) -> pd.DataFrame:
    noise = np.random.default_rng(0).integers(-2, 3, (4, 4)) / 1000
    rows = [
        run("imbalanced", s, groups(0.7 + IMAGES[d] + STARTS[s] + noise[d, s], 0.9), data_seed=d)
        for d in range(4)
        for s in range(4)
        if (d, s) not in gone
    ]
    return on_grounds(pd.DataFrame(rows))


def test_the_spread_of_crossed_seeds_is_split() -> None:
    found = tables.components(crossed())
    assert found.component.tolist() == ["choice of images", "initial weights and order", "rest"]
    assert set(found.n) == {16}
    expected = [np.std(IMAGES, ddof=1), np.std(STARTS, ddof=1), 0.001]
    assert found.sd.tolist() == pytest.approx(expected, abs=0.002)
    assert found.share.sum() == pytest.approx(1)
    assert set(tables.components(crossed((3, 0))).n) == {9}  # the largest square of first seeds
    assert tables.components(crossed((0, 1))).empty
    assert tables.components(crossed().assign(**{STEPS: False})).empty
    shown = tables.on(crossed(), EPOCHS)
    assert (shown.seed == shown.data_seed).all()  # other images appear in no other table
