"""Sweeps with ``-m``, whatever the launcher."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, end_by, wait_for
from hydra.core.hydra_config import HydraConfig

from mnist_imbalance import train
from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import STOPPED, ConfigError
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import launch
from mnist_imbalance.sweeps.launch import Outcome, check_launcher, show, tabulate

SHORT = ["data/source=debug", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
SWEEP = [*SHORT, "loss=weighted", "loss.minority_weight=2,7", "seed=0,1"]
Sweep = Callable[..., str]


@pytest.fixture
def sweep_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """The training command line with -m in this process, which returns what it prints."""

    def run(*overrides: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train", "-m", *overrides])
        train.main()
        return capsys.readouterr().out

    return run


def start(*overrides: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_imbalance.train", "-m", *map(str, overrides)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, as these tests may be, ignores it and passes that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def error_of(*overrides: object, **environment: str) -> str:
    """The last line of what a command that fails prints to standard error."""
    command = start(*overrides, **environment)
    _, errors = command.communicate(timeout=200)
    assert command.returncode == 1
    return errors.splitlines()[-1]


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=basic"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"],
        ["hydra/launcher=slurm", "hydra.launcher.cluster=local"],
    ],
    ids=["basic", "joblib", "batched", "submitit"],
)
def test_a_sweep_has_a_line_a_job_and_means_in_the_end(
    sweep_here: Sweep, tmp_path: Path, launcher: list[str]
) -> None:
    if "slurm" in launcher[0]:
        pytest.importorskip("submitit")
    shown = sweep_here(*SWEEP, *launcher, f"runs_dir={tmp_path}")
    assert f"4 jobs, in {tmp_path}\n" in shown
    jobs = [f"loss.minority_weight={weight} seed={seed}" for weight in (2, 7) for seed in (0, 1)]
    assert sorted(re.findall(r"^\d of 4 done: (.*)$", shown, re.MULTILINE)) == jobs
    assert [line.split()[:2] for line in shown.splitlines() if re.match(r" +[27] ", line)] == [
        ["2", "2"], ["7", "2"], ["2", "2"], ["7", "2"],
    ]  # fmt: skip
    [logdir] = re.findall(r"^TensorBoard: tensorboard --logdir '(.*)'$", shown, re.MULTILINE)
    folders = {
        file.relative_to(Path(logdir).resolve()).parts[0] for file in tmp_path.rglob("events*")
    }
    assert folders == {"loss.minority_weight=2", "loss.minority_weight=7"}
    found, damaged = read([tmp_path])
    assert (len(found), damaged) == (4, [])
    assert found.device.str.endswith("4 runs side by side").all() == ("batched" in launcher[0])
    assert not HydraConfig.initialized()
    together = "side by side" in "".join(found.device)
    assert together == ("batched" in launcher[0])


def test_a_failed_job_stops_no_other(sweep_here: Sweep, tmp_path: Path) -> None:
    overrides = [
        *SHORT,
        "optimizer.lr=0.01,1e30,-1",
        f"runs_dir={tmp_path}",
        "hydra/launcher=joblib",
    ]
    with pytest.raises(SystemExit) as ended:
        sweep_here(*overrides)
    first, *lines = str(ended.value.code).splitlines()
    assert first == "error: 2 of 3 jobs failed"
    assert any("optimizer.lr=1e+30" in line and "optimizer.lr: the" in line for line in lines)
    assert any("optimizer.lr: Input should be greater than 0" in line for line in lines)
    assert len(read([tmp_path])[0]) == 1
    assert not [path for path in tmp_path.rglob("*optimizer.lr=-1*")]  # no empty folder


def test_a_killed_sweep_resumes_and_ends_alike(tmp_path: Path) -> None:
    sweep = [*SHORT[::2], "trainer.max_epochs=30", "seed=0,1", "hydra/launcher=joblib"]
    killed = start(*sweep, f"runs_dir={tmp_path / 'killed'}")
    wait_for(lambda: len([*tmp_path.rglob("last.ckpt")]), 1, killed)
    end_by(killed, signal.SIGKILL)
    for place in ("killed", "whole"):
        command = start(*sweep, f"runs_dir={tmp_path / place}")
        _, errors = command.communicate(timeout=300)
        assert command.returncode == 0, errors
    files = [sorted((tmp_path / place).rglob("metrics.csv")) for place in ("killed", "whole")]
    assert len(files[0]) == 2
    for one, other in zip(*files, strict=True):
        assert one.read_text() == other.read_text()


def test_ctrl_c_is_answered_in_one_line_while_workers_start(tmp_path: Path) -> None:
    command = start(*SWEEP, "hydra/launcher=joblib", f"runs_dir={tmp_path}")
    assert command.stdout and command.stdout.readline().startswith("4 jobs, in")
    time.sleep(0.5)
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 1
    assert errors.splitlines()[-1] == STOPPED
    assert "Traceback" not in errors


def test_jobs_search_where_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "mine.yaml").write_text(
        "_target_: mnist_imbalance.methods.losses.focal\ngamma: 1.0\n"
    )
    for option in (
        f"--config-dir={tmp_path / 'own'}",
        f"hydra.searchpath=['file://{tmp_path}/own']",
    ):
        runs = tmp_path / option[2]
        command = start(
            option, *SHORT, "loss=mine", "seed=0,1", f"runs_dir={runs}", "hydra/launcher=joblib"
        )
        _, errors = command.communicate(timeout=200)
        assert command.returncode == 0, errors
        assert {*read([runs])[0].loss} == {"mine"}


def hydra_of(*overrides: str) -> Any:
    return compose_with(overrides, with_hydra=True).hydra


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("side_by_side=0", "side_by_side: Input should be greater than 0, got 0"),
        ("side_by_side=many", "side_by_side: Input should be a valid integer, got 'many'"),
        ("num_gpus=-1", "num_gpus: Input should be greater than or equal to 0, got -1"),
        ("max_retries=x", "max_retries: Input should be a valid integer, got 'x'"),
    ],
)
def test_a_wrong_key_of_a_launcher_is_one_line(override: str, error: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=f"^hydra.launcher.{error}$"):
        check_launcher(hydra_of("hydra/launcher=ray", f"hydra.launcher.{override}"))


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_without_an_extra_the_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda found: None if found == package else found)
    said = rf"^hydra/launcher: {name} is not installed; pip install -e '\.\[{name}\]'$"
    with pytest.raises(ConfigError, match=said):
        check_launcher(hydra_of(f"hydra/launcher={name}"))


def test_without_slurm_the_mistake_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    said = "error: hydra/launcher: there is no srun here; start this where Slurm is"
    given = ["hydra/launcher=slurm", "hydra.launcher.partition=short", "seed=0,1"]
    assert error_of(*given, f"runs_dir={tmp_path}", PATH=str(tmp_path)) == said


def outcome(job: str, val: float, test: float = 0.5, folder: str = "a") -> Outcome:
    return Outcome(tuple(job.split()), folder, None, val, {"0-4": 1.0, "all": val}, {"all": test})


def test_a_table_has_what_differs_and_means_over_seeds() -> None:
    runs = [
        outcome(f"loss.minority_weight={weight} model=lstm seed={seed}", val)
        for weight, seed, val in [("2", 0, 0.1), ("2", 1, 0.3), ("7", 0, 0.2), ("7", 1, 0.4)]
    ]
    half = 12.706 * 0.1 * 100  # of Student's t with one degree of freedom, × the standard error
    title, header, *rows = tabulate(runs, "val").split("\n")
    assert (title, *header.split()) == ("val accuracy %", "loss.minority_weight", "n", "0-4", "all")
    assert [" ".join(row.split()) for row in rows if row] == [
        f"2 2 100.0 ± 0.0 20.0 ± {half:.1f}",
        f"7 2 100.0 ± 0.0 30.0 ± {half:.1f}",
    ]
    alone = [outcome(f"loss={loss} seed=3", 0.5) for loss in ("plain", "weighted")]
    assert [row.split() for row in tabulate(alone, "val").splitlines()[2:]] == [
        ["plain", "1", "100.0", "50.0"],
        ["weighted", "1", "100.0", "50.0"],
    ]
    [row] = tabulate([outcome(f"seed={seed}", 0.5) for seed in range(3)], "test").splitlines()[2:]
    assert row.split() == ["3", "50.0", "±", "0.0"]


def test_a_sweep_names_the_common_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / "sweep" / f"seed={seed}") for seed in range(2)]
    runs = [outcome(f"seed={seed}", 0.5, folder=folder) for seed, folder in enumerate(folders)]
    show([*runs, runs[0]])  # as with seed=0,1,0
    place = os.path.relpath(tmp_path / "sweep")
    assert f"\nrun folders, in '{place}'\n" in capsys.readouterr().out
