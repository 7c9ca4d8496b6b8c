from dataclasses import replace
from pathlib import Path

import pytest
from handmade import groups, scores, study_of, write_record
from hydra.errors import MissingConfigException

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import Study, plan, read_study, with_choice
from mnist_imbalance.runs import determining, find_records, hash_config
from mnist_imbalance.selection import sweeps_of

WEIGHTS = ("study.experiments=[weight_sweep,per_label_chosen]", "study.extensions=[]")


def test_the_full_study_is_every_condition_with_every_seed() -> None:
    _, runs = study_of()
    by_experiment = {
        name: [run for run in runs if run.experiment == name]
        for name in dict.fromkeys(run.experiment for run in runs)
    }
    assert {name: len(of) for name, of in by_experiment.items()} == {
        "data_sweep": 2 * 4 * 5,
        "weight_sweep": 2 * 9 * 5,
        "per_label": 2 * 5,
        "per_label_chosen": 2 * 5,
        "equal_steps": 2 * 8 * 5,
        "duplicated": 2 * 2 * 5,
        "weighted_by_count": 2 * 2 * 5,
        "per_label_by_count": 2 * 5,
        "adam_equal_steps": 2 * 3 * 5,
        "adam_weighted": 2 * 2 * 5,
        "adam_duplicated": 2 * 5,
        "adam_copies": 2 * 2 * 5,
        "step_size": 2 * 5,
        "step_size_original": 5,
        "adam": 2 * 4 * 3,
        "adam_per_label": 2 * 3,
        "output_relu": 4 * 3,
        "normalize": 8 * 3,
        "crossed": 3 * 3,
    }
    weights = [run.config["loss.minority_weight"] for run in by_experiment["weight_sweep"]]
    assert weights[:9] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    seeds = [run.config["seed"] for run in runs]
    assert seeds == sorted(seeds)
    for run in runs:
        own = run.config["data.seed"] == run.config["seed"]
        assert own or run.experiment == "crossed"


def test_a_planned_run_is_the_training_commands() -> None:
    _, runs = study_of()
    for run in {run.experiment: run for run in runs if not run.waits}.values():
        config = compose_with([*run.overrides, "runs_dir=elsewhere"])
        assert hash_config(determining(config)) == run.config_hash


def test_overlays_share_runs() -> None:
    _, runs = study_of()
    plain = {run.config_hash for run in runs if run.experiment == "data_sweep"}
    relu = {run.config_hash for run in runs if run.experiment == "output_relu"}
    assert len(plain & relu) == 3  # bias 5 with the ReLU, three seeds


def test_overrides_reach_every_run() -> None:
    _, runs = study_of("study=quick")
    assert {run.config["trainer.max_epochs"] for run in runs} == {1}
    assert {run.config["seed"] for run in runs} == {0}


def test_weights_are_chosen_on_the_validation_data_of_the_same_model_and_seed(
    tmp_path: Path,
) -> None:
    _, runs = study_of(*WEIGHTS, "study.seeds=[0,1]")
    chosen = [run for run in runs if run.waits]
    assert len(chosen) == 4
    lstm = chosen[0]
    assert (lstm.choices["model"], lstm.config["seed"]) == ("lstm", 0)
    for run in runs:
        if run.waits:
            continue
        weight = run.config["loss.minority_weight"]
        ours = run.choices["model"] == "lstm" and run.config["seed"] == 0
        best = 4 if ours else 9
        val = scores(groups(1 - abs(weight - best) / 10, 0.5))
        write_record(tmp_path, run, scores(groups(weight / 10, 0.5)), val=val)
    records = find_records([tmp_path]).results
    sweeps = sweeps_of(runs)
    ready = with_choice(lstm, sweeps, records)
    assert ready.config["loss.weights"] == [4] * 5 + [1] * 5
    assert ready.overrides[-1] == "loss.weights=[4,4,4,4,4,1,1,1,1,1]"
    assert hash_config(determining(compose_with(ready.overrides))) == ready.config_hash
    others = [with_choice(run, sweeps, records).config["loss.weights"] for run in chosen[1:]]
    assert others == [[9] * 5 + [1] * 5] * 3


