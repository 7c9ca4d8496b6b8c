"""Sweeps with ``-m``, whatever the launcher; how sweeps and studies are stopped and go on."""

import os
import re
import signal
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
from conftest import Command, finish, kill, start, wait_until
from hydra.core.hydra_config import HydraConfig

from hydra_plugins.mnist_imbalance_launcher import SweepLauncher
from mnist_imbalance import train
from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import STOPPED, ConfigError
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import launch
from mnist_imbalance.sweeps.launch import Outcome, check_launcher, mean_over_seeds

Words = list[str]
SHORT = ["data/source=debug", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
BATCHED = ["hydra/launcher=batched", "hydra.launcher.on_cpu=true"]
LOCAL_SLURM = ["hydra/launcher=slurm", "hydra.launcher.cluster=local"]


@pytest.mark.parametrize(
    "launcher",
    [["hydra/launcher=basic"], JOBLIB, BATCHED, [*LOCAL_SLURM, "hydra.launcher.side_by_side=4"]],
    ids=["basic", "joblib", "batched", "submitit"],
)
def test_a_sweep_shows_jobs_and_means(command: Command, tmp_path: Path, launcher: Words) -> None:
    sweep = [*SHORT, "loss=weighted", "loss.minority_weight=2,7", "seed=0,1"]
    shown = command(train.main, "-m", *sweep, *launcher, f"runs_dir={tmp_path}")
    assert f"4 jobs, in {tmp_path}\n" in shown
    jobs = [f"loss.minority_weight={weight} seed={seed}" for weight in (2, 7) for seed in (0, 1)]
    assert sorted(re.findall(r"^\d of 4 done, val [\d.]+%: (.*)$", shown, re.MULTILINE)) == jobs
    found, damaged = read([tmp_path])
    assert (len(found), damaged) == (4, [])
    together = launcher[0] in ("hydra/launcher=batched", "hydra/launcher=slurm")
    assert found.device.str.endswith("4 runs side by side").all() == together
    assert not HydraConfig.initialized()

    weights = [2, 7] if "basic" in launcher[0] else {2, 7}  # others may end in any order
    rows = [line.split() for line in shown.splitlines() if re.match(r" +[27] ", line)]
    assert type(weights)(int(row[0]) for row in rows) == weights
    by_weight = found.groupby(found.config.map(lambda config: config["loss.minority_weight"]))
    # four accuracies on each of val and test, and two differences to the first row
    assert [(row[1], len(row)) for row in rows] == [("2", 2 + 8 * 3), ("2", 2 + 10 * 3)]
    [table] = tmp_path.rglob("sweep.csv")
    numbers = pd.read_csv(table).set_index("loss.minority_weight")
    for row in rows:
        own = by_weight.get_group(int(row[0]))
        assert " ".join(row[23:26]) == mean_over_seeds(100 * own.test_balanced_accuracy)
        assert numbers["test all"][int(row[0])] == pytest.approx(100 * own.test_accuracy.mean())
    first, second = (by_weight.get_group(int(row[0])).set_index("seed") for row in rows)
    less = 100 * (second.test_balanced_accuracy - first.test_balanced_accuracy)
    assert " ".join(rows[1][-3:]) == mean_over_seeds(less.sort_index())
    [place] = re.findall(r"^run folders .*: '(.*)'$", shown, re.MULTILINE)
    logs = [file.relative_to(Path(place).resolve()) for file in tmp_path.rglob("event*")]
    assert {log.parts[0] for log in logs} == {"loss.minority_weight=2", "loss.minority_weight=7"}


def test_a_sweeper_gets_scores_of_validation_images() -> None:
    results = [SimpleNamespace(val=SimpleNamespace(balanced_accuracy=score)) for score in (1, 0.5)]
    outcomes = [Outcome((), result) for result in results]
    launcher = SweepLauncher()
    launcher.config = compose_with(["hydra.job.config_name=train"], with_hydra=True)
    with patch.multiple(launch, launch=lambda *_: outcomes, show=lambda _: None):
        returned = launcher.launch([["seed=0"], ["seed=1"]], 0)
    assert [job.return_value for job in returned] == [1, 0.5]


def test_a_failed_job_stops_no_other(command: Command, tmp_path: Path) -> None:
    sweep = [*SHORT, "optimizer.lr=0.01,1e30,-1", f"runs_dir={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        command(train.main, "-m", *sweep, *JOBLIB)
    first, *lines = str(ended.value.code).splitlines()
    assert first == "error: 2 of 3 jobs failed"
    assert any("optimizer.lr=1e+30" in line and "optimizer.lr: the" in line for line in lines)
    assert any("optimizer.lr: Input should be greater than 0" in line for line in lines)
    assert len(read([tmp_path])[0]) == 1
    assert not [path for path in tmp_path.rglob("*optimizer.lr=-1*")]  # no empty folder


TWO_RUNS = ["-m", *SHORT[::2], "trainer.max_epochs=15", "seed=0,1"]
FOUR_RUNS = ["study.experiments=[weighted_by_count]", "study.extensions=[]", "study.seeds=[3]"]
FOUR_RUNS += ['study.overrides=["data/source=debug","trainer.max_epochs=15"]', "records_dirs=[]"]
ONE_BY_ONE = ["hydra/launcher=basic"]


@pytest.mark.parametrize(
    ("name", "words", "launcher", "again"),
    [
        pytest.param("train", TWO_RUNS, JOBLIB, ONE_BY_ONE, id="joblib"),
        pytest.param("train", TWO_RUNS, BATCHED, BATCHED, id="batched", marks=pytest.mark.slow),
        pytest.param("study", FOUR_RUNS, JOBLIB, ONE_BY_ONE, id="study", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_command_leaves_no_worker_resumes_and_ends_alike(
    command: Command, tmp_path: Path, name: str, words: Words, launcher: Words, again: Words
) -> None:
    given = [*words, *launcher, f"runs_dir={tmp_path / 'stopped'}"]
    process = start(name, *given)
    assert process.stdout and re.match("2 jobs, in|0 of 4 runs ended", process.stdout.readline())
    time.sleep(0.5)  # workers start
    os.killpg(process.pid, signal.SIGINT)
    _, errors = finish(process, code=1)
    assert errors[-1] == STOPPED
    assert not any("Traceback" in line for line in errors)
    process = start(name, *given)
    wait_until(lambda: [*tmp_path.rglob("last.ckpt")], process)
    kill(process)
    files = []
    for place in ("stopped", "whole"):
        main = import_module(f"mnist_imbalance.{name}").main
        command(main, *words, *again, f"runs_dir={tmp_path / place}")
        files.append(sorted((tmp_path / place).rglob("metrics.csv")))
    assert len(files[0]) == (2 if name == "train" else 4)
    for one, other in zip(*files, strict=True):
        assert one.read_text() == other.read_text()


@pytest.mark.parametrize("option", ["--config-dir={}", "hydra.searchpath=['file://{}']"])
def test_jobs_search_where_the_command_does(command: Command, tmp_path: Path, option: str) -> None:
    file = tmp_path / "own" / "loss" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: mnist_imbalance.methods.losses.focal\ngamma: 1.0\n")
    runs = tmp_path / "runs"
    given = [option.format(tmp_path / "own"), *SHORT, "loss=mine", "seed=0,1", f"runs_dir={runs}"]
    command(train.main, "-m", *given, *JOBLIB)
    assert {*read([runs])[0].loss} == {"mine"}


@pytest.mark.parametrize(
    ("name", "side_by_side", "error"),
    [
        ("slurm", -1, r"^hydra\.launcher\.side_by_side: must be above 0"),
        ("ray", None, r"^hydra/launcher: ray is not installed; pip .* '\.\[ray\]'$"),
        ("other", 1, "^hydra/launcher: must be one of basic, batched, joblib, slurm, ray, got"),
    ],
)
def test_a_launcher_that_cannot_work_is_one_line(name: str, side_by_side: Any, error: str) -> None:
    choices, launcher = {"hydra/launcher": name}, {"side_by_side": side_by_side}
    hydra: Any = SimpleNamespace(runtime=SimpleNamespace(choices=choices), launcher=launcher)
    without_ray = patch.object(launch, "find_spec", {"submitit": True}.get)
    with without_ray, pytest.raises(ConfigError, match=error):
        check_launcher(hydra)
