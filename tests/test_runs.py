import json
import math
import os
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import REPOSITORY, composed
from handmade import finish, result_of, scores
from omegaconf import OmegaConf

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import plan, read_study, with_choices
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


def test_metrics_that_were_added_later_have_a_column(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    later = perfect().model_copy(update={"metrics": {"mcc": 1.0}})
    history = {"train": {0: perfect(), 1: later}, "val": {}}
    predictions = {stage: numpy.zeros(10, dtype=numpy.uint8) for stage in ("val", "test")}
    folder.finish(perfect_run(), history, predictions)
    header, *rows = folder.metrics_file.read_text().splitlines()
    assert header.split(",")[-1] == "mcc"
    assert [row.split(",")[-1] for row in rows] == ["", "1"]


@pytest.mark.parametrize("damage", ['{"schema": 1', '{"schema": 3}', "[]", '{"val": {}}'])
def test_a_damaged_result_is_named(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    folder.result_file.write_text(damage)
    with pytest.raises(ConfigError, match=r"^runs_dir: .*result\.json is damaged"):
        folder.result()


CONTRADICTIONS = {
    "a matrix without images": lambda r: r["test"].update(confusion=[[0] * 10] * 10),
    "more images than anyone has": lambda r: r["val"]["confusion"][0].__setitem__(0, 10**30),
    "a label too few": lambda r: r["train"].update(positive=[1] * 9),
    "more positive outputs than images": lambda r: r["test"].update(positive=[10**7] * 10),
    "more of a label's own than it has": lambda r: r["train"].update(positive_of_own=[1001] * 10),
    "a group of a label that is not there": lambda r: r["groups"].update({"5-9": [5, 10]}),
    "a group twice of one label": lambda r: r["groups"].update({"0-4": [0, 0]}),
    "a group of none": lambda r: r["groups"].update({"0-4": []}),
    "another seed than the config's": lambda r: r.update(seed=1),
    "time that is no number": lambda r: r["seconds"].update(fit=math.nan),
    "no epoch": lambda r: r.update(epochs=0),
    "steps beyond all numbers": lambda r: r.update(steps=10**30),
    "images less than none": lambda r: r.update(train_counts=[-1] * 10),
}


@pytest.mark.parametrize("contradict", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_record_that_contradicts_itself_is_named(
    tmp_path: Path, contradict: Callable[[dict[str, Any]], None]
) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, perfect_run())
    record = json.loads(folder.result_file.read_text())
    contradict(record)
    folder.result_file.write_text(json.dumps(record))
    records = find_records([tmp_path])
    assert records.results == {}
    [line] = records.damaged
    assert line.startswith(f"runs_dir: {folder.result_file} is damaged (")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    records = find_records([tmp_path])
    assert records.results == {}
    assert len(records.damaged) == 2
    assert all("it is no file" in line for line in records.damaged)


def test_the_epochs_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder, result = RunFolder(tmp_path), perfect_run()
    assert folder.epochs(result) is None
    finish(folder, result)
    rows = folder.epochs(result)
    assert rows is not None
    assert [(row["epoch"], row["stage"]) for row in rows] == [(49, "train"), (49, "val")]
    assert rows[0]["accuracy_0"] == 1


@pytest.mark.parametrize("left", [0, 1, 2, 2.5])
def test_half_a_table_of_epochs_is_named(tmp_path: Path, left: float) -> None:
    folder, result = RunFolder(tmp_path), perfect_run()
    finish(folder, result)
    lines = folder.metrics_file.read_text().splitlines(keepends=True)
    cut = lines[2][:20] if left == 2.5 else ""
    folder.metrics_file.write_text("".join(lines[: int(left)]) + cut)
    with pytest.raises(ConfigError, match=r"metrics\.csv is damaged"):
        folder.epochs(result)


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, perfect_run())
    whole = folder.predictions_file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        folder.predictions_file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"predictions\.npz is damaged"):
            folder.predictions()
    numpy.savez(folder.predictions_file, val=numpy.zeros(3), test=numpy.zeros(3))
    with pytest.raises(ConfigError, match=r"predictions\.npz is damaged"):
        folder.predictions()


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
    hashes = {
        run.config_hash
        for study in ("full", "methods")
        for run in with_choices(plan(read_study([f"study={study}"]).study), records.results)
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
