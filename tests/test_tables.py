"""The report's tables and rankings, of hand-made runs."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, groups, predictions, run
from scipy.stats import binom

from mnist_imbalance.records import table as records
from mnist_imbalance.report import figures, ranking, tables
from mnist_imbalance.report.stats import estimate, fieller
from mnist_imbalance.report.tables import EPOCHS, STEPS, assign_budgets

pytest_plugins = ["made_runs"]
LAST = {"trainer.max_steps": 11650}
NO_LABELS: dict[str, Any] = {}
AT_STEPS = {  # of labels 0-4, by seed
    "original": (0.92, 0.93, 0.91),
    "augmented_100": (0.901, 0.918, 0.94),
    "duplicated_100": (0.85, 0.85, 0.88),
    "rotation_100": (0.91, 0.88),
    "noise_100": (0.88,),
}
AT_BOTH = {"imbalanced": (0.62, 0.62, 0.62), "weighted": (0.75, 0.76, 0.77)}
CNN = {"original": (0.9, 0.7, 0.82), "imbalanced": (0.8, 0.8, 0.8)}


def by_seed(reached: Mapping[str, Sequence[float]], **others: Any) -> list[dict[str, Any]]:
    return [
        run(name, seed, groups(rare, 0.9), **others)
        for name, accuracies in reached.items()
        for seed, rare in enumerate(accuracies)
    ]


def made() -> pd.DataFrame:
    """Runs at both budgets, and the original set at equal epochs."""
    rows = by_seed(AT_STEPS, epochs=28, per_epoch=430, config=LAST) + by_seed(AT_BOTH)
    rows += by_seed({"original": (0.95, 0.96, 0.97)}, per_epoch=430) + by_seed(CNN, model="cnn")
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return assign_budgets(made())


def test_a_fraction_is_paired_by_seed(runs: pd.DataFrame) -> None:
    restored = tables.restored(runs).set_index(["ground", "model", "condition"])
    row = restored.loc[STEPS, "lstm", "duplicated_100"]
    lost = pd.Series(AT_STEPS["original"]) - 0.62
    expected = fieller(pd.Series(AT_STEPS["duplicated_100"]) - 0.62, lost)
    assert (row.n, row.fraction, row.low, row.high) == pytest.approx(expected)
    uncertain = restored.loc[EPOCHS, "cnn", "original"]  # whether anything was lost
    assert (uncertain.low, uncertain.high) == (-math.inf, math.inf)


def compared_row(runs: pd.DataFrame, labels: Any) -> Any:
    pair = "model == 'lstm' and first == 'augmented_100' and second == 'duplicated_100'"
    return tables.compared(runs, labels).query(pair).iloc[0]


@pytest.mark.usefixtures("kept_in_memory")
def test_a_comparison_is_over_seeds_and_over_images(runs: pd.DataFrame) -> None:
    effects = np.array([0.051, 0.068, 0.06])
    row = compared_row(runs, {"mnist": LABELS})
    assert (row.n, row.effect, row.low, row.high) == pytest.approx(estimate(effects))
    assert (row.verdict, row.margin, row.n_images) == ("holds", 0.01, 3)
    assert row.low_images < row.low < row.high < row.high_images
    for labels in (NO_LABELS, {"mnist": LABELS[::-1]}):  # unknown, or others than the record's
        row = compared_row(runs, labels)
        assert (row.n, row.n_images) == (3, 0)
    wrong = {row.config_hash: predictions(row) for row in runs.itertuples() if row.seed}
    wrong |= {row.config_hash: LABELS for row in runs.itertuples() if not row.seed}
    one = {key: wrong[key] for key in runs[runs.seed == 1].config_hash}
    for predicted, n_images in ((wrong, 2), (one, 1)):
        with patch.object(records, "predictions", return_value=predicted):
            row = compared_row(runs, {"mnist": LABELS})
        assert row.n_images == n_images
    assert math.isnan(row.low_images)


def test_runs_that_are_in_no_comparison_say_why() -> None:
    rows = made()
    other = [run("imbalanced", s, groups(0.1, 0.1), epochs=e) for s, e in ((0, 1), (1, 200))]
    other += [run("original", 0, groups(0, 0), config={"trainer.limit_train_batches": 0.1})]
    other += [run("weighted", 0, groups(0, 0), config={"data.note": 1})]
    other += [run("imbalanced", 0, groups(0, 0), data_seed=9)]  # with other images
    other += [run("imbalanced", 0, groups(0, 0), config={"scheduler._target_": "cosine"})]
    found = assign_budgets(pd.concat([rows, pd.DataFrame(other)], ignore_index=True))
    assert len(found) == len(rows) + 5  # one is of the methods
    pd.testing.assert_frame_equal(*map(tables.table_1, (found, assign_budgets(rows))))
    left_out = found[found.left_out != ""].set_index(["condition", "seed"]).left_out
    assert left_out.drop(("weighted", 0)).to_dict() == {
        ("original", 0): "trained on a part of the images",
        ("imbalanced", 0): "of another length",
        ("imbalanced", 1): "of another length",
    }
    assert left_out["weighted", 0] == "another run has the same name"
    two = [run("imbalanced", 0, groups(0.5, 0.9), epochs=epochs) for epochs in (1, 50)]
    found = assign_budgets(pd.DataFrame(two))  # the longest of equally many lengths
    assert found[found[EPOCHS]].epochs.tolist() == found[found[STEPS]].epochs.tolist() == [50]
    without = assign_budgets(pd.DataFrame([run("original", s, groups(0.5, 0.9)) for s in range(2)]))
    assert without[EPOCHS].all()


@pytest.mark.usefixtures("kept_in_memory")
def test_groups_and_labels_are_those_of_the_records() -> None:
    three = {"many": [0, 1], "medium": [2], "few": [3, 4], "all": [*range(5)]}
    rows = [
        run(name, seed, [0.9, 0.8, 0.7, 0.6, 0.5], groups=three)
        for name, seed in product(("original", "imbalanced", "weighted"), range(2))
    ]
    found = tables.by_training(pd.DataFrame(rows))
    means = tables.all_conditions(found).set_index(["condition", "label"])["mean"]["original"]
    groups = {"many": 0.85, "medium": 0.7, "few": 0.55, "all": 0.7, "balanced": 0.7}
    assert means.drop([*"01234"]).to_dict() == pytest.approx(groups)
    mixed = pd.concat([pd.DataFrame(rows), made()], ignore_index=True)
    assert len(assign_budgets(mixed)) == len(made())  # AI3607's alone
    none = pd.DataFrame(rows[:1]).iloc[:0]
    everything = tables.all_tables(none, assign_budgets(none), NO_LABELS)
    assert all(table.empty for table in everything.values())


def test_any_condition_is_compared_with_plain_training_or_another() -> None:
    shared = "data/source=folder, optimizer.lr=0.01"
    levels = {"shapes": 0.5, "shapes, focal": 0.6, "shapes, focal, loss.gamma=5": 0.4}
    rows = [
        run(f"{name}, {shared}", s, groups(level + s / 100, 0.9), data_seed=0, loss=loss)
        for (name, level), loss in zip(levels.items(), ("plain", "focal", "focal"), strict=True)
        for s in range(3)
    ]
    last = {"trainer.max_steps": 11650}  # as many as those of 50 epochs have
    mine = f"shapes, data/copies=mine, {shared}"
    rows += [run(mine, s, groups(0.7, 0.9), config=last) for s in range(3)]
    runs = tables.by_training(pd.DataFrame(rows))
    assert {*runs[runs.training == "50 epochs"].condition} == {*levels}
    found = (
        tables.differences(runs).query("label == 'balanced'").set_index(["training", "condition"])
    )
    own = found.loc["50 epochs"]
    assert own.baseline.tolist() == ["shapes"] * 2
    assert own.effect.to_dict() == pytest.approx(
        {"shapes, focal": 0.05, "shapes, focal, loss.gamma=5": -0.05}
    )
    assert own.corrected.tolist() == ["holds", "contradicted"]
    assert "shapes, data/copies=mine" in found.loc["11,650 steps"].index
    other = tables.differences(runs, "shapes, focal").query("label == 'balanced'")
    assert other.set_index("condition").effect["shapes"].tolist() == pytest.approx([-0.05] * 2)


SCHEDULE = {"scheduler._target_": "cosine", "optimizer.lr": 0.03}
CHANGED = "optimizer.lr=0.03, scheduler=cosine"
LEVELS = {"original": 0.99, "weighted": 0.9, "vs": 0.702, "mix=mixup": 0.701, "imbalanced": 0.7}
Tables = dict[str, pd.DataFrame]


def method_run(name: str, keep: float, seed: int, test: float, **others: Any) -> dict[str, Any]:
    keep = 1.0 if name == "original" else keep
    base = f"imbalanced, {name}" if "mix=" in name else name
    condition = f"{base}, {f'data.keep={keep}, ' if keep < 0.1 else ''}{CHANGED}"
    own = {"config": SCHEDULE | {"data.keep": keep}} | others
    return run(condition, seed, groups(test, test), **own)


@pytest.fixture(scope="module")
def found() -> Tables:
    """Weighted is far better than the others, of which two are alike; its setting is tuned."""
    rows = []
    for keep, seed in product((0.1, 0.01), range(3)):
        noise = {"weighted": seed, "vs": -seed, "mix=mixup": seed * (seed - 1)}
        for name, level in LEVELS.items():
            reached = level - (0.1 if keep < 0.1 else 0) + 0.002 * noise.get(name, 0)
            rows.append(method_run(name, keep, seed, reached, test_metrics={"nll": seed}))
    rows += [method_run("weighted, loss.minority_weight=3", 0.1, 0, 0.95, val=groups(0.8, 0.8))]
    rows += [method_run("vs", 0.1, 0, 0.1, optimizer="adam")]  # trained otherwise
    rows += [method_run("vs", 0.1, 9, 0.1, data_seed=0)]  # with other images
    another = {"config": SCHEDULE | {"data.keep": 0.1, "data.order_seed": 1000}}
    rows += [method_run(name, 0.1, 0, 0.1, **another) for name in ("imbalanced", "vs")]
    rows += [method_run("mix=remix", 0.1, 0, 0.99)]  # one seed of three
    more = {"config": SCHEDULE | {"data.keep": [0.3, 1.0]}}  # more images, of no other method
    rows += [method_run("imbalanced", 0.1, seed, 0.8, **more) for seed in range(3)]
    return ranking.ranking_tables(pd.DataFrame(rows), {}, NO_LABELS)


def test_methods_are_ranked_beside_plain(found: Tables) -> None:
    ranked, beside = found["ranked"], dict.fromkeys(["original", "plain, data.keep=[0.3, 1.0]"], 0)
    assert [*ranked.groupby("keep", sort=False).size()] == [6, 6]
    own = ranked[ranked.keep == 0.1].set_index("method")
    ranks = beside | {"weighted": 1, "mix=mixup": 2, "vs": 3, "plain": 4}
    assert own["rank"].fillna(0).to_dict() == ranks
    assert own.tried.to_dict() == dict.fromkeys(own.index, 1) | {"weighted": 2}
    weighted = own.loc["weighted"]  # by validation, not by the test set
    assert (weighted.setting, weighted.seeds, weighted.verdict) == ("", 3, "better")
    assert (weighted["mean"], weighted.effect) == pytest.approx((0.902, 0.202), abs=1e-4)
    assert (weighted.nll, own.verdict["vs"]) == (1, "small")
    assert own.index[own.best].tolist() == ["weighted"]
    unranked = {*found["unranked"].itertuples(index=False, name=None)}
    known = {("mnist", "lstm", name, 1) for name in ("plain_again", "vs_again", "mix=remix")}
    assert unranked == known
    [row] = found["rules"].to_dict("records")
    assert (row["method"], row["tried"], row["balanced validation"]) == ("weighted", 2, "")
    assert row["test scores"] - row["balanced validation scores"] == pytest.approx(0.05)
    assert found["trainings"][["optimizer", "chosen"]].to_numpy().tolist() == [["sgd", True]]


@pytest.mark.usefixtures("kept_in_memory")
def test_settings_tell_copies_from_their_changes() -> None:
    levels = {"original": 0.9, "imbalanced": 0.8, "duplicated_100": 0.82, "augmented_100": 0.83}
    rows = []
    for (name, level), seed in product(levels.items(), range(3)):
        reached = level + (0.001 * seed if name == "augmented_100" else 0)
        config = {"optimizer.lr": 0.001, "data.keep": 1.0 if name == "original" else 0.1}
        rows.append(run(name, seed, groups(reached - 0.1, 0.9), config=LAST | config))
        method = f"data/copies={name}" if name.endswith("100") else name
        rows += [method_run(method, k, seed, reached - d) for k, d in ((0.1, 0), (0.01, 0.1))]
    raw = pd.DataFrame(rows)
    tabulated = tables.all_tables(raw, assign_budgets(raw), NO_LABELS)
    found = tabulated["settings"]
    ways = ["SGD at 0.001, 11,650 steps", *["SGD falling from 0.03, 11,650 steps"] * 2]
    assert found.training.tolist() == ways
    assert found[["keep", "trained_out"]].to_numpy().tolist() == [[0.1, 0], [0.1, 1], [0.01, 1]]
    fractions = found[["lost", "copies", "augmented"]].to_numpy()
    assert fractions == pytest.approx(np.array([[0.1, 0.2, 0.31]] * 2 + [[0.2, 0.1, 0.155]]))
    effect = found[["n", "effect", "low", "high"]].to_numpy()
    assert effect == pytest.approx(np.array([estimate([0.01, 0.011, 0.012])] * 3))
    summary = tabulated["summary"].set_index("settings")
    assert summary.positive.to_dict() == {"all": 3, tables.TRAINED_OUT: 2}
    curves = tabulated["restored_curves"][["step", "n", "mean"]].to_numpy()
    assert curves == pytest.approx(np.array([[11650, 3, f] for f in (0.31, 0.2) * 2]))


def test_a_weight_is_told_from_a_larger_step() -> None:
    levels = {"original": 0.9, "imbalanced": 0.5, "weighted": 0.8}
    rows = [
        run(f"{name}{changed}", seed, groups(level + rate, 0.9), config={"optimizer.lr": rate})
        for rate, changed in ((0.001, ""), (0.002, ", optimizer.lr=0.002"))
        for (name, level), seed in product(levels.items(), range(2))
    ]
    found = tables.step_size(assign_budgets(pd.DataFrame(rows))).set_index(["condition", "rate"])
    assert found.fraction["weighted"].to_dict() == pytest.approx({0.001: 0.75, 0.002: 0.75})
    assert found.rare["weighted"].to_dict() == pytest.approx({0.001: 0.801, 0.002: 0.802})
    assert set(found.n) == {2}


def test_methods_are_compared_with_the_best_and_with_plain() -> None:
    rest = np.array([[-1, 0, 1], [0, 1, -1], [1, -1, 0], [0, 0, 0]]) / 20  # equal variances
    logs = rest + np.arange(4)[:, None] + np.array([0, 0.5, 0.55])  # seeds differ by far more
    own = ranking.compare(pd.DataFrame(1 - np.exp(-logs), columns=["plain", "vs", "ldam"]))
    known = [ranking.limit(3, 4, sides) for sides in (1, 2)]
    assert known == pytest.approx([2.34, 2.86], abs=0.01)  # his tables, of df = 6
    two = 2.86 * 0.05 / math.sqrt(2)
    ends = np.array([0.5 - two, 0.5, 0.5 + two])
    found = own.loc["vs", ["low", "effect", "high"]].to_numpy(float)
    assert found == pytest.approx(math.exp(-1.5) * (1 - np.exp(-ends)), abs=1e-4)
    assert own.best.tolist() == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("spread", [np.ones(22), np.linspace(1, 3, 22), np.linspace(3, 1, 22)])
def test_equal_methods_are_rarely_told_apart(n: int, spread: np.ndarray) -> None:
    random, wrong = np.random.default_rng(n), []
    for _ in range(400):
        logs = 3 + random.normal(size=(n, 1)) / 5 + spread * random.normal(size=(n, 22)) / 20
        own = ranking.compare(pd.DataFrame(1 - np.exp(-logs)).rename(columns={0: "plain"}))
        wrong.append([~own.best.iloc[0], ~own.best.iloc[-1], (own.low > 0).any()])
    assert (np.sum(wrong, axis=0) <= binom.ppf(0.999, 400, [0.06, 0.06, 0.05])).all()


def test_ranks_are_resampled_over_seeds_and_images() -> None:
    right = np.repeat([[[1, 1, 0, 0] * 500], [[0, 0, 1, 1] * 500], [[0] * 2000]], 5, axis=1) > 0
    found = ranking.bootstrap(right, np.arange(2000) // 4 % 2)
    assert found["p_best"] == pytest.approx([0.5, 0.5, 0], abs=0.06)
    assert found["p_best"][:2].sum() >= 1
    assert (found["rank_low"].tolist(), found["rank_high"].tolist()) == ([1, 1, 3], [2, 2, 3])


def test_plain_in_another_order_is_told_apart_by_sets_of_five() -> None:
    other = SCHEDULE | {"data.keep": 0.1, "data.order_seed": 1000}
    rows = []
    for seed, more in enumerate((0.01, 0.01, 0.01, 0.01, 0.02, -0.2)):  # one set is without it
        rows.append(method_run("imbalanced", 0.1, seed, 0.7 + seed / 100))
        rows.append(method_run("imbalanced", 0.1, seed, 0.7 + seed / 100 + more, config=other))
    [row] = ranking.ranking_tables(pd.DataFrame(rows), {}, NO_LABELS)["a_a"].to_dict("records")
    assert (row["sets"], row["told_apart"]) == (6, pytest.approx(1 / 6))
    assert row["effect"] == pytest.approx(-0.14 / 6)


def test_costs_count_the_training_that_was_taken_over() -> None:
    own, second = SCHEDULE | {"data.keep": 0.1}, {"posthoc.steps": 1000}
    took = {"imbalanced": (30, 20, 90), "posthoc=crt": (50, 2, 3)}
    configs = {"imbalanced": own, "posthoc=crt": own | second}
    rows = [
        method_run(name, 0.1, seed, 0.7, seconds=took[name][seed], config=configs[name])
        for name, seed in product(took, range(3))
    ]
    found = ranking.ranking_tables(pd.DataFrame(rows), {}, NO_LABELS)["ranked"].set_index("method")
    assert found.cost_seconds.to_dict() == {"plain": 20, "posthoc=crt": 22}
    assert found.cost_steps.to_dict() == {"plain": 11650, "posthoc=crt": 12650}


@pytest.mark.usefixtures("kept_in_memory")
def test_an_imbalance_with_a_fraction_for_each_label_is_ranked() -> None:
    own = [0.1 + label / 10 for label in range(10)]
    rows = []
    for name, seed in product(("imbalanced", "vs", "weighted"), range(2)):
        condition, config = f"{name}, data.keep={own}, {CHANGED}", SCHEDULE | {"data.keep": own}
        rows.append(run(condition, seed, groups(0.5 + seed / 10, 0.9), config=config))
        rows.append(method_run(name, 0.1, seed, 0.7))
    raw = pd.DataFrame(rows)
    ranked = tables.all_tables(raw, assign_budgets(raw), NO_LABELS)["ranked"]
    assert {*ranked.keep} == {str(own), 0.1}
    assert "LSTM, 10 to 90 % kept" in figures.svg(figures.draw_ranked(ranked))


def other_set(method: str, seed: int, test: float, **changed: Any) -> dict[str, Any]:
    """A run on signs; keys of its data are no setting."""
    choices = ["data/profile=natural", "scheduler=cosine", "data.batch_size=64"]
    condition = ", ".join([method, *choices, *(f"{key}={value}" for key, value in changed.items())])
    source = {"data.source._target_": "mnist_imbalance.data.sources.read_gtsrb", "data.keep": 1.0}
    groups = {"few": [0], "medium": [1], "many": [2], "all": [0, 1, 2]}
    own: dict[str, Any] = {"config": SCHEDULE | source | changed, "groups": groups}
    return run(condition, seed, [test - 0.1, test, 0.9], model="resnet", **own)


@pytest.mark.usefixtures("kept_in_memory")
def test_another_data_set_stands_beside_mnist_and_changes_nothing_there() -> None:
    mnist = [method_run(n, 0.1, s, LEVELS[n] + s / 999) for n in LEVELS for s in range(3)]
    rows = [other_set("vs", 10, 0.8 + gamma, **{"loss.gamma": gamma}) for gamma in (0.1, 0.05)]
    rows += [other_set("imbalanced", 10, 0.7)]
    for seed in range(3):
        rows += [other_set("imbalanced", seed, 0.7 + seed / 99)]
        rows += [other_set("imbalanced", seed, 0.6, **{"data.source.by_track": False})]
        rows += [other_set("vs", seed, 0.8 + seed / 90, **{"loss.gamma": 0.1})]
        for name in ("augmented_100", "duplicated_40"):
            copies = f"imbalanced, data/copies={name}"
            rows += [other_set(copies, seed, 0.6, **{"data.fill": True})]
    both, alone = pd.DataFrame(mnist + rows), pd.DataFrame(mnist)
    found, known = (tables.all_tables(t, assign_budgets(t), NO_LABELS) for t in (both, alone))
    own = found["ranked"].query("dataset == 'gtsrb'").set_index("method")
    assert own.index.tolist() == ["vs", "plain", "data/copies=augmented", "data/copies=duplicated"]
    vs = own.loc["vs", ["setting", "tried", "seeds", "keep", "frequent"]].tolist()
    assert vs == ["loss.gamma=0.1", 2, 3, "as it is", 0.9]
    assert found["hold_outs"][["val_y", "test_y"]].to_numpy() == pytest.approx(2 / 3)
    for name, table in known.items():
        rest = found[name][found[name].dataset == "mnist"] if "dataset" in table else found[name]
        one, other = (each.dropna(axis=1, how="all").to_csv(index=False) for each in (rest, table))
        assert one == other, name
