"""Which runs a study has, what they wait for, and what is chosen."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from hydra.errors import HydraException

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config, result_config
from mnist_imbalance.study import check_study
from mnist_imbalance.sweeps.plan import PlannedRun, Study, at_grid_ends, plan, with_choices

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
    """A row of `records.table.read` with accuracies on 100 validation images of each label."""
    correct = numpy.rint(100 * numpy.array(per_label)).astype(int)
    confusion = numpy.diag(correct) + numpy.roll(numpy.diag(100 - correct), 1, axis=1)
    groups = {"0-4": [*range(5)], "5-9": [*range(5, 10)]}
    return {"config_hash": run.config_hash, "val_confusion": confusion, "groups": groups}


def table(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=["config_hash", "val_confusion", "groups"])


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


def test_overrides_reach_every_run() -> None:
    overrides = "study.overrides=['data/source=debug','+trainer.limit_train_batches=2']"
    runs = plan(study_of("study.experiments=[data_sweep]", "study.extensions=[]", overrides))
    assert {run.config["trainer.limit_train_batches"] for run in runs} == {2}
    assert {run.choices["data/source"] for run in runs} == {"debug"}
    assert is_composed(runs[-1])


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
    chosen = [run for run in with_choices(runs, table(rows), study.weights) if CHOSEN in run.config]
    weights = [run.config[CHOSEN] for run in chosen]
    assert weights == [[4, 9, 2, 10, 6] + [1] * 5, *[[9, 9, 9, 9, 6] + [1] * 5] * 3]
    assert chosen[0].overrides[-1] == "loss.weights=[4,9,2,10,6,1,1,1,1,1]"
    assert is_composed(chosen[0])
    waiting = with_choices(runs, table(rows[1:]), study.weights)
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
    assert all(run.waits for run in with_choices(waiting, table(rows[1:]), []))
    for run, ready in zip(waiting, with_choices(waiting, table(rows), []), strict=True):
        assert (ready.waits, ready.config["loss.minority_weight"]) == (False, 5)
        assert ready.config["seed"] == run.config["seed"]
        assert ready.config["data.keep"] == run.config["data.keep"]
    assert is_composed(ready)
    assert at_grid_ends(waiting, with_choices(waiting, table(rows), [])) == []
    rows[3] = record(tried[3], [0.95] * 10)
    [end] = at_grid_ends(waiting, with_choices(waiting, table(rows), []))
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


def test_names_of_data_and_loss_must_differ(own_conf: Path) -> None:
    shutil.copy(own_conf / "data" / "imbalanced.yaml", own_conf / "data" / "weighted.yaml")
    study = study_of(*WEIGHTS, "study.overrides=['data=weighted']")
    with pytest.raises(ConfigError, match=r"^study: weighted names data and a loss"):
        plan(study)


MISTAKES = {
    "study.seeds=[]": r"^study\.seeds: .*at least 1",
    "study.seeds=[-1]": r"^study\.seeds\.0: .*greater than or equal to 0",
    "study.experiments=weight_sweep": r"^study\.experiments: .*list",
    "study.experiments=[nowhere]": r"Could not find 'experiment/nowhere'",
    "study.overrides=['seed=7']": r"^study\.overrides: seed is set by the study or methods_lstm",
    "study.overrides=['+data.keep=1']": r"^study\.overrides: data\.keep is set by the study or",
    "study.experiments=[]": r"^study\.experiments: nothing to do$",
    "study.tuned_at=['data.keep=0.5']": r"^study\.tuned_at: methods_lstm does not sweep",
}


@pytest.mark.parametrize(("override", "error"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_named(override: str, error: str) -> None:
    with pytest.raises((ConfigError, HydraException), match=error):
        plan(small_methods(override))
