"""A run folder: one process at a time, and one config."""

from pathlib import Path

import pytest
from conftest import composed
from omegaconf import OmegaConf
from test_records import keep, made

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import determining
from mnist_imbalance.training.folder import RunFolder


def finished(path: Path, override: str) -> RunFolder:
    return RunFolder(keep(path, made(config=determining(composed(override)))))


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        second = RunFolder(folder.path).lock()
        with pytest.raises(ConfigError, match=r"^runs_dir: another process is at work in .*run$"):
            second.__enter__()
    with folder.lock():
        assert folder.path.is_dir()
    assert not list(folder.path.iterdir())


def test_the_result_of_another_config_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path, "data.keep=0.5")
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


def test_one_is_not_true(tmp_path: Path) -> None:
    folder = finished(tmp_path, "data.keep=1")
    with pytest.raises(ConfigError, match=r"other values of data\.keep;"):
        folder.result_of(composed("data.keep=1.0"))
