"""The report's tables, of hand-made runs."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, groups, predictions, run, weighted

from mnist_imbalance.records import table as records
from mnist_imbalance.report import tables
from mnist_imbalance.report.stats import estimate, fieller, seeds_needed
from mnist_imbalance.report.tables import EPOCHS, STEPS, on, on_grounds

pytest_plugins = ["made_runs"]
LAST = {"trainer.max_steps": 11650}
AT_STEPS: dict[str, tuple[float, ...]] = {  # of labels 0-4, by seed
    "original": (0.92, 0.93, 0.91),
    "augmented_100": (0.901, 0.918, 0.94),
    "duplicated_100": (0.85, 0.85, 0.88),
    "rotation_100": (0.91, 0.88),
    "noise_100": (0.88,),
    "augmented_40": (0.84, 0.82, 0.83),
    "duplicated_40": (0.80, 0.81, 0.81),
}
AT_BOTH = {
    "imbalanced": (0.62, 0.62, 0.62),
    "weighted, loss.normalize=count": (0.84, 0.87, 0.87),
    "weighted": (0.75, 0.76, 0.77),
}


def made() -> pd.DataFrame:
    """Runs on both grounds, and the original set at equal epochs."""
    rows = [
        run(name, seed, groups(rare, 0.9), epochs=28, per_epoch=430, config=LAST)
        for name, reached in AT_STEPS.items()
        for seed, rare in enumerate(reached)
    ]
    rows += [
        run(name, seed, groups(rare, 0.9))
        for name, reached in AT_BOTH.items()
        for seed, rare in enumerate(reached)
    ]
    rows += [run("original", s, groups(0.95 + s / 100, 0.9), per_epoch=430) for s in range(3)]
    cnn = {"original": (0.9, 0.7, 0.82), "imbalanced": (0.8, 0.8, 0.8)}
    cnn["duplicated_100"] = (0.85, 0.75, 0.81)
    rows += [
        run(name, seed, groups(rare, 0.9), model="cnn", config=LAST if "d_1" in name else {})
        for name, reached in cnn.items()
        for seed, rare in enumerate(reached)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return on_grounds(made())


@pytest.fixture(scope="module")
def restored(runs: pd.DataFrame) -> pd.DataFrame:
    return tables.restored(runs).set_index(["ground", "model", "condition"])


def test_a_fraction_is_paired_by_seed(restored: pd.DataFrame) -> None:
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


def test_of_an_uncertain_loss_any_fraction_may_be_true(restored: pd.DataFrame) -> None:
    row = restored.loc[EPOCHS, "cnn", "original"]
    assert (row.low, row.high) == (-math.inf, math.inf)
    assert {row["above_0.5"], row["above_0.95"]} == {"undecided"}


def compared_row(runs: pd.DataFrame, labels: Any, name: str, ground: str = STEPS) -> Any:
    found = tables.compared(runs, labels)
    at = (found.comparison == name) & (found.ground == ground) & (found.model == "lstm")
    return found[at].iloc[0]


TEN = "10 copies: noise and rotations − unchanged"
BY_IMAGES = "weight 7: by images − by weights"


@pytest.mark.usefixtures("kept_in_memory")
def test_a_comparison_is_over_seeds_and_over_images(runs: pd.DataFrame) -> None:
    effects = np.array([0.051, 0.068, 0.06])
    row = compared_row(runs, LABELS, TEN)
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
    assert compared_row(runs, LABELS, BY_IMAGES, EPOCHS).effect == pytest.approx(0.1)


@pytest.mark.usefixtures("kept_in_memory")
def test_images_are_compared_only_where_predictions_fit_the_record(
    runs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    for labels in (None, LABELS[::-1]):
        row = compared_row(runs, labels, TEN)
        assert (row.n, row.n_images) == (3, 0)
        assert math.isnan(row.p_images)
    wrong = {row.config_hash: predictions(row) for row in runs.itertuples() if row.seed}
    wrong |= {row.config_hash: LABELS for row in runs.itertuples() if not row.seed}
    monkeypatch.setattr(records, "predictions", lambda runs: wrong)
    assert compared_row(runs, LABELS, TEN).n_images == 2
    one = {
        key: known for key, known in wrong.items() if key in set(runs[runs.seed == 1].config_hash)
    }
    monkeypatch.setattr(records, "predictions", lambda runs: one)
    row = compared_row(runs, LABELS, TEN)
    assert (row.n_images, row.gained) == (1, 5 * 68)
    assert math.isnan(row.low_images)


def test_runs_that_stand_on_no_ground_say_why() -> None:
    rows = made()
    other = [
        run("imbalanced", 0, groups(0.1, 0.1), epochs=1),
        run("imbalanced", 1, groups(0.1, 0.1), epochs=200),
    ]
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
    assert not without[STEPS].any()


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
    assert tables.rare_and_frequent(found) == ("many", "medium")
    everything = tables.tabulate(pd.DataFrame(rows))
    assert everything["claims"].empty
    assert set(everything["restored"].rare) == {"many"}
    mixed = on_grounds(pd.concat([pd.DataFrame(rows), made()], ignore_index=True))
    assert tables.rare_and_frequent(mixed) == ("0-4", "5-9")  # of most runs
    assert tables.all_conditions(mixed).query("label == 'few'").n.tolist() == [2, 2, 2]


def test_chosen_weights_are_those_of_the_sweep_in_the_records() -> None:
    rows = [
        weighted(w, 0, groups(0.5, 0.5), groups(0.5 + w / 100 * (w < 8), 0.9)) for w in range(2, 11)
    ]
    rows += [weighted(50, 0, groups(0.5, 0.5), groups(0.99, 0.9))]  # AI3607 tries none beyond 10
    for weights in ([7.0] * 5 + [1.0] * 5, [3.0] * 5 + [1.0] * 5):
        config = {"loss.weights": weights, "loss.normalize": "weight_sum", "loss._target_": "p"}
        rows.append(run("per_label_chosen", 0, groups(0.5, 0.5), config=config))
    found = on_grounds(pd.DataFrame(rows)).condition
    assert [name for name in found if name.startswith("per_label")] == [
        "per_label_chosen",
        "per_label_chosen, loss.weights=[3.0, 3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]",
    ]


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
    assert found.sd.tolist() == pytest.approx(
        [np.std(IMAGES, ddof=1), np.std(STARTS, ddof=1), 0.001], abs=0.002
    )
    assert found.share.sum() == pytest.approx(1)
    assert set(tables.components(crossed((3, 0))).n) == {9}  # the largest square of first seeds
    assert tables.components(crossed((0, 1))).empty
    assert tables.components(crossed().assign(**{STEPS: False})).empty
    shown = on(crossed(), EPOCHS)
    assert (shown.seed == shown.data_seed).all()  # other images appear in no other table


def test_no_runs_are_empty_tables() -> None:
    none = pd.DataFrame([run("imbalanced", 0, groups(0.5, 0.5))]).iloc[:0]
    assert all(table.empty for table in tables.tabulate(none).values())
