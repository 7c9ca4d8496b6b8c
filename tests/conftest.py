import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from mnist_imbalance import train
from mnist_imbalance.commandline import CONF, compose_with

REPOSITORY = CONF.parent


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # data.dir is relative
    for variable in ("HYDRA_FULL_ERROR", "PYTHONWARNINGS", "MNIST_IMBALANCE_OUTCOMES"):
        monkeypatch.setenv(variable, "")  # restored after the command line has set it


def composed(*overrides: str) -> DictConfig:
    return compose_with(overrides)


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """The training command line in this process, its runs below tmp_path."""

    def run(*overrides: str) -> Path:
        runs = tmp_path / "runs"
        monkeypatch.setattr(sys, "argv", ["train", *overrides, f"runs_dir={runs}"])
        train.main()
        results = list(runs.rglob("seed=*"))
        assert len(results) == 1
        return results[0]

    return run
