"""Sweeps with ``-m``, whatever the launcher."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, end_by, wait_until
from hydra.core.hydra_config import HydraConfig

from hydra_plugins.mnist_imbalance_launcher import SweepLauncher
from mnist_imbalance import train
from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import STOPPED, ConfigError
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import launch
from mnist_imbalance.sweeps.launch import Outcome, check_launcher, mean_over_seeds

SHORT = ["data/source=debug", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
Sweep = Callable[..., str]


def start(command: str, *overrides: str, place: Path = REPOSITORY) -> subprocess.Popen[str]:
    """Start a command in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_imbalance", command, *overrides],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, as these tests may be, ignores it and passes that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def sweep_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """The training command line with -m in this process, which returns what it prints."""

    def run(*overrides: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train", "-m", *overrides])
        train.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=basic"],
        JOBLIB,
        ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"],
        ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.side_by_side=4"],
    ],
    ids=["basic", "joblib", "batched", "submitit"],
)
def test_a_sweep_has_a_line_a_job_and_means_in_the_end(
    sweep_here: Sweep, tmp_path: Path, launcher: list[str]
) -> None:
    sweep = [*SHORT, "loss=weighted", "loss.minority_weight=2,7", "seed=0,1"]
    shown = sweep_here(*sweep, *launcher, f"runs_dir={tmp_path}")
    assert f"4 jobs, in {tmp_path}\n" in shown
    jobs = [f"loss.minority_weight={weight} seed={seed}" for weight in (2, 7) for seed in (0, 1)]
    assert sorted(re.findall(r"^\d of 4 done: (.*)$", shown, re.MULTILINE)) == jobs
    found, damaged = read([tmp_path])
    assert (len(found), damaged) == (4, [])
    together = launcher[0] in ("hydra/launcher=batched", "hydra/launcher=slurm")
    assert found.device.str.endswith("4 runs side by side").all() == together
    assert not HydraConfig.initialized()

    weights = [2, 7] if "basic" in launcher[0] else {2, 7}  # others may end in any order
    rows = [line.split() for line in shown.splitlines() if re.match(r" +[27] ", line)]
    assert type(weights)(int(row[0]) for row in rows) == weights
    by_weight = found.groupby(found.config.map(lambda config: config["loss.minority_weight"]))
    for row in rows:
        assert (row[1], len(row)) == ("2", 2 + 6 * 3)  # three accuracies on each of val and test
        tested = by_weight.get_group(int(row[0])).test_accuracy
        assert " ".join(row[-3:]) == mean_over_seeds(tested)
    [place] = re.findall(r"^run folders .*: '(.*)'$", shown, re.MULTILINE)
    folders = {
        file.relative_to(Path(place).resolve()).parts[0] for file in tmp_path.rglob("event*")
    }
    assert folders == {"loss.minority_weight=2", "loss.minority_weight=7"}


def test_a_sweeper_gets_scores_of_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [SimpleNamespace(val=SimpleNamespace(balanced_accuracy=score)) for score in (1, 0.5)]
    monkeypatch.setattr(launch, "launch", lambda *_: [Outcome((), result) for result in results])
    monkeypatch.setattr(launch, "show", lambda _: None)
    launcher = SweepLauncher()
    launcher.config = compose_with(["hydra.job.config_name=train"], with_hydra=True)
    returned = launcher.launch([["seed=0"], ["seed=1"]], 0)
    assert [job.return_value for job in returned] == [1, 0.5]


def test_a_failed_job_stops_no_other(sweep_here: Sweep, tmp_path: Path) -> None:
    overrides = [*SHORT, "optimizer.lr=0.01,1e30,-1", f"runs_dir={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        sweep_here(*overrides, *JOBLIB)
    first, *lines = str(ended.value.code).splitlines()
    assert first == "error: 2 of 3 jobs failed"
    assert any("optimizer.lr=1e+30" in line and "optimizer.lr: the" in line for line in lines)
    assert any("optimizer.lr: Input should be greater than 0" in line for line in lines)
    assert len(read([tmp_path])[0]) == 1
    assert not [path for path in tmp_path.rglob("*optimizer.lr=-1*")]  # no empty folder


def test_a_stopped_sweep_leaves_no_worker_resumes_and_ends_alike(
    sweep_here: Sweep, tmp_path: Path
) -> None:
    sweep = [*SHORT[::2], "trainer.max_epochs=15", "seed=0,1"]

    words = ["-m", *sweep, *JOBLIB, f"runs_dir={tmp_path / 'stopped'}"]
    command = start("train", *words)
    assert command.stdout and command.stdout.readline().startswith("2 jobs, in")
    time.sleep(0.5)  # workers start
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 1
    assert errors.splitlines()[-1] == STOPPED
    assert "Traceback" not in errors
    command = start("train", *words)
    wait_until(lambda: [*tmp_path.rglob("last.ckpt")], command)
    end_by(command, signal.SIGKILL)
    files = []
    for place in ("stopped", "whole"):
        sweep_here(*sweep, f"runs_dir={tmp_path / place}")
        files.append(sorted((tmp_path / place).rglob("metrics.csv")))
    assert len(files[0]) == 2
    for one, other in zip(*files, strict=True):
        assert one.read_text() == other.read_text()


@pytest.mark.parametrize("option", ["--config-dir={}", "hydra.searchpath=['file://{}']"])
def test_jobs_search_where_the_command_does(sweep_here: Sweep, tmp_path: Path, option: str) -> None:
    file = tmp_path / "own" / "loss" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: mnist_imbalance.methods.losses.focal\ngamma: 1.0\n")
    runs = tmp_path / "runs"
    given = [option.format(tmp_path / "own"), *SHORT, "loss=mine", "seed=0,1", f"runs_dir={runs}"]
    sweep_here(*given, *JOBLIB)
    assert {*read([runs])[0].loss} == {"mine"}


@pytest.mark.parametrize(
    ("name", "override", "error"),
    [
        ("slurm", "side_by_side=-1", r"^hydra\.launcher\.side_by_side: must be above 0"),
        ("ray", "address=null", r"^hydra/launcher: ray is not installed; pip .* '\.\[ray\]'$"),
        ("nothing", "", "^hydra/launcher: must be one of basic, batched, joblib, slurm, ray, got"),
    ],
)
def test_a_launcher_that_cannot_work_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, override: str, error: str
) -> None:
    monkeypatch.setattr(launch, "find_spec", {"submitit": True, "ray": None}.get)
    given = [f"hydra.launcher.{override}"] if override else []
    choice = name if given else "basic"
    hydra = compose_with([f"hydra/launcher={choice}", *given], with_hydra=True).hydra
    hydra.runtime.choices["hydra/launcher"] = name
    with pytest.raises(ConfigError, match=error):
        check_launcher(hydra)