def test_weights_wait_for_the_whole_sweep(tmp_path: Path) -> None:
    _, runs = study_of(*WEIGHTS, "study.seeds=[0]")
    sweep = [run for run in runs if not run.waits and run.choices["model"] == "lstm"]
    for run in sweep[:-1]:
        write_record(tmp_path, run, scores([0.5] * 10))
    waiting = next(run for run in runs if run.waits)
    assert with_choice(waiting, sweeps_of(runs), find_records([tmp_path]).results).waits
    write_record(tmp_path, sweep[-1], scores([0.5] * 10))
    assert not with_choice(waiting, sweeps_of(runs), find_records([tmp_path]).results).waits


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("study.seeds=[]", r"^study\.seeds: .*at least 1"),
        ("study.seeds=[-1]", r"^study\.seeds\.0: .*greater than or equal to 0"),
        ("study.experiments=weight_sweep", r"^study\.experiments: .*list"),
        ("records_dirs=[nowhere]", r"^records_dirs: there is no folder nowhere;"),
    ],
)
def test_a_wrong_value_is_named(override: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        read_study([override])


def test_the_first_roots_record_counts_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    _, runs = study_of(*WEIGHTS, "study.seeds=[0]")
    for root, accuracy in (("a", 0.5), ("b", 0.6)):
        write_record(tmp_path / root, runs[0], scores([accuracy] * 10))
    cut = write_record(tmp_path / "b", runs[1], scores([0.5] * 10)) / "result.json"
    cut.write_text(cut.read_text()[:200])
    other = replace(runs[2], config={**runs[2].config, "data.keep": 0.5})
    changed = write_record(tmp_path / "b", other, scores([0.5] * 10)) / "result.json"
    changed.write_text(changed.read_text().replace('"data.keep": 0.5', '"data.keep": 0.1'))
    records = find_records([tmp_path / "b", tmp_path / "a", tmp_path / "absent"])
    assert {result.test.accuracy for result in records.results.values()} == {0.6}
    assert list(records.folders.values()) == [tmp_path / "b" / runs[0].config_hash[:12]]
    assert len(records.damaged) == 2
    for file in (cut, changed):
        assert any(str(file) in line for line in records.damaged)


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["study.experiments=[]", "study.extensions=[]"], "^study.experiments: nothing to do$"),
        (["study.overrides=[seed=7]"], "^study.overrides: seed is set by the study itself$"),
        (
            ["study.overrides=['data=original']"],
            "^study.overrides: data is swept by conf/experiment/data_sweep.yaml$",
        ),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(overrides: list[str], error: str) -> None:
    quoted = [override.replace("[seed=7]", "['seed=7']") for override in overrides]
    with pytest.raises(ConfigError, match=error):
        plan(read_study(quoted).study)


def test_what_an_overlay_changes_is_known() -> None:
    _, runs = study_of("study.seeds=[0]", "study.extension_seeds=[0]")
    changed: dict[str, list[object]] = {run.experiment: [] for run in runs}
    for run in runs:
        changed[run.experiment].append(run.changes)
    assert changed["output_relu"] == [
        {"model.output_bias": None},
        {},
        {"model.output_bias": None, "model.output_relu": False},
        {"model.output_relu": False},
    ]
    assert changed["normalize"][4:6] == [{}, {"loss.normalize": "count"}]  # weight 7
    assert changed["weight_sweep"][:2] == [
        {"loss.minority_weight": 2},
        {"loss.minority_weight": 3},
    ]
    for experiment in ("data_sweep", "per_label", "per_label_chosen", "adam", "equal_steps"):
        assert not any(changed[experiment])


def test_different_runs_of_one_name_are_refused(own_conf: Path) -> None:
    for file, text in {
        "data/balanced": "defaults: [imbalanced]\nkeep: 0.2\n",
        "loss/balanced": "_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.1\n",
        "experiment/by_data": "# @package _global_\ndefaults: [override /data: balanced]\n",
        "experiment/by_loss": "# @package _global_\ndefaults: [override /loss: balanced]\n",
    }.items():
        (own_conf / f"{file}.yaml").write_text(text)

    def study(*overlays: str) -> Study:
        return read_study([f"study.experiments=[{','.join(overlays)}]", "study.seeds=[0]"]).study

    assert {run.condition for run in plan(study("by_data", "data_sweep"))} > {"balanced"}
    with pytest.raises(ConfigError, match=r"^study.* by_data and by_loss: .* 'balanced' "):
        plan(study("by_data", "by_loss"))


def test_a_plan_needs_its_overlays() -> None:
    keys = read_study(["study.experiments=[nowhere]"])
    with pytest.raises(MissingConfigException):
        plan(keys.study)


def test_an_overlay_that_overrides_a_group_below_data_is_planned_as_it_is_composed(
    own_conf: Path,
) -> None:
    (own_conf / "experiment" / "debugged.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data/source: debug\n"
        "hydra: {sweeper: {params: {data: 'imbalanced,original'}}}\n"
    )
    keys = read_study(["study.experiments=[debugged]", "study.extensions=[]", "study.seeds=[0]"])
    planned = plan(keys.study)
    assert [run.config_hash for run in planned] == [
        hash_config(determining(compose_with(run.overrides))) for run in planned
    ]
    assert [run.condition for run in planned] == [
        "imbalanced, data/source=debug",
        "original, data/source=debug",
    ]


def test_a_tuning_seed_does_not_count() -> None:
    _, runs = study_of("study=tail", "study.experiments=[tail_lstm]", "study.seeds=[0,1]")
    seeds = [(run.config["seed"], bool(run.settings)) for run in runs]
    assert seeds.count((5, False)) == 4 * 4  # every setting of four methods
    assert seeds.count((0, False)) == seeds.count((1, False)) == 4
    assert seeds.count((0, True)) == seeds.count((1, True)) == 4
    assert {hash for run in runs for hash in run.settings} <= {run.config_hash for run in runs}
