"""Which runs a study has, what they wait for, what is chosen; and its trainings of a second."""

import csv
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conftest import Command
from made_runs import GROUPS, confusion
from pandas import DataFrame

from mnist_imbalance import study
from mnist_imbalance.config import CONF, compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config, result_config
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps.launch import Outcome
from mnist_imbalance.sweeps.plan import (
    PlannedRun,
    Study,
    at_grid_ends,
    check_study,
    plan,
    with_choices,
)
from mnist_imbalance.training.folder import lock

WEIGHTS = ("study.experiments=[weight_sweep,per_label_chosen]", "study.extensions=[]")
CHOSEN = "loss.weights"
METHODS = ("plain", "original", "weighted", "vs", "mixup")


def study_of(*overrides: str) -> Study:
    config = compose_with(overrides, name="study")
    return check_study(config).study


def small_methods(*overrides: str) -> Study:
    """A comparison of few methods."""
    methods = study_of("study=methods").methods
    given = ["study=methods", "study.experiments=[methods_lstm]", "study.extensions=[]"]
    given += [f"~study.methods.{name}" for name in methods if name not in METHODS]
    return study_of(*given, "study.seeds=[0,1,2]", *overrides)


def record(run: PlannedRun, per_label: Sequence[float]) -> dict[str, Any]:
    """A row of `records.table.read` with accuracies on validation images."""
    return {"config_hash": run.config_hash, "val_confusion": confusion(per_label), "groups": GROUPS}


def is_composed(run: PlannedRun) -> bool:
    """Whether the training command line is the planned run."""
    config = compose_with([*run.overrides, "runs_dir=elsewhere"])
    return hash_config(result_config(config)) == run.config_hash


@pytest.mark.parametrize("name", ["full", "methods", "quick"])
def test_planned_runs_are_those_of_earlier_versions(name: str) -> None:
    file = Path(__file__).parent / "golden" / "plan.csv"
    rows = csv.reader(file.read_text("utf-8").splitlines())
    expected = [[overrides, key] for study, overrides, key in rows if study == name]
    runs = plan(study_of(f"study={name}"))
    planned = [[" ".join(run.overrides), "" if run.waits else run.config_hash[:16]] for run in runs]
    assert sorted(planned) == sorted(expected)


def test_each_label_has_its_own_best_weight_by_the_same_models_and_seeds_validation() -> None:
    study = study_of(*WEIGHTS, "study.seeds=[0,1]")
    runs = plan(study)
    rows = []
    for run in runs:
        if not run.waits:
            first = (run.choices["model"], run.config["seed"]) == ("lstm", 0)
            best = [4, 9, 2, 10, 9] if first else [9] * 5
            per_label = [1 - abs(run.config["loss.minority_weight"] - own) / 10 for own in best]
            per_label[4] = min(0.7, per_label[4])  # 6 is the smallest of equals
            rows.append(record(run, per_label + [0.5] * 5))
    ready = with_choices(runs, DataFrame(rows), study.weights)
    chosen = [run for run in ready if CHOSEN in run.config]
    weights = [run.config[CHOSEN] for run in chosen]
    assert weights == [[4, 9, 2, 10, 6] + [1] * 5, *[[9, 9, 9, 9, 6] + [1] * 5] * 3]
    assert chosen[0].overrides[-1] == "loss.weights=[4,9,2,10,6,1,1,1,1,1]"
    assert is_composed(chosen[0])
    waiting = with_choices(runs, DataFrame(rows[1:]), study.weights)
    assert [run.waits for run in waiting if CHOSEN in run.config] == [True, False, False, False]


def test_a_methods_setting_is_the_best_on_validation_images() -> None:
    study = small_methods()
    runs = plan(study)
    weighted = [run for run in runs if run.choices["loss"] == "weighted"]
    tried = [run for run in weighted if not run.waits]
    assert [run.config["loss.minority_weight"] for run in tried] == [3, 5, 7, 10]
    assert {(run.config["data.keep"], run.config["seed"]) for run in tried} == {(0.1, 0)}
    waiting = [run for run in weighted if run.waits]
    assert len(waiting) == 2 * 3 - 1
    reached = {3: 0.7, 5: 0.9, 7: 0.8, 10: 0.9}  # of equals the first
    rows = [record(run, [reached[run.config["loss.minority_weight"]]] * 10) for run in tried]
    assert all(run.waits for run in with_choices(waiting, DataFrame(rows[1:]), []))
    for run, ready in zip(waiting, with_choices(waiting, DataFrame(rows), []), strict=True):
        assert (ready.waits, ready.config["loss.minority_weight"]) == (False, 5)
        assert ready.config["seed"] == run.config["seed"]
        assert ready.config["data.keep"] == run.config["data.keep"]
    assert is_composed(ready)
    assert at_grid_ends(waiting, with_choices(waiting, DataFrame(rows), [])) == []
    rows[3] = record(tried[3], [0.95] * 10)
    [end] = at_grid_ends(waiting, with_choices(waiting, DataFrame(rows), []))
    assert end.config["loss.minority_weight"] == 10


def test_overrides_of_a_method_keep_their_signs() -> None:
    mine = "+study.methods.mine=['~threads','+trainer.gradient_clip_val=1,2']"
    runs = [run for run in plan(small_methods(mine)) if "~threads" in run.overrides]
    tried = [run for run in runs if not run.waits]
    assert [run.config["trainer.gradient_clip_val"] for run in tried] == [1, 2]
    assert all(map(is_composed, tried)) and len(runs) == 2 + 5


def test_another_seed_can_tune() -> None:
    study = small_methods("study.tuning_seed=7")
    runs = plan(study)
    tuning = [run for run in runs if run.config["seed"] == 7]
    assert {run.config["data.keep"] for run in tuning} == {0.1}
    assert len(tuning) == 3 * 4  # the settings of three methods
    assert not any(run.waits for run in tuning)


