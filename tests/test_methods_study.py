"""``study=methods``: its plan and its tuning."""

from pathlib import Path

import pytest
from handmade import groups, scores, study_of, write_record
from mnist_imbalance.plan import PlannedRun, plan, read_study, with_choice
from mnist_imbalance.runs import determining, find_records, hash_config
from mnist_imbalance.selection import sweeps_of

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError

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
