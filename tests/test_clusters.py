"""What docs/clusters.md promises: two nodes of Ray and a Slurm, both of this machine's own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from conftest import REPOSITORY, finish, start, wait_until
from filelock import FileLock

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps.launch import with_ray

pytestmark = pytest.mark.slow
Rows = list[dict[str, Any]]
EPOCHS = 100
LONG = ["data/source=debug", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu"]
LONG += [f"data.dir={REPOSITORY / 'data'}"]
SWEEP = ["-m", "experiment=weighted_by_count", *LONG, "runs_dir=runs"]
STUDY = ["study=quick", "study.experiments=[weighted_by_count]", "study.extensions=[]"]
STUDY += ["study.overrides=[" + ",".join(f'"{word}"' for word in LONG) + "]", "runs_dir=runs"]
os.environ |= {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "200"}  # when busy


def records(place: Path) -> Rows:
    """All that must be equal of the records below a folder."""
    found, damaged = read([place])
    assert (len(found), damaged) == (4, [])
    unequal = ["seconds", "test_seconds", "versions", "device", "folder", "file"]
    rows = found.drop(columns=unequal).sort_values("config_hash").map(str)
    return [*rows.to_dict("records")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The records of the same runs, trained one after the other."""
    place = tmp_path_factory.mktemp("undisturbed")
    finish(start("train", *SWEEP, place=place))
    return records(place)