def test_names_of_data_and_loss_must_differ(tmp_path: Path) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    shutil.copy(conf / "data" / "imbalanced.yaml", conf / "data" / "weighted.yaml")
    wrong = pytest.raises(ConfigError, match=r"^study: weighted names data and a loss")
    with patch("mnist_imbalance.config.CONF", conf), wrong:
        plan(study_of(*WEIGHTS, "study.overrides=['data=weighted']"))


# trainings


NONE_ELSE = ["study.extensions=[]", "study.seeds=[3]"]
SHORT = 'study.overrides=["data/source=debug","trainer.max_epochs=1","trainer.accelerator=cpu"]'
TWO_RUNS = [*NONE_ELSE, "study.experiments=[per_label]", SHORT, "hydra/launcher=basic"]


def places(folder: Path) -> list[str]:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    runs, records, report = (folder / name for name in ("runs", "records", "report"))
    return [f"runs_dir={runs}", f"records_dirs=[{records}]", f"study.report_dir={report}"]


def test_a_study_trains_each_run_once_and_reports(command: Command, tmp_path: Path) -> None:
    printed = command(study.main, *places(tmp_path / "dry"), *TWO_RUNS, "dry_run=true")
    assert "0 of 2 runs ended, 0 of them failed\n" in printed
    assert "the rest takes an unknown time" in printed
    assert "missing: per_label model=cnn data/source=debug trainer.max_epochs=1" in printed
    assert not (tmp_path / "dry" / "runs").exists()

    printed = command(study.main, *places(tmp_path), *TWO_RUNS)
    assert "0 of 2 runs ended" in printed and "2 of 2 runs ended, 0 of them failed" in printed
    assert re.search(r"2 of 2 done, val [\d.]+%: model=cnn", printed)
    assert re.search(r"^ *(lstm|cnn) +1 ", printed, re.MULTILINE)  # the table
    assert (tmp_path / "report" / "index.html").exists()
    found, _ = read([tmp_path / "runs"])
    assert {*found.model} == {"lstm", "cnn"} and {*found.seed} == {3}

    (tmp_path / "runs").rename(tmp_path / "records" / "moved")
    more = [*TWO_RUNS, "study.seeds=[3,4]", "dry_run=true"]
    printed = command(study.main, *places(tmp_path), *more)
    assert "done, val" not in printed
    assert "2 of 4 runs ended, 0 of them failed\n" in printed
    assert "per_label     4         2\n" in printed
    assert printed.endswith(" one by one, judging by the records of each overlay\n")


def test_what_waits_is_trained_last_and_failures_stop_no_other_run(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own" / "experiment" / "few.yaml"
    file.parent.mkdir(parents=True)
    params = "{model: lstm, loss.minority_weight: '2,3', optimizer.lr: '0.001,1e30'}"
    file.write_text(
        "# @package _global_\ndefaults: [override /loss: weighted]\n"
        f"hydra: {{sweeper: {{params: {params}}}}}\n"
    )
    given = [*TWO_RUNS, "study.experiments=[few,per_label_chosen]", "study.weights=[2,3]"]
    given += [f"hydra.searchpath=['file://{file.parents[1]}']", *places(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        command(study.main, *given)
    printed, errors = capsys.readouterr()
    assert re.findall(r"\d of \d runs ended.*", printed) == [
        "0 of 6 runs ended, 0 of them failed",
        "4 of 6 runs ended, 2 of them failed",
        "5 of 6 runs ended, 2 of them failed",
    ]
    assert re.findall(r"(\d) of \d (?:failed|done)", printed) == [*"12345"]  # never backwards
    first, *lines = str(ended.value.code).splitlines()
    assert first == "error: 3 runs failed"
    assert sum("optimizer.lr: the" in line for line in lines) == 2
    assert sum("its weight sweep is not complete" in line for line in lines) == 1
    assert "Traceback" not in errors
    assert (tmp_path / "report").exists()
    found, _ = read([tmp_path / "runs"])
    [chosen] = found.config[found.loss == "per_label_chosen"]
    assert {*chosen["loss.weights"]} <= {1, 2, 3}


def test_a_method_whose_settings_fail_is_named(command: Command, tmp_path: Path) -> None:
    failed = lambda jobs, *_, earlier: [Outcome(job, "broken") for job in jobs]  # noqa: E731
    methods = ["study.experiments=[methods_cnn]", 'study.tuned_at=["data.keep=0.1"]']
    methods += ["+study.methods.mine=['optimizer.lr=0.1,1']", *NONE_ELSE, *places(tmp_path)]
    with patch.object(study, "launch", failed), pytest.raises(SystemExit) as ended:
        command(study.main, *methods)
    reasons = [line.rpartition(": ")[2] for line in str(ended.value.code).splitlines()]
    assert reasons[:3] == ["3 runs failed", "broken", "broken"]
    assert reasons[3:] == ["a run that decides its setting has no record"]


def test_two_studies_do_not_share_a_place(command: Command, tmp_path: Path) -> None:
    busy = "^error: runs_dir: another process is at work in "
    with lock(tmp_path / "runs"), pytest.raises(SystemExit, match=busy):
        command(study.main, *places(tmp_path), *TWO_RUNS)


@pytest.mark.slow
def test_the_quick_study_does_everything(command: Command, tmp_path: Path) -> None:
    given = ["study=quick", SHORT, "hydra/launcher=joblib", *places(tmp_path)]
    printed = command(study.main, *given)
    number = len(read([tmp_path / "runs"])[0])
    assert f"{number} of {number} runs ended, 0 of them failed" in printed
    assert os.path.getsize(tmp_path / "report" / "report.md") > 1000
