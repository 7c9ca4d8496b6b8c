import json
from math import ceil
from pathlib import Path

import numpy
import pytest
from conftest import REPOSITORY, composed
from handmade import finish, result_of, scores
from omegaconf import OmegaConf

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import plan, read_study, with_chosen_weights
from mnist_imbalance.runs import Result, RunFolder, determining, find_records, hash_config
from mnist_imbalance.scores import Scores


def perfect() -> Scores:
    return scores([1.0] * 10).model_copy(update={"loss": 0.1})


def perfect_run(*overrides: str) -> Result:
    config = composed(*overrides)
    choices = {"model": "lstm", "data": "imbalanced", "loss": "plain", "optimizer": "sgd"}
    return result_of(choices, determining(config), perfect())


@pytest.mark.parametrize(
    "override",
    ["runs_dir=x", "threads=2", "data.dir=x", "trainer=gpu", "trainer.enable_progress_bar=false"],
)
def test_the_hash_ignores_where_and_how_a_run_is_made(override: str) -> None:
    ours, theirs = (hash_config(determining(composed(*o))) for o in ([], [override]))
    assert ours == theirs


@pytest.mark.parametrize(
    "override",
    ["seed=1", "data.seed=1", "data.keep=0.2", "model=cnn", "optimizer.lr=0.1", "loss=weighted"],
)
def test_the_hash_tells_runs_apart(override: str) -> None:
    ours, theirs = (hash_config(determining(composed(*o))) for o in ([], [override]))
    assert ours != theirs


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.result() is None
    result = perfect_run("seed=3")
    predictions = {stage: numpy.arange(10, dtype=numpy.uint8) for stage in ("val", "test")}
    history = {"val": {0: perfect()}, "train": {0: perfect(), 1: perfect()}}
    folder.finish(result, history, predictions)
    assert folder.result() == result
    rows = folder.metrics_file.read_text().splitlines()
    assert rows[0].startswith("epoch,stage,loss,accuracy,accuracy_0_4,accuracy_5_9,accuracy_0,")
    assert rows[3] == "1,train,0.1" + 13 * ",1"
    record = json.loads(folder.result_file.read_text())
    assert record["schema"] == 2
    kept = folder.predictions()
    assert kept is not None
    assert kept.keys() == {"val", "test"}
    assert kept["test"].tolist() == list(range(10))
    assert folder.predictions_file.stat().st_size < 1000
    assert record["seed"] == 3
    assert record["accuracy_of_groups"]["test"] == {"0-4": 1.0, "5-9": 1.0}
    assert hash_config(record["config"]) == record["config_hash"]


@pytest.mark.parametrize("damage", ['{"schema": 1', '{"schema": 3}', "[]", '{"val": {}}'])
def test_a_damaged_result_is_named(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    folder.result_file.write_text(damage)
    with pytest.raises(ConfigError, match=r"^runs_dir: .*result\.json is damaged"):
        folder.result()


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        second = RunFolder(folder.path).lock()
        with pytest.raises(ConfigError, match=r"^runs_dir: another process is at work in .*run$"):
            second.__enter__()
    with folder.lock():
        assert folder.path.is_dir()
    assert not list(folder.path.iterdir())


def test_a_result_of_another_config_is_told_by_itself(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, perfect_run("data.keep=0.5"))
    assert folder.result_of(composed("data.keep=0.5")) == folder.result()
    with pytest.raises(ConfigError, match=r"other values of data\.keep;"):
        folder.result_of(composed())


def test_a_folder_belongs_to_one_config(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    config = composed("optimizer.lr=0.1")
    assert folder.result_of(config) is None
    folder.config_file.parent.mkdir()
    OmegaConf.save(config, folder.config_file)
    assert folder.result_of(composed("optimizer.lr=0.1", "trainer=gpu")) is None
    with pytest.raises(ConfigError, match=r"other values of data\.seed, optimizer\.lr;"):
        folder.result_of(composed("data.seed=1"))


@pytest.mark.parametrize("override", ["trainer.max_steps=-1", "data.copied=minority"])
def test_a_new_key_changes_no_hash_at_the_value_that_all_had(override: str) -> None:
    values = determining(composed(override))
    assert values == determining(composed())
    assert override.partition("=")[0] not in values


def test_every_committed_record_is_planned_and_every_record_keeps_its_hash() -> None:
    records = find_records([REPOSITORY / "results"])
    planned = plan(read_study([]).study)
    hashes = {
        (with_chosen_weights(run, planned, records.results) if run.waits else run).config_hash
        for run in planned
    }
    assert records.damaged == []
    assert records.results.keys() <= hashes
    of_schema_1 = [
        each for each in records.results.values() if each.versions["mnist_imbalance"] == "0.1.0"
    ]
    assert {each.schema_version for each in of_schema_1} <= {1}


def test_a_record_of_schema_1_is_completed(tmp_path: Path) -> None:
    result = perfect_run("loss=weighted", "loss.minority_weight=3", "model.output_relu=false")
    later = {"condition", "steps", "groups", "data_sha256"}
    record = result.model_dump(by_alias=True, exclude=later) | {"schema": 1, "loss": "weighted"}
    file = tmp_path / "result.json"
    file.write_text(json.dumps(record))
    read = RunFolder(tmp_path).result()
    assert read is not None
    assert read.condition == "weighted, loss.minority_weight=3, model.output_relu=False"
    assert read.steps == 50 * ceil(10 * 2982 / 128)
    assert read.groups["5-9"] == [5, 6, 7, 8, 9]
    assert RunFolder(tmp_path).predictions() is None


@pytest.mark.parametrize("gone", ["config", "epochs", "train_counts"])
def test_a_record_of_schema_1_that_lacks_what_it_needs_is_named(tmp_path: Path, gone: str) -> None:
    later = {"condition", "steps", "groups", "data_sha256"}
    record = perfect_run().model_dump(by_alias=True, exclude=later | {gone}) | {"schema": 1}
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.result_file.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=rf"^runs_dir: .*result\.json is damaged.*{gone}"):
        folder.result()
    records = find_records([tmp_path])
    assert records.results == {}
    assert len(records.damaged) == 1
    assert str(folder.result_file) in records.damaged[0]


@pytest.mark.parametrize("config", [None, [], "x", {}])
def test_a_record_of_schema_1_whose_config_is_none_is_named(tmp_path: Path, config: object) -> None:
    later = {"condition", "steps", "groups", "data_sha256", "config"}
    record = perfect_run().model_dump(by_alias=True, exclude=later)
    folder = RunFolder(tmp_path)
    folder.result_file.write_text(json.dumps(record | {"schema": 1, "config": config}))
    with pytest.raises(ConfigError, match=r"^runs_dir: .*result\.json is damaged"):
        folder.result()


def test_one_is_not_true(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, perfect_run("data.keep=1"))
    with pytest.raises(ConfigError, match=r"other values of data\.keep;"):
        folder.result_of(composed("data.keep=1.0"))