class Nodes(NamedTuple):
    """Two nodes of Ray, which know nothing of the folder and the environment of our commands."""

    address: str
    logs: Path
    input: IO[str]

    def attempts(self) -> list[tuple[int, list[int]]]:
        """The process of each training, last or not, and the epochs that it was seen at."""
        found: list[tuple[int, list[int]]] = []
        for log in sorted(self.logs.glob("worker-*.out")):
            last = EPOCHS
            for epoch in epochs(log):
                if epoch < last:
                    found.append((int(log.stem.rpartition("-")[2]), []))
                found[-1][1].append(last := epoch)
        return found

    def training(self) -> list[int]:
        """The processes that have a few epochs behind them, and some more before them."""
        last = dict(self.attempts())
        return [each for each, seen in last.items() if seen and 3 < seen[-1] < EPOCHS * 3 // 4]


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    script = [sys.executable, str(REPOSITORY / "tests/cluster/two_nodes_of_ray.py")]
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    place = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen(script, cwd=place, env=usual, **pipes) as process:
        assert process.stdin and process.stdout
        address, logs = process.stdout.readline().split()
        yield Nodes(address, Path(logs), process.stdin)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_job_that_ray_loses_for_good_is_one_line(nodes: Nodes, tmp_path: Path) -> None:
    ray = ["hydra/launcher=ray", f"hydra.launcher.address={nodes.address}"]
    sweep = [*ray, "hydra.launcher.max_retries=0", *LONG, "seed=0"]
    command = start("train", "-m", *sweep, place=tmp_path)
    [killed] = wait_until(nodes.training, command)
    os.kill(killed, signal.SIGKILL)
    shown, errors = finish(command, 1)
    assert "1 of 1 failed: " in shown
    assert errors[0] == "error: 1 of 1 jobs failed"
    assert ": Ray lost it: The worker died unexpectedly" in errors[1]


def test_a_study_that_loses_a_node(nodes: Nodes, tmp_path: Path, undisturbed: Rows) -> None:
    ray = ["hydra/launcher=ray", f"hydra.launcher.address={nodes.address}"]
    command = start("study", *ray, *STUDY, place=tmp_path)
    wait_until(lambda: len(nodes.training()) == 2, command)  # one on each node
    nodes.input.write("\n")  # kills the second node
    nodes.input.flush()
    shown, errors = finish(command)
    assert "4 of 4 done, val " in shown and not errors
    begun_at = sorted(seen[0] for _, seen in nodes.attempts())
    assert begun_at[:4] == [0, 0, 0, 0] and begun_at[4] > 3 and len(begun_at) == 5
    assert records(tmp_path) == undisturbed


def test_a_sweep_with_ray_on_this_machine_alone(tmp_path: Path) -> None:
    ray = ["hydra/launcher=ray", "hydra.launcher.side_by_side=2"]
    sweep = ["-m", *ray, *LONG, "trainer.max_epochs=1", "seed=0,1,2"]
    shown, errors = finish(start("train", *sweep, place=tmp_path))
    assert "3 of 3 done, val " in shown and not errors
    found, _ = read([tmp_path])
    assert {*found.seed[found.device.str.endswith(", 2 runs side by side")]} == {0, 1}
    assert len(found) == 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_without_nodes_of_ray_the_mistake_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.address: [^\n]*$"):
        next(with_ray(lambda chunk: [], [[("seed=0",)]], address=address))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of this machine, for all commands that are started meanwhile."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        pytest.skip("only root can start Slurm, where it is installed; see tests/cluster/slurm")
    command = [str(REPOSITORY / "tests/cluster/slurm"), "bash", "-c", "echo $SLURM_CONF; exec cat"]
    with (
        FileLock(tmp_path_factory.getbasetemp().parent / "cluster.lock"),  # one at a time
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running,
        pytest.MonkeyPatch.context() as environment,
    ):
        assert running.stdin and running.stdout
        environment.setenv("SLURM_CONF", running.stdout.readline().strip())
        environment.setenv("PATH", f"{REPOSITORY / 'tests/cluster'}:{os.environ['PATH']}")
        yield
        running.stdin.close()
    assert running.returncode == 0


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def epochs(log: Path) -> list[int]:
    """The epochs that all attempts of a job have begun, in order."""
    return [int(epoch) for epoch in re.findall(r"Epoch (\d+):", log.read_text())]


def training(place: Path) -> set[str]:
    """The running jobs that have a few epochs behind them, and as many more before them."""
    jobs = ask("squeue", "--array", "--noheader", "--states=R", "--format=%i").split()
    found = set()
    for job in jobs:
        for log in (place / "runs" / ".submitit").glob(f"{job}/*_log.out"):
            seen = epochs(log)
            if seen and 3 < seen[-1] < EPOCHS // 2:
                found.add(job)
    return found


def restarts(job: str) -> int:
    found = re.search(r"Restarts=(\d+)", ask("scontrol", "show", "job", job))
    assert found
    return int(found[1])


@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_has_no_traceback(tmp_path: Path) -> None:
    sweep = ["-m", "hydra/launcher=slurm", "hydra.launcher.partition=none", "seed=0,1"]
    _, errors = finish(start("train", *sweep, place=tmp_path), 1)
    assert all(line.startswith("sbatch: ") for line in errors[:-1])
    assert re.match(r"error: hydra\.launcher: .* invalid partition specified", errors[-1])


@pytest.mark.usefixtures("slurm")
def test_a_study_whose_jobs_are_stopped_in_every_way(tmp_path: Path, undisturbed: Rows) -> None:
    command = start("study", "hydra/launcher=slurm", *STUDY, place=tmp_path)
    killed = min(wait_until(lambda: training(tmp_path), command))
    ask("scancel", killed)
    out_of_time = min(wait_until(lambda: training(tmp_path) - {killed}, command))
    signal_it = ["scancel", "--signal=USR2", out_of_time]  # as Slurm does before it ends a job
    with subprocess.Popen(signal_it, stderr=subprocess.DEVNULL) as signalling:
        wait_until(lambda: restarts(out_of_time), command)
        signalling.terminate()  # it would go on to try, because the job is not running now
    before = {killed, out_of_time}
    running = wait_until(lambda: training(tmp_path) - before, command)
    urgent = ["--cpus-per-task=2", "--output=/dev/null", "--wrap=true"]
    ask("sbatch", "--partition=urgent", "--wait", *urgent)
    pre_empted = max(running, key=restarts)
    assert restarts(pre_empted) == 1
    _, errors = finish(command, 1)
    assert errors[0] == "error: 1 runs failed"
    assert f"Slurm's job {killed} has no result, see " in errors[1]
    for job in (out_of_time, pre_empted):
        [log] = tmp_path.glob(f"runs/.submitit/{job}/*_log.out")
        assert epochs(log) == sorted(epochs(log))  # no attempt begins anew

    before_again = {*tmp_path.glob("runs/.submitit/*/*_log.out")}
    finish(start("study", "hydra/launcher=slurm", *STUDY, place=tmp_path))
    [log] = {*tmp_path.glob("runs/.submitit/*/*_log.out")} - before_again
    assert epochs(log)[0] > 3
    assert records(tmp_path) == undisturbed


@pytest.mark.usefixtures("slurm")
def test_a_job_of_several_runs_that_is_cancelled(tmp_path: Path, undisturbed: Rows) -> None:
    sweep = [*SWEEP, "hydra/launcher=slurm", "hydra.launcher.side_by_side=2"]
    command = start("train", *sweep, place=tmp_path)
    ask("scancel", min(wait_until(lambda: training(tmp_path), command)))
    _, errors = finish(command, 1)
    assert errors[0] == "error: 2 of 4 jobs failed"
    shown, errors = finish(start("train", *sweep, place=tmp_path))
    assert "± half a 95 % interval" in shown and not errors
    for one, other in zip(records(tmp_path), undisturbed, strict=True):  # equal but for rounding
        assert float(one["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-3)
