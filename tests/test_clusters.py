"""What docs/clusters.md promises, with processes of this machine in place of Slurm's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_imbalance.config import compose_with

pytest.importorskip("submitit")


@pytest.mark.parametrize("name", ["train", "study"])
def test_slurm_is_submitits_launcher_with_a_core_a_job(name: str) -> None:
    overrides = ["hydra/launcher=slurm", "hydra.launcher.partition=short"]
    launcher = compose_with(overrides, name=name, with_hydra=True).hydra.launcher
    theirs = compose_with(["hydra/launcher=submitit_slurm"], name=name, with_hydra=True)
    ours = {"cpus_per_task": 1, "mem_gb": 4, "timeout_min": 60, "partition": "short"}
    ours |= {"_target_": "hydra_plugins.mnist_imbalance_slurm.SlurmLauncher"}
    ours |= {"side_by_side": 1, "max_num_timeout": 100}
    ours |= {"additional_parameters": {"requeue": True}}
    assert launcher == {**theirs.hydra.launcher, **ours}


def test_a_sweep_over_a_clusters_launcher(tmp_path: Path) -> None:
    sweep = [sys.executable, "-m", "mnist_imbalance.train", "-m", "data/source=debug", "seed=0,1"]
    sweep += ["hydra/launcher=submitit_local", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    done = subprocess.run(
        [*sweep, f"runs_dir={tmp_path}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mean ± half of its 95 % interval over n seeds" in done.stdout
    assert len(list(tmp_path.rglob("result.json"))) == 2
    logs = [log.read_text() for log in (tmp_path / ".submitit").rglob("*_log.out")]
    assert sum("1 of 2 done: seed=0" in log for log in logs) == 1
    assert sum("2 of 2 done: seed=1" in log for log in logs) == 1


@pytest.mark.parametrize("command", [["train", "-m", "seed=0,1"], ["study", "study=quick"]])
def test_without_slurm_the_mistake_is_one_line(tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [
            *[sys.executable, "-m", f"mnist_imbalance.{command[0]}", *command[1:]],
            *["hydra/launcher=slurm", f"runs_dir={tmp_path / 'runs'}"],
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: hydra/launcher: there is no srun here; start this where Slurm is"
    ]
    assert not list(tmp_path.rglob("result.json"))


def test_without_submitit_the_mistake_is_one_line(tmp_path: Path) -> None:
    missing = ["submitit", "hydra_plugins.hydra_submitit_launcher"]
    lines = ["import sys", *(f"sys.modules['{each}'] = None" for each in missing)]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    (tmp_path / "srun").touch(0o755)
    usual = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [
            *[sys.executable, "-m", "mnist_imbalance.train", "-m", "hydra/launcher=slurm"],
            *["hydra.launcher.partition=short", "seed=0,1"],
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**usual, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
    )
    assert done.returncode == 1
    said = "hydra/launcher: slurm is not installed; pip install -e '.[slurm]'"
    assert done.stderr.splitlines() == [f"error: {said}"]


def test_a_run_where_slurm_is_needs_no_job(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    done = subprocess.run(
        [
            *[sys.executable, "-m", "mnist_imbalance.train", "data/source=debug"],
            *["trainer.max_epochs=1", "trainer.accelerator=cpu", f"runs_dir={tmp_path}"],
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0
    assert "srun" not in done.stderr


def test_a_command_does_without_submitit_otherwise() -> None:
    script = "import sys; from mnist_imbalance.config import compose_with; compose_with([]); "
    script += "import mnist_imbalance.fit; assert 'submitit' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)
