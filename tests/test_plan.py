"""Which runs a study has, what they wait for, and what is chosen."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import determining, hash_config
from mnist_imbalance.report.tables import COMPARED, HEADLINE, REMEDIES
from mnist_imbalance.report.words import title
from mnist_imbalance.study import check_study
from mnist_imbalance.sweeps.plan import (
    PlannedRun,
    Study,
    at_grid_ends,
    best_weights,
    plan,
    with_choices,
)

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


def record(run: PlannedRun, per_label: Sequence[float], images: int = 100) -> dict[str, Any]:
    """A row of `records.table.read` with accuracies on the validation images."""
    confusion = [[0] * 10 for _ in range(10)]
    for label, accuracy in enumerate(per_label):
        confusion[label][label] = round(images * accuracy)
        confusion[label][(label + 1) % 10] = images - round(images * accuracy)
    groups = {"0-4": [*range(5)], "5-9": [*range(5, 10)]}
    return {"config_hash": run.config_hash, "val_confusion": confusion, "groups": groups}


def table(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=["config_hash", "val_confusion", "groups"])


def is_composed(run: PlannedRun) -> bool:
    """Whether the training command line is the planned run."""
    config = compose_with([*run.overrides, "runs_dir=elsewhere"])
    return hash_config(determining(config)) == run.config_hash


@pytest.mark.parametrize("name", ["full", "methods", "quick"])
def test_planned_runs_are_those_of_earlier_versions(name: str) -> None:
    file = Path(__file__).parent / "golden" / "plan.csv"
    rows = csv.reader(file.read_text("utf-8").splitlines())
    expected = [[overrides, key] for study, overrides, key in rows if study == name]
    runs = plan(study_of(f"study={name}"))
    assert [
        [" ".join(run.overrides), "" if run.waits else run.config_hash[:16]] for run in runs
    ] == expected
    assert [run.config["seed"] for run in runs] == sorted(run.config["seed"] for run in runs)


def test_a_planned_run_is_the_training_commands() -> None:
    runs = plan(study_of())
    for run in {run.experiment: run for run in runs if not run.waits}.values():
        assert is_composed(run)


def test_overrides_reach_every_run() -> None:
    overrides = "study.overrides=['data/source=debug','+trainer.limit_train_batches=2']"
    runs = plan(study_of("study.experiments=[data_sweep]", "study.extensions=[]", overrides))
    assert {run.config["trainer.limit_train_batches"] for run in runs} == {2}
    assert {run.choices["data/source"] for run in runs} == {"debug"}
    assert is_composed(runs[-1])


def test_weights_are_chosen_by_the_validation_images_of_the_same_model_and_seed() -> None:
    study = study_of(*WEIGHTS, "study.seeds=[0,1]")
    runs = plan(study)
    rows = []
    for run in runs:
        if not run.waits:
            weight = run.config["loss.minority_weight"]
            best = 4 if run.choices["model"] == "lstm" and run.config["seed"] == 0 else 9
            rows.append(record(run, [1 - abs(weight - best) / 10] * 5 + [0.5] * 5))
    chosen = [run for run in with_choices(runs, table(rows), study.weights) if CHOSEN in run.config]
    weights = [run.config[CHOSEN] for run in chosen]
    assert weights == [[4] * 5 + [1] * 5, *[[9] * 5 + [1] * 5] * 3]
    assert chosen[0].overrides[-1] == "loss.weights=[4,4,4,4,4,1,1,1,1,1]"
    assert is_composed(chosen[0])
    waiting = with_choices(runs, table(rows[1:]), study.weights)
    assert [run.waits for run in waiting if CHOSEN in run.config] == [True, False, False, False]


def test_each_label_has_its_own_best_weight_the_smallest_of_equals() -> None:
    sweep = {
        2: [0.1, 0.5, 0.8, 0.1, 0.1, *[0.0] * 5],
        5: [0.5, 0.5, 0.8, 0.2, 0.1, *[0.0] * 5],
        10: [0.9, 0.5, 0.7, 0.1, 0.1, *[1.0] * 5],
    }
    assert best_weights(sweep, range(5)) == [10, 2, 2, 5, 2, 1, 1, 1, 1, 1]
    blind = {**sweep, 3: [float("nan")] * 10}
    with pytest.raises(ConfigError, match=r"^loss\.weights: label 0 has no validation image"):
        best_weights(blind, range(5))


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
    ends = at_grid_ends(waiting, with_choices(waiting, table(rows), []))
    assert ends == ["methods_lstm: loss.minority_weight=10"]


def test_another_seed_can_tune() -> None:
    study = small_methods("study.tuning_seed=7")
    runs = plan(study)
    tuning = [run for run in runs if run.config["seed"] == 7]
    assert {run.config["data.keep"] for run in tuning} == {0.1}
    assert len(tuning) == 3 * 4  # the settings of three methods
    assert not any(run.waits for run in tuning)


MISTAKES = {
    "study.seeds=[]": r"^study\.seeds: .*at least 1",
    "study.seeds=[-1]": r"^study\.seeds\.0: .*greater than or equal to 0",
    "study.experiments=weight_sweep": r"^study\.experiments: .*list",
    "records_dirs=[nowhere]": r"^records_dirs: there is no folder nowhere;",
    "study.report_dir=README.md/report": r"^study\.report_dir: ",
    "study.overrides=['seed=7']": r"^study\.overrides: seed is set by the study itself$",
    "study.overrides=['data=original']": r"^study\.overrides: data is swept by conf/experiment/",
    "study.experiments=[]": r"^study\.experiments: nothing to do$",
}


@pytest.mark.parametrize(("override", "error"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_named(override: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        plan(study_of("study.experiments=[data_sweep]", "study.extensions=[]", override))


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("+study.methods.mine=['loss=[']", r"study\.methods\.mine: .* cannot be read"),
        ("study.tuned_at=['data.keep=0.5']", r"study\.tuned_at: .*methods_lstm"),
        ("study.tuned_at=['seed=1']", r"study\.tuned_at: .*methods_lstm"),
    ],
)
def test_a_method_that_cannot_be_tuned_is_named(override: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        plan(small_methods(override))


OVERLAY = "# @package _global_\n"
OWN = {  # files of a user, and the error
    "experiment/mine": ("loss: {}\n", "its first line must be `# @package _global_`"),
    "experiment/listed": (
        f"{OVERLAY}hydra: {{sweeper: {{params: {{data: [original, imbalanced]}}}}}}\n",
        r"hydra\.sweeper\.params\.data: write a,b instead of \[a, b\]",
    ),
}


@pytest.mark.parametrize(("file", "text", "error"), [(key, *OWN[key]) for key in OWN], ids=OWN)
def test_an_overlay_that_is_none_is_named(own_conf: Path, file: str, text: str, error: str) -> None:
    (own_conf / f"{file}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=error):
        plan(study_of(f"study.experiments=[{Path(file).name}]", "study.extensions=[]"))


def test_a_plan_needs_its_overlays() -> None:
    with pytest.raises(MissingConfigException):
        plan(study_of("study.experiments=[nowhere]"))


def test_names_of_data_and_loss_must_differ(own_conf: Path) -> None:
    (own_conf / "data" / "focal.yaml").write_text("defaults: [imbalanced]\nkeep: 0.2\n")
    for name, override in (("by_data", "data"), ("by_loss", "loss")):
        text = f"{OVERLAY}defaults: [override /{override}: focal]\n"
        (own_conf / "experiment" / f"{name}.yaml").write_text(text)
    assert plan(study_of("study.experiments=[by_data]", "study.extensions=[]"))
    with pytest.raises(ConfigError, match=r"^study.*: focal is a choice of data and one of loss"):
        plan(study_of("study.experiments=[by_data,by_loss]", "study.extensions=[]"))


def test_a_part_that_an_overlay_changes_is_composed_by_hydra(own_conf: Path) -> None:
    swept = {"hydra": {"sweeper": {"params": {"data": "imbalanced,original"}}}}
    overlays: dict[str, dict[str, Any]] = {
        "debugged": {"defaults": [{"override /data/source": "debug"}]},
        "kept": {"data": {"keep": 0.5}},
    }
    for name, more in overlays.items():
        text = OVERLAY + OmegaConf.to_yaml({**more, **swept})
        (own_conf / "experiment" / f"{name}.yaml").write_text(text)
    runs = plan(study_of("study.experiments=[debugged,kept]", "study.extensions=[]"))
    assert all(map(is_composed, runs))
    assert {run.condition for run in runs} == {
        *(f"{data}, data/source=debug" for data in ("imbalanced", "original")),
        *(f"{data}, data.keep=0.5" for data in ("imbalanced", "original")),
    }


def test_planned_runs_have_the_names_that_the_report_looks_for() -> None:
    overlays = "default,equal_steps,normalize,per_label,per_label_by_count,per_label_chosen"
    runs = plan(study_of(f"study.experiments=[{overlays}]", "study.extensions=[]"))
    planned = {run.condition for run in runs}
    compared = {name for pair in COMPARED.values() for name in pair}
    assert {*REMEDIES, *HEADLINE, *compared} <= planned
    assert len({title(name) for name in planned}) == len(planned)
