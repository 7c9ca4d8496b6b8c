import json
from pathlib import Path

import pytest
from conftest import composed
from handmade import result_of, scores
from omegaconf import OmegaConf

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.runs import Result, RunFolder, determining, hash_config
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
    folder.finish(result, {"val": {0: perfect()}, "train": {0: perfect(), 1: perfect()}})
    assert folder.result() == result
    rows = folder.metrics_file.read_text().splitlines()
    assert rows[0].startswith("epoch,stage,loss,accuracy,accuracy_0_4,accuracy_5_9,accuracy_0,")
    assert rows[3] == "1,train,0.1" + 13 * ",1"
    record = json.loads(folder.result_file.read_text())
    assert record["schema"] == 1
    assert record["seed"] == 3
    assert record["test"]["accuracy_5_9"] == 1.0
    assert hash_config(record["config"]) == record["config_hash"]


@pytest.mark.parametrize("damage", ['{"schema": 1', '{"schema": 2}', "[]", '{"val": {}}'])
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
    folder.finish(perfect_run("data.keep=0.5"), {})
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
