"""``study=methods``: its plan, its tuning, and the ranking in the report."""

from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from handmade import groups, scores, study_of, write_record

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import PlannedRun, plan, read_study, with_choice, with_choices
from mnist_imbalance.report import methods
from mnist_imbalance.report.method_runs import row_of_method, tabulate_methods
from mnist_imbalance.report.write import write_report
from mnist_imbalance.runs import determining, find_records, hash_config
from mnist_imbalance.selection import sweeps_of

SMALL = (
    "study=methods",
    "study.experiments=[methods_lstm]",
    "study.extensions=[]",
    "study.seeds=[0,1,2]",
    *(
        f"~study.methods.{name}"
        for name in read_study(["study=methods"]).study.methods
        if name not in ("plain", "original", "weighted", "vs", "mixup")
    ),
)


def method_of(run: PlannedRun) -> str:
    known = {"weighted": "weighted", "vs": "vs"}
    return known.get(run.choices["loss"]) or run.choices.get("mix") or run.choices["data"]


def test_every_method_is_planned_for_both_models_and_imbalances() -> None:
    keys, runs = study_of("study=methods")
    assert len(keys.study.methods) == 40
    assert len(runs) == 930
    for experiment, steps in (("methods_cnn", 5825), ("methods_lstm", 2330)):
        of_model = [run for run in runs if run.experiment == experiment]
        at = [(run.config["data.keep"], run.config["seed"]) for run in of_model]
        assert {seed for _, seed in at} == {0, 1, 2, 3, 4}
        places = [(keep, seed) for keep in (0.1, 0.01) for seed in range(5)]
        of_places = {place: at.count(place) for place in places}
        assert of_places.pop((0.1, 0)) > 60  # every setting
        assert set(of_places.values()) == {37}  # one run a method
        assert {run.config["trainer.max_steps"] for run in of_model} == {steps}


def test_a_methods_setting_is_the_best_on_validation_images(tmp_path: Path) -> None:
    _, runs = study_of(*SMALL)
    tried = [run for run in runs if method_of(run) == "weighted" and not run.waits]
    assert [run.config["loss.minority_weight"] for run in tried] == [3, 5, 7, 10]
    assert {(run.config["data.keep"], run.config["seed"]) for run in tried} == {(0.1, 0)}
    waiting = [run for run in runs if method_of(run) == "weighted" and run.waits]
    assert len(waiting) == 2 * 3 - 1
    reached = {3: 0.7, 5: 0.9, 7: 0.8, 10: 0.9}  # of equals the first
    for run in tried[:3]:
        accuracy = reached[run.config["loss.minority_weight"]]
        write_record(tmp_path, run, scores(groups(0.1, 0.9)), val=scores(groups(accuracy, 0.9)))
    records = find_records([tmp_path]).results
    sweeps = sweeps_of(runs)
    assert all(with_choice(run, sweeps, records).waits for run in waiting)  # one is missing
    write_record(tmp_path, tried[3], scores(groups(1, 1)), val=scores(groups(0.9, 0.9)))
    records = find_records([tmp_path]).results
    for run in waiting:
        ready = with_choice(run, sweeps, records)
        assert not ready.waits
        assert ready.config["loss.minority_weight"] == 5
        place = (run.config["data.keep"], run.config["seed"])
        assert (ready.config["data.keep"], ready.config["seed"]) == place
        composed = compose_with([*ready.overrides, "runs_dir=elsewhere"])
        assert hash_config(determining(composed)) == ready.config_hash


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+study.methods.mine=['loss=[']", r"study\.methods\.mine: .* cannot be read"),
        ("study.tuned_at=['data.keep=0.5']", r"study\.tuned_at: .*methods_lstm"),
        ("study.tuned_at=['seed=1']", r"study\.tuned_at: .*methods_lstm"),
    ],
)
def test_a_method_that_cannot_be_tuned_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(read_study([*SMALL, override]).study)


Reached = Callable[[str, float, int], float]


def records_of(root: Path, reached: Reached) -> pandas.DataFrame:
    """Keep the small study; a method reaches what is said at an imbalance with a seed."""
    _, runs = study_of(*SMALL)
    for _ in range(2):  # what was tuned, and then what had to wait for it
        done = find_records([root]).results
        for run in with_choices(runs, done):
            if not run.waits and run.config_hash not in done:
                keep, seed = run.config["data.keep"], run.config["seed"]
                accuracy = reached(method_of(run), keep, seed)
                if run.config.get("loss.minority_weight", 7) != 7:
                    accuracy -= 0.05
                write_record(root, run, scores(groups(accuracy, accuracy)))
    return tabulate_methods(map(row_of_method, find_records([root]).results.values()))


