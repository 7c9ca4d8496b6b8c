import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_imbalance.config import CONF, activate_hydra, compose_with

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from mnist_imbalance.records.result import Result
    from mnist_imbalance.sweeps.batched import Run
    from mnist_imbalance.training.folder import RunFolder

REPOSITORY = CONF.parent
Command = Callable[..., str]
gc.set_threshold(100_000, 20, 20)  # a fifteenth of the time: composed configs are many objects


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # data.dir is relative
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # taking a config apart sets it
    for variable in ("HYDRA_FULL_ERROR", "PYTHONWARNINGS"):
        monkeypatch.setenv(variable, "")  # restored after the command line has set it
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # to save seconds


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command line in this process, which returns what it prints."""

    def run(main: Callable[[], None], *words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mnist-imbalance", *map(str, words)])
        main()
        return capsys.readouterr().out

    return run


def start(command: str, *words: str, place: Path = REPOSITORY) -> subprocess.Popen[str]:
    """Start a command in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_imbalance", command, *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, as these tests may be, ignores it and passes that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(met: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What a condition gives once it is met, within minutes in which a process is at work."""
    deadline = time.monotonic() + 300
    while not (reached := met()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return reached


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, list[str]]:
    """What a command prints until it ends with a code, and the lines of its errors."""
    shown, errors = process.communicate(timeout=400)
    assert process.returncode == code, shown + errors
    return shown, errors.splitlines()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the leader of a session alone; no process of it may be left."""
    process.kill()
    process.communicate(timeout=60)  # whoever holds its stdout has ended, too
    deadline, left = time.monotonic() + 10, ["pgrep", "-s", str(process.pid)]
    while subprocess.run(left, stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.2)


def composed(*overrides: str) -> DictConfig:
    return compose_with(overrides)


def make_run(runs_dir: Path, *overrides: str) -> "Run":
    """A run before its training, of the command line's config and folder."""
    from mnist_imbalance.sweeps.batched import Run  # slow to import
    from mnist_imbalance.training.folder import RunFolder

    whole = compose_with([*overrides, f"runs_dir={runs_dir}"], with_hydra=True)
    config, hydra = activate_hydra(whole)
    return Run(config, hydra, RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir))


def fitted(runs_dir: Path, *overrides: str) -> "tuple[RunFolder, Result]":
    """Train a run of few images; return its folder and result."""
    from mnist_imbalance.training.run import run_or_resume

    run = make_run(runs_dir, "data/source=debug", "trainer=cpu", *overrides)
    return run.folder, run_or_resume(run.config, run.hydra, run.folder, show_progress=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright  # slow to import

    if not (path := shutil.which("chromium")):
        pytest.skip("needs chromium (Debian's package)")
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield process
        process.close()
