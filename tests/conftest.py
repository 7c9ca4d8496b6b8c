import gc
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_imbalance.config import CONF, activate_hydra, compose_with

if TYPE_CHECKING:
    from mnist_imbalance.records.result import Result
    from mnist_imbalance.training.folder import RunFolder

REPOSITORY = CONF.parent
gc.set_threshold(100_000, 20, 20)  # a fifteenth of the time: composed configs are many objects


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # data.dir is relative
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # taking a config apart sets it
    for variable in ("HYDRA_FULL_ERROR", "PYTHONWARNINGS"):
        monkeypatch.setenv(variable, "")  # restored after the command line has set it


def wait_until(met: Callable[[], Any], process: subprocess.Popen[str], within: float = 300) -> Any:
    """What a condition gives once it is met, within seconds in which a process is at work."""
    deadline = time.monotonic() + within
    while not (reached := met()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return reached


def wait_for(count: Callable[[], int], at_least: int, process: subprocess.Popen[str]) -> None:
    """Wait until a running process has made as much of something as is asked."""
    wait_until(lambda: count() >= at_least, process, within=200)


def end_by(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """Stop the leader of a session alone and return its errors; no process of it may be left."""
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)  # whoever holds its stdout has ended, too
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while (
        subprocess.run(["pgrep", "-s", str(process.pid)], stdout=subprocess.DEVNULL).returncode == 0
    ):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.2)
    return errors


def composed(*overrides: str) -> DictConfig:
    return compose_with(overrides)


def fitted(runs_dir: Path, *overrides: str) -> "tuple[RunFolder, Result]":
    """Train a run of few images, as the command line would; return its folder and result."""
    from mnist_imbalance.training.folder import RunFolder  # slow to import
    from mnist_imbalance.training.run import run_or_resume

    short = ["data/source=debug", "trainer=cpu", "hydra.mode=RUN", f"runs_dir={runs_dir}"]
    config, hydra = activate_hydra(compose_with([*short, *overrides], with_hydra=True))
    folder = RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir)
    return folder, run_or_resume(config, hydra, folder, show_progress=False)


@pytest.fixture
def own_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ to add to, which everything in this process composes from."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    monkeypatch.setattr("mnist_imbalance.config.CONF", conf)
    return conf


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the records of all tests of a file."""
    folder = tmp_path_factory.mktemp("records")
    yield folder
    shutil.rmtree(folder)