def clear(method: str, keep: float, seed: int) -> float:
    """Weighted is far better than the others, of which two are alike."""
    level = {"original": 0.99, "weighted": 0.9, "vs": 0.702, "mixup": 0.701, "imbalanced": 0.7}
    noise = {"weighted": seed, "vs": -seed, "mixup": seed * (seed - 1)}
    return level[method] - (0.1 if keep == 0.01 else 0) + 0.002 * noise.get(method, 0)


def test_methods_are_ranked_beside_plain(tmp_path: Path) -> None:
    ranked = methods.ranked(records_of(tmp_path, clear))
    assert [*ranked.groupby("keep", sort=False).size()] == [5, 5]
    of_keep = ranked[ranked.keep == 0.1].set_index("method")
    assert of_keep["rank"].to_dict() == pytest.approx(
        {"original": float("nan"), "weighted": 1, "mix=mixup": 2, "vs": 3, "plain": 4}, nan_ok=True
    )
    assert of_keep.tried.to_dict() == {
        "original": 1,
        "weighted": 4,
        "vs": 4,
        "mix=mixup": 4,
        "plain": 1,
    }
    weighted = of_keep.loc["weighted"]
    assert (weighted.seeds, weighted.n) == (3, 3)
    assert weighted["mean"] == pytest.approx(0.902)
    assert weighted.effect == pytest.approx(0.202)
    assert weighted.corrected == "holds"
    assert of_keep.loc["vs"].corrected != "holds"
    assert (of_keep.loc["plain"].n, of_keep.loc["original"].n) == (0, 0)


def test_methods_that_are_not_told_apart_are_joined(tmp_path: Path) -> None:
    pairs = methods.pairs(records_of(tmp_path, clear))
    assert len(pairs) == 2 * 6
    of_keep = pairs[pairs.keep == 0.1]
    told = of_keep[of_keep["first"] == "weighted"]
    assert (told.p_corrected < 0.05).all()
    assert methods.cliques(of_keep) == [("mix=mixup", "plain")]
    alike = of_keep.assign(p_corrected=1.0)
    assert methods.cliques(alike) == [("weighted", "plain")]
    apart = of_keep.assign(p_corrected=0.0)
    assert methods.cliques(apart) == []


def test_rules_of_selection_stand_beside_each_other(tmp_path: Path) -> None:
    _, runs = study_of(*SMALL)
    tried = [run for run in runs if method_of(run) == "weighted" and not run.waits]
    best_for = {3: (0.5, 0.99), 5: (0.9, 0.7), 7: (0.6, 0.6), 10: (0.6, 0.6)}
    for run in tried:
        minority, majority = best_for[run.config["loss.minority_weight"]]
        test = scores([0.95] * 10) if run is tried[2] else scores([0.4] * 10)
        write_record(tmp_path, run, test, val=scores(groups(minority, majority)))
    plain = next(run for run in runs if method_of(run) == "imbalanced")
    write_record(tmp_path, plain, scores([0.3] * 10))
    runs_here = tabulate_methods(map(row_of_method, find_records([tmp_path]).results.values()))
    [row] = methods.rules(runs_here).to_dict("records")
    assert (row["model"], row["method"], row["tried"]) == ("lstm_no_relu", "weighted", 4)
    assert row["balanced validation"] == "loss.minority_weight=5, loss.normalize=count"
    assert row["test"] == "loss.normalize=count"  # 7
    assert row["test scores"] == pytest.approx(0.95)
    assert row["balanced validation scores"] == pytest.approx(0.4)


def test_no_methods_are_empty_tables() -> None:
    for table in (methods.ranked, methods.pairs, methods.metrics, methods.rules, methods.trainings):
        assert table(tabulate_methods([])).empty


def test_the_report_ranks_methods_without_any_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records_of(tmp_path / "runs", clear)
    monkeypatch.chdir(tmp_path)
    overrides = [*SMALL, f"runs_dir={tmp_path / 'runs'}", "records_dirs=[]"]
    page = write_report(read_study(overrides))
    report = (page.parent / "report.md").read_text()
    assert "first of 4 are weighted 90.2 %, " in report
    assert "; plain has 70.0 %. Better than plain after correction: 1; pairs told apart: " in report
    assert "by balanced validation and" in report
    gist = (page.parent / "ranking.md").read_text().splitlines()
    assert len(gist) > 1
    assert all(line.removeprefix("- ") in report for line in gist)
    assert (page.parent / "figures" / "ranking.svg").exists()
    table = pandas.read_csv(page.parent / "tables" / "ranked.csv")
    assert set(table.method) == {"original", "weighted", "vs", "mix=mixup", "plain"}
