"""What a sweep shows while it runs, whatever its launcher."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=basic"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"],
    ],
    ids=["basic", "joblib", "batched"],
)
def test_a_sweep_has_a_line_a_job_and_means_in_the_end(tmp_path: Path, launcher: list[str]) -> None:
    sweep = [sys.executable, "-m", "mnist_imbalance.train", "-m", "data/source=debug", *launcher]
    sweep += ["trainer.max_epochs=1", "trainer.accelerator=cpu"]
    sweep += ["loss=weighted", "loss.minority_weight=2,7", "seed=0,1"]
    done = subprocess.run(
        [*sweep, f"runs_dir={tmp_path}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"4 jobs, in {tmp_path}"
    of_jobs = [line for line in lines if " of 4 done: " in line]
    told = [re.sub(r", about \d:\d\d:\d\d left$", "", line) for line in of_jobs]
    jobs = [f"loss.minority_weight={weight} seed={seed}" for weight in (2, 7) for seed in (0, 1)]
    assert sorted(told) == [f"{number} of 4 done: {job}" for number, job in enumerate(jobs, 1)]
    if "batched" not in launcher[0]:
        assert of_jobs[0] != told[0]  # has an estimate
    assert of_jobs[-1] == told[-1]  # nothing is left
    tables = lines[len(of_jobs) :]
    assert [line.split()[:2] for line in tables if re.match(r" [27] ", line)] == [
        ["2", "2"], ["7", "2"], ["2", "2"], ["7", "2"],
    ]  # fmt: skip
    *_, mean, hint = tables
    assert mean == "mean ± half of its 95 % interval over n seeds"
    assert max(map(len, lines[:-1])) <= 80
    place = re.fullmatch(r"TensorBoard: tensorboard --logdir '(.*)'", hint)
    assert place
    logdir = (REPOSITORY / place[1]).resolve()
    runs = {file.relative_to(logdir).parts[0] for file in logdir.rglob("events*")}
    assert runs == {"loss.minority_weight=2", "loss.minority_weight=7"}
    assert "HYDRA" not in done.stdout + done.stderr
