"""What docs/clusters.md promises, on Slurm's own controller and node daemon."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, wait_until
from filelock import FileLock

from mnist_imbalance.records.table import read

pytest.importorskip("submitit")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
EPOCHS = 100
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a cluster"),
    *(
        pytest.mark.skipif(not shutil.which(each), reason=f"no {each}, see tests/cluster/slurm")
        for each in NEEDED
    ),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine, for all commands that are started meanwhile."""
    slurm = [str(REPOSITORY / "tests/cluster/slurm"), "bash", "-c", "echo $SLURM_CONF; exec cat"]
    with (
        FileLock(tmp_path_factory.getbasetemp().parent / "cluster.lock"),  # one at a time
        subprocess.Popen(
            slurm, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running,
        pytest.MonkeyPatch.context() as environment,
    ):
        assert running.stdin and running.stdout
        environment.setenv("SLURM_CONF", running.stdout.readline().strip())
        environment.setenv("PATH", f"{REPOSITORY / 'tests/cluster'}:{os.environ['PATH']}")
        yield
        running.stdin.close()
    assert running.returncode == 0


def start(command: str, *overrides: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"mnist_imbalance.{command}", *map(str, overrides)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def epochs(log: Path) -> list[int]:
    """The epochs that all attempts of a job have begun, in order."""
    return [int(epoch) for epoch in re.findall(r"Epoch (\d+):", log.read_text())]


def training(runs: Path) -> set[str]:
    """The running jobs that have a few epochs behind them, and as many more before them."""
    jobs = ask("squeue", "--array", "--noheader", "--states=R", "--format=%i").split()
    found = set()
    for job in jobs:
        for log in (runs / ".submitit").glob(f"{job}/*_log.out"):
            seen = epochs(log)
            if seen and 3 < seen[-1] < EPOCHS // 2:
                found.add(job)
    return found


def restarts(job: str) -> int:
    found = re.search(r"Restarts=(\d+)", ask("scontrol", "show", "job", job))
    assert found
    return int(found[1])


def records(runs: Path) -> list[dict[str, Any]]:
    """All that must be equal of the records below a folder."""
    found, damaged = read([runs])
    assert not damaged
    unequal = ["seconds", "test_seconds", "versions", "device", "folder", "file"]
    rows = found.drop(columns=unequal).sort_values("config_hash").map(str)
    return [*rows.to_dict("records")]


def test_a_sweep(tmp_path: Path) -> None:
    sweep = ["-m", "hydra/launcher=slurm", "data/source=debug", "trainer.max_epochs=1", "seed=0,1"]
    command = start("train", *sweep, f"runs_dir={tmp_path}")
    shown, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    assert "mean ± half of its 95 % interval" in shown
    assert not errors
    assert len(records(tmp_path)) == 2


def test_what_slurm_refuses_has_no_traceback(tmp_path: Path) -> None:
    sweep = ["-m", "hydra/launcher=slurm", "hydra.launcher.partition=none", "seed=0,1"]
    command = start("train", *sweep, f"runs_dir={tmp_path}")
    _, errors = command.communicate(timeout=100)
    assert command.returncode == 1
    *slurms, ours = errors.splitlines()
    assert all(line.startswith("sbatch: ") for line in slurms)
    assert re.match(r"error: hydra\.launcher: .* invalid partition specified", ours)


def test_a_study_whose_jobs_are_killed_pre_empted_and_out_of_time(tmp_path: Path) -> None:
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    overrides = f'["data/source=debug","trainer.max_epochs={EPOCHS}","trainer.accelerator=cpu"]'
    study = ["study=quick", "study.experiments=[weighted_by_count]"]
    study += ["study.extensions=[]", f"study.overrides={overrides}"]

    def places(runs: Path) -> list[str]:
        return [f"runs_dir={runs}", f"study.report_dir={runs}/report"]

    command = start("study", "hydra/launcher=slurm", *study, *places(disturbed))
    killed = min(wait_until(lambda: training(disturbed), command))
    ask("scancel", killed)
    out_of_time = min(wait_until(lambda: training(disturbed) - {killed}, command))
    signal_it = ["scancel", "--signal=USR2", out_of_time]  # as Slurm does before it ends a job
    with subprocess.Popen(signal_it, stderr=subprocess.DEVNULL) as signalling:
        wait_until(lambda: restarts(out_of_time), command)
        signalling.terminate()  # it would go on to try, because the job is not running now
    before = {killed, out_of_time}
    running = wait_until(lambda: training(disturbed) - before, command)
    urgent = ["--cpus-per-task=2", "--output=/dev/null", "--wrap=true"]
    ask("sbatch", "--partition=urgent", "--wait", *urgent)
    pre_empted = max(running, key=restarts)
    assert restarts(pre_empted) == 1
    shown, errors = command.communicate(timeout=400)
    assert command.returncode == 1, shown + errors
    assert errors.splitlines()[0] == "error: 1 runs failed"
    assert f"Slurm's job {killed} has no result, see " in errors
    for job in (out_of_time, pre_empted):
        [log] = disturbed.glob(f".submitit/{job}/*_log.out")
        assert epochs(log) == sorted(epochs(log))  # no attempt begins anew

    before_again = {*disturbed.glob(".submitit/*/*_log.out")}
    command = start("study", "hydra/launcher=slurm", *study, *places(disturbed))
    shown, errors = command.communicate(timeout=400)
    assert command.returncode == 0, shown + errors
    [log] = {*disturbed.glob(".submitit/*/*_log.out")} - before_again
    assert epochs(log)[0] > 3

    command = start("study", *study, *places(undisturbed))
    _, errors = command.communicate(timeout=400)
    assert command.returncode == 0, errors
    assert len(records(undisturbed)) == 4
    assert records(disturbed) == records(undisturbed)


def test_a_job_of_several_runs_that_is_cancelled(tmp_path: Path) -> None:
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    sweep = ["-m", "experiment=weighted_by_count", "data/source=debug", "trainer.accelerator=cpu"]
    sweep += [f"trainer.max_epochs={EPOCHS}"]
    slurm = ["hydra/launcher=slurm", "hydra.launcher.side_by_side=2"]
    command = start("train", *sweep, *slurm, f"runs_dir={disturbed}")
    killed = min(wait_until(lambda: training(disturbed), command))
    ask("scancel", killed)
    shown, errors = command.communicate(timeout=400)
    assert command.returncode == 1, shown + errors
    assert errors.splitlines()[0] == "error: 2 of 4 jobs failed"
    before = {*disturbed.glob(".submitit/*/*_log.out")}
    command = start("train", *sweep, *slurm, f"runs_dir={disturbed}")
    shown, errors = command.communicate(timeout=400)
    assert command.returncode == 0, shown + errors
    assert len({*disturbed.glob(".submitit/*/*_log.out")} - before) >= 1

    batched = ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"]
    command = start("train", *sweep, *batched, f"runs_dir={undisturbed}")
    _, errors = command.communicate(timeout=400)
    assert command.returncode == 0, errors
    assert len(records(undisturbed)) == 4
    assert records(disturbed) == records(undisturbed)
