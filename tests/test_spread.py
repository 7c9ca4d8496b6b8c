"""Where the spread of equal runs comes from, on hand-made records with crossed seeds."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
from handmade import write_groups

from mnist_imbalance.plan import PlannedRun
from mnist_imbalance.report import tables
from mnist_imbalance.report.claims import judge_claims
from mnist_imbalance.report.gather import EPOCHS, GROUNDS, STEPS, Gathered, gather
from mnist_imbalance.report.remedies import compared, restored
from mnist_imbalance.report.tables import COMPONENTS, components, crossed

IMAGES = (-0.06, -0.01, 0.02, 0.05)  # what the choice of images adds to the accuracy of 0-4
WEIGHTS = (-0.01, 0.02, -0.02, 0.01)  # the initial weights and the order
REST = numpy.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 2, -2], [0, 0, -2, 2]]) / 1000
SQUARE = 4
KEYS = ["model", "condition"]


def minority(run: PlannedRun) -> float | None:
    """The CNN lacks one run of its square."""
    data_seed, seed = run.config["data.seed"], run.config["seed"]
    if run.choices["model"] == "cnn" and (data_seed, seed) == (1, 2):
        return None
    if data_seed == seed == SQUARE:
        return 0.1  # a seed outside the square
    if run.condition != "imbalanced":
        return 0.9
    return 0.7 + IMAGES[data_seed] + WEIGHTS[seed] + float(REST[data_seed, seed])


@pytest.fixture(scope="module")
def gathered(place: Path) -> Gathered:
    overlays = ("study.experiments=[data_sweep,crossed]", "study.seeds=[0,1,2,3,4]")
    keys, _ = write_groups(place, minority, *overlays)
    return gather(keys)


def test_a_square_is_every_choice_of_images_with_every_start(gathered: Gathered) -> None:
    square = crossed(gathered)
    assert list(square) == ["model", "optimizer", "condition", "data_seed", "seed", "value"]
    assert set(zip(square.data_seed, square.seed, strict=True)) == {
        (data_seed, seed) for data_seed in range(4) for seed in range(4)
    }
    assert len(square) == 16
    for row in square.itertuples():
        planted = 0.7 + IMAGES[row.data_seed] + WEIGHTS[row.seed] + REST[row.data_seed, row.seed]
        assert row.value == pytest.approx(planted)


def without(gathered: Gathered, data_seed: int, seed: int) -> Gathered:
    scores = gathered.scores
    gone = (scores.data_seed == data_seed) & (scores.seed == seed)
    return replace(gathered, scores=scores.assign(accuracy=scores.accuracy.mask(gone)))


@pytest.mark.parametrize(("data_seed", "seed"), [(3, 0), (0, 3), (3, 3), (3, 1)])
def test_of_an_incomplete_square_the_largest_whole_one_of_first_seeds_is_taken(
    gathered: Gathered, data_seed: int, seed: int
) -> None:
    square = crossed(without(gathered, data_seed, seed))
    whole = crossed(gathered)
    inside = whole[(whole.data_seed < 3) & (whole.seed < 3)]
    assert len(inside) == 9
    pandas.testing.assert_frame_equal(square, inside)
    assert set(components(without(gathered, data_seed, seed)).n) == {9}


def test_an_incomplete_square_of_three_is_left_out(gathered: Gathered) -> None:
    assert {*crossed(gathered).model} == {"lstm"}  # the CNN lacks one of the first 3 × 3
    none = without(gathered, 0, 1)
    assert crossed(none).empty
    assert list(crossed(none)) == list(crossed(gathered))
    assert components(none).empty
    assert list(components(none)) == list(components(gathered))


def test_two_seeds_are_no_square(gathered: Gathered) -> None:
    def of_first(count: int) -> pandas.DataFrame:
        scores = gathered.scores
        inside = (scores.data_seed < count) & (scores.seed < count)
        return crossed(replace(gathered, scores=scores[inside & (scores.model == "lstm")]))

    assert of_first(2).empty
    assert len(of_first(3)) == 9


def test_crossed_runs_are_of_as_many_steps(gathered: Gathered) -> None:
    longer = gathered.scores.assign(**{STEPS: False})
    assert crossed(replace(gathered, scores=longer)).empty


def test_components_are_the_planted_ones(gathered: Gathered) -> None:
    found = components(gathered)
    assert list(found) == ["model", "optimizer", "condition", "n", "component", "sd", "share"]
    assert tuple(found.component) == COMPONENTS
    assert set(found.n) == {16}
    # in a whole square REML's estimates are those of the analysis of variance
    rest = (REST**2).sum() / 9
    images = numpy.var(IMAGES, ddof=1) - rest / 4
    weights = numpy.var(WEIGHTS, ddof=1) - rest / 4
    sd, share = (found.set_index("component")[column] for column in ("sd", "share"))
    total = images + weights + rest
    for name, variance in zip(COMPONENTS, (images, weights, rest), strict=True):
        assert sd[name] == pytest.approx(math.sqrt(variance), rel=0.01)
        assert share[name] == pytest.approx(variance / total, rel=0.02)
    assert share.sum() == pytest.approx(1)


def test_images_and_weights_are_not_confused(gathered: Gathered) -> None:
    turned = gathered.scores.rename(columns={"seed": "data_seed", "data_seed": "seed"})
    sd = components(replace(gathered, scores=turned)).set_index("component").sd
    straight = components(gathered).set_index("component").sd
    assert sd["choice of images"] == pytest.approx(straight["initial weights and order"], rel=0.01)
    assert sd["initial weights and order"] == pytest.approx(straight["choice of images"], rel=0.01)


def test_only_runs_with_their_own_images_stand_on_a_ground(gathered: Gathered) -> None:
    planned = gathered.scores
    apart = planned[planned.seed != planned.data_seed]
    assert apart.accuracy.notna().sum() == (12 + 11) * 2 * 13  # val and test, labels and groups
    for ground in GROUNDS:
        assert apart[ground].any()
        shown = gathered.on(ground)
        assert (shown.seed == shown.data_seed).all()
        by = ["model", "optimizer", "condition", "seed", "scored", "label"]
        assert not shown.duplicated(by).any()
    imbalanced = gathered.on(EPOCHS)[gathered.on(EPOCHS).condition == "imbalanced"]
    assert set(imbalanced.seed) == set(range(5))


@pytest.mark.parametrize(
    "table",
    [
        *(tables.table_1, tables.all_conditions, tables.at_equal_steps, tables.differences),
        *(tables.learning_curves, tables.weight_sweep, tables.selection, restored, judge_claims),
        lambda gathered: compared(gathered, numpy.repeat(numpy.arange(10), 1000)),
        lambda gathered: pandas.DataFrame(tables.confusion(gathered, "lstm", "sgd", "imbalanced")),
    ],
)
def test_runs_with_other_images_appear_in_no_other_table(
    gathered: Gathered, table: Callable[[Gathered], pandas.DataFrame]
) -> None:
    runs, planned = gathered.runs, gathered.scores
    without = replace(
        gathered,
        runs=runs[runs.seed == runs.data_seed],
        scores=planned[planned.seed == planned.data_seed],
    )
    pandas.testing.assert_frame_equal(table(gathered), table(without))


def test_the_tables_are_not_empty(gathered: Gathered) -> None:
    rows = tables.all_conditions(gathered).set_index(["model", "condition", "label"])
    assert rows.loc["lstm", "imbalanced", "0-4"].n == 5
    assert tables.confusion(gathered, "lstm", "sgd", "imbalanced").sum() == 5 * 10 * 1000
    curves = tables.learning_curves(gathered)
    assert set(curves.n) == {5}
