import math

import pandas
import pytest

from mnist_imbalance.report.estimates import estimate, estimate_groups


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
