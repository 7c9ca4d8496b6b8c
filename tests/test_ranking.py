"""The ranking of methods, of hand-made runs."""

import math
from itertools import product
from typing import Any

import pandas as pd
import pytest
from made_runs import groups, run

from mnist_imbalance.report import figures, methods, tables, words

pytest_plugins = ["made_runs"]
SCHEDULE = {"scheduler._target_": "cosine", "optimizer.lr": 0.03}
LEVELS = {"original": 0.99, "weighted": 0.9, "vs": 0.702, "mix=mixup": 0.701, "imbalanced": 0.7}


def of_method(name: str, keep: float, seed: int, test: float, **others: Any) -> dict[str, Any]:
    keep = 1.0 if name == "original" else keep
    config = SCHEDULE | {"data.keep": keep}
    changed = [f"data.keep={keep}"] * (keep < 0.1) + ["optimizer.lr=0.03", "scheduler=cosine"]
    base = name if name in ("original", "weighted", "vs") else f"imbalanced, {name}"
    condition = ", ".join([base.replace("imbalanced, imbalanced", "imbalanced"), *changed])
    return run(condition, seed, groups(test, test), config=config, **others)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Weighted is far better than the others, of which two are alike; its setting is tuned."""
    rows = []
    for keep in (0.1, 0.01):
        for seed in range(3):
            noise = {"weighted": seed, "vs": -seed, "mix=mixup": seed * (seed - 1)}
            for name, level in LEVELS.items():
                reached = level - (0.1 if keep < 0.1 else 0) + 0.002 * noise.get(name, 0)
                rows.append(of_method(name, keep, seed, reached, test_metrics={"nll": seed}))
    rows += [of_method("weighted, loss.minority_weight=3", 0.1, 0, 0.95, val=groups(0.8, 0.8))]
    rows += [of_method("vs", 0.1, 0, 0.1, optimizer="adam")]  # trained otherwise
    rows += [of_method("vs", 0.1, 9, 0.1, data_seed=0)]  # with other images
    another = {"config": SCHEDULE | {"data.keep": 0.1, "data.order_seed": 1000}}
    rows += [of_method("imbalanced", 0.1, 0, 0.1) | another]  # plain in another order
    rows += [of_method("mix=remix", 0.1, 0, 0.99)]  # one seed of three
    return methods.tabulate(pd.DataFrame(rows))


def test_a_condition_is_a_method_and_its_setting() -> None:
    assert methods.method_of("imbalanced, optimizer.lr=0.03, scheduler=cosine") == ("plain", "")
    assert methods.method_of("imbalanced, mix=mixup, mix.alpha=0.5") == (
        "mix=mixup",
        "mix.alpha=0.5",
    )
    named = methods.method_of("vs, data.keep=0.01, loss.gamma=0.1, loss.tau=0.5")
    assert named == ("vs", "loss.gamma=0.1, loss.tau=0.5")


def test_methods_are_ranked_beside_plain(table: pd.DataFrame) -> None:
    ranked = methods.ranked(table)
    assert [*ranked.groupby("keep", sort=False).size()] == [5, 5]
    own = ranked[ranked.keep == 0.1].set_index("method")
    assert own["rank"].to_dict() == pytest.approx(
        {"original": math.nan, "weighted": 1, "mix=mixup": 2, "vs": 3, "plain": 4}, nan_ok=True
    )
    assert own.tried.to_dict() == dict.fromkeys(own.index, 1) | {"weighted": 2}
    weighted = own.loc["weighted"]  # by validation, not by the test set
    assert (weighted.setting, weighted.seeds, weighted.corrected) == ("", 3, "holds")
    assert (weighted["mean"], weighted.effect) == pytest.approx((0.902, 0.202))
    assert own.loc["vs"].corrected != "holds"
    assert (own.loc["plain"].n, own.loc["original"].n) == (0, 0)
    assert methods.metrics(table).nll.unique().tolist() == [1]


def test_methods_that_are_not_told_apart_are_joined(table: pd.DataFrame) -> None:
    pairs = methods.pairs(table)
    own = pairs[pairs.keep == 0.1]
    assert (len(pairs), len(own)) == (2 * 6, 6)
    assert (own[own["first"] == "weighted"].p_corrected < 0.05).all()
    assert methods.cliques(own) == [("mix=mixup", "plain")]
    assert methods.cliques(own.assign(p_corrected=1.0)) == [("weighted", "plain")]
    assert methods.cliques(own.assign(p_corrected=0.0)) == []


def test_rules_of_selection_stand_beside_each_other(table: pd.DataFrame) -> None:
    [row] = methods.rules(table).to_dict("records")
    assert (row["method"], row["tried"]) == ("weighted", 2)
    assert (row["balanced validation"], row["test"]) == ("", "loss.minority_weight=3")
    assert row["test scores"] - row["balanced validation scores"] == pytest.approx(0.05)
    no_run_by_steps = pd.DataFrame({"config": [{}]})
    assert methods.trainings(table, no_run_by_steps).chosen.tolist() == [True]


@pytest.mark.usefixtures("kept_in_memory")
@pytest.mark.parametrize("with_equal", [True, False])
def test_an_imbalance_with_a_fraction_for_each_label_is_ranked(with_equal: bool) -> None:
    own, changed = [0.1 + label / 10 for label in range(10)], "optimizer.lr=0.03, scheduler=cosine"
    rows = []
    for name, seed in product(("imbalanced", "vs", "weighted"), range(2)):
        condition, values = f"{name}, data.keep={own}, {changed}", SCHEDULE | {"data.keep": own}
        rows.append(run(condition, seed, groups(0.5 + seed / 10, 0.9), config=values))
        rows += [of_method(name, 0.1, seed, 0.7)] * with_equal
    raw = pd.DataFrame(rows)
    tabulated = tables.tabulate(raw)
    assert {str(own)} <= {*tabulated["ranked"].keep} <= {str(own), 0.1}
    drawn = figures.svg(figures.draw_ranked(tabulated["ranked"], tabulated["pairs"]))
    assert f"LSTM, {own} kept" in drawn
    known = {"tables": tabulated, "runs": tables.on_grounds(raw), "damaged": []}
    text = words.render("report.md.j2", **known, figures={}, no_images="")
    assert f"LSTM, {own} kept" in text


def test_no_methods_are_empty_tables(table: pd.DataFrame) -> None:
    for make in (methods.ranked, methods.pairs, methods.metrics, methods.rules):
        assert make(table.iloc[:0]).empty
    assert methods.trainings(table.iloc[:0], pd.DataFrame({"config": []})).empty
