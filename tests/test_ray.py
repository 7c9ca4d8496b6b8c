"""What docs/clusters.md promises of Ray, on two nodes of Ray's own on this machine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, wait_until

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps.launch import with_ray

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
EPOCHS = 100
LONG = ["data/source=debug", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu"]
LONG += [f"data.dir={REPOSITORY / 'data'}"]
BUSY = {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "200"}  # for a busy machine


class Cluster:
    """Two nodes, which know nothing of the folder and the environment of our commands."""

    def __init__(self, place: Path) -> None:
        usual = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, REPOSITORY / "tests/cluster/two_nodes_of_ray.py"],
            cwd=place,
            env={**usual, **BUSY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address, logs, self.second = self.process.stdout.readline().split()
        self.logs = Path(logs)

    def kill_the_second(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def attempts(self) -> list[tuple[int, list[int]]]:
        """The process of each training, last or not, and the epochs that it was seen at."""
        found: list[tuple[int, list[int]]] = []
        for log in sorted(self.logs.glob("worker-*.out")):
            process, last = int(log.stem.rpartition("-")[2]), EPOCHS
            for epoch in map(int, re.findall(r"Epoch (\d+):", log.read_text())):
                if epoch < last:
                    found.append((process, []))
                found[-1][1].append(last := epoch)
        return found

    def training(self) -> list[int]:
        """The processes that have a few epochs behind them, and some more before them."""
        last = dict(self.attempts())
        return [each for each, seen in last.items() if seen and 3 < seen[-1] < EPOCHS * 3 // 4]

    def second_trains(self) -> bool:
        """Tell whether the second node has such a process."""
        parents = [
            subprocess.run(["ps", "-o", "ppid=", "-p", str(each)], capture_output=True, text=True)
            for each in self.training()
        ]
        return self.second in [each.stdout.strip() for each in parents]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("elsewhere"))
    yield started
    started.process.communicate(timeout=60)
    assert started.process.returncode == 0


def start(place: Path, command: str, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"mnist_imbalance.{command}", *overrides],
        cwd=place,
        env={**os.environ, **BUSY, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(runs: Path) -> list[dict[str, Any]]:
    """All that must be equal of the records below a folder."""
    found, damaged = read([runs])
    assert not damaged
    unequal = ["seconds", "test_seconds", "versions", "device", "folder", "file"]
    rows = found.drop(columns=unequal).sort_values("config_hash").map(str)
    return [*rows.to_dict("records")]


def test_a_job_that_is_lost_for_good_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    ray = ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
    sweep = [*ray, "hydra.launcher.max_retries=0", *LONG, "seed=0"]
    command = start(tmp_path, "train", "-m", *sweep)
    [killed] = wait_until(cluster.training, command)
    os.kill(killed, signal.SIGKILL)
    shown, errors = command.communicate(timeout=200)
    assert command.returncode == 1, shown + errors
    assert "1 of 1 failed: " in shown
    first, told = errors.splitlines()
    assert first == "error: 1 of 1 jobs failed"
    assert ": Ray lost it: The worker died unexpectedly" in told


def test_a_study_one_of_whose_nodes_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    overrides = ",".join(f'"{each}"' for each in LONG)
    study = ["study=quick", "study.experiments=[weighted_by_count]", "study.extensions=[]"]
    study += [f"study.overrides=[{overrides}]", "runs_dir=disturbed"]
    before = len(cluster.attempts())

    ray = ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
    command = start(tmp_path, "study", *ray, *study)
    wait_until(cluster.second_trains, command)
    cluster.kill_the_second()
    shown, errors = command.communicate(timeout=400)
    assert command.returncode == 0, shown + errors
    assert "4 of 4 done: " in shown and not errors
    begun_at = sorted(seen[0] for _, seen in cluster.attempts()[before:])
    assert begun_at[:4] == [0, 0, 0, 0] and begun_at[4] > 3 and len(begun_at) == 5

    sweep = ["experiment=weighted_by_count", *LONG, "runs_dir=undisturbed"]
    command = start(tmp_path, "train", "-m", *sweep)
    _, errors = command.communicate(timeout=400)
    assert command.returncode == 0, errors
    assert len(records(tmp_path / "undisturbed")) == 4
    assert records(tmp_path / "disturbed") == records(tmp_path / "undisturbed")


def test_a_sweep_without_a_cluster(tmp_path: Path) -> None:
    short = ["data/source=debug", "trainer.max_epochs=1", f"data.dir={REPOSITORY / 'data'}"]
    ray = ["hydra/launcher=ray", "hydra.launcher.side_by_side=2"]
    sweep = ["-m", *ray, *short, "seed=0,1,2"]
    command = start(tmp_path, "train", *sweep)
    shown, errors = command.communicate(timeout=200)
    assert command.returncode == 0 and not errors, shown + errors
    assert "3 of 3 done: seed=" in shown
    assert "mean ± half of its 95 % interval" in shown
    found, _ = read([tmp_path / "runs"])
    together = {*found.seed[found.device.str.endswith(", 2 runs side by side")]}
    assert len(found) == 3 and together == {0, 1}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_without_a_cluster_the_mistake_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.address: no [^\n]*$"):
        next(with_ray(lambda chunk: [], [[("seed=0",)]], address=address, threads=1))
