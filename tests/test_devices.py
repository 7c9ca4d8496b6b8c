"""Runs on several devices: real processes, on the CPU."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, wait_until
from torch import nn

from mnist_imbalance import train
from mnist_imbalance.checkpoints import epochs_done
from mnist_imbalance.devices import check_model, in_processes, rank
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.runs import Result, RunFolder

Train = Callable[..., None]
RUN = [
    "data/source=debug",  # 440 images
    "data.batch_size=73",  # cannot be halved; the last batch has two
    "mix=mixup",  # of a batch's images
    "loss=weighted",  # divided by the sum of a batch's weights
    "optimizer.lr=0.05",
]


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch) -> Train:
    """The training command line, its runs below a folder."""

    def run(runs: Path, *overrides: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train", *RUN, *overrides, f"runs_dir={runs}"])
        train.main()

    return run


def the_run(runs: Path, epochs: int) -> tuple[RunFolder, Result]:
    [file] = runs.rglob(f"trainer.max_epochs={epochs}/**/result.json")
    folder = RunFolder(file.parent)
    result = folder.result()
    assert result
    return folder, result


@pytest.mark.slow
def test_two_devices_reach_what_one_does_and_go_on(
    run_in: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both, one = tmp_path / "both", tmp_path / "one"
    run_in(both, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2")
    capfd.readouterr()
    run_in(both, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=3")
    printed = capfd.readouterr().out
    assert printed.count("goes on from") == 1  # one process tells
    assert printed.count("test accuracy") == 1
    run_in(one, "trainer=cpu", "trainer.max_epochs=3")
    (folder, ours), (their_folder, theirs) = the_run(both, 3), the_run(one, 3)
    assert ours.device.endswith(", 2 processes")
    assert (ours.config_hash, ours.steps) == (theirs.config_hash, theirs.steps)
    for split in ("train", "val", "test"):
        scores, expected = getattr(ours, split), getattr(theirs, split)
        assert scores.loss == pytest.approx(expected.loss, rel=1e-3)
        assert scores.accuracy == pytest.approx(expected.accuracy, abs=0.005)
        assert [sum(row) for row in scores.confusion] == [sum(row) for row in expected.confusion]
    weights = [
        torch.load(each.last_checkpoint, weights_only=True)["state_dict"]
        for each in (folder, their_folder)
    ]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)
    files, their_files = (
        {path.relative_to(each.path).parts[0] for path in each.path.rglob("*") if path.is_file()}
        for each in (folder, their_folder)
    )
    assert files == their_files
    events = (folder.path / "tensorboard").glob("events*")
    assert len({path.suffixes[-2] for path in events}) == 1  # of one process


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_alike(run_in: Train, tmp_path: Path) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=60"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    command = [sys.executable, "-m", "mnist_imbalance.train", *RUN, *two, f"runs_dir={killed}"]
    begun = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: next(killed.rglob("last.ckpt"), None), begun)
    begun.kill()
    begun.communicate(timeout=60)  # the error stream ends when no process holds it any more
    assert not list(killed.rglob("result.json"))
    [checkpoint] = killed.rglob("last.ckpt")
    assert 0 < epochs_done(checkpoint) < 60
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    [first, *_] = re.findall(r"(\d+)/60 epochs", again.stderr)
    assert int(first) > 0
    run_in(undisturbed, *two)
    (folder, ours), (their_folder, theirs) = the_run(killed, 60), the_run(undisturbed, 60)
    assert (ours.train, ours.val, ours.test) == (theirs.train, theirs.val, theirs.test)
    assert folder.metrics_file.read_text() == their_folder.metrics_file.read_text()


@pytest.mark.slow
def test_a_failure_on_two_devices_is_one_line(
    run_in: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^error: optimizer\.lr: the (train|val) loss is "):
        run_in(tmp_path, "trainer.devices=2", "trainer.accelerator=cpu", "optimizer.lr=1e30")
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert "Warning" not in printed
    assert not list(tmp_path.rglob("config.yaml"))


def end_or_wait() -> None:
    if rank() == 1:
        os._exit(1)
    torch.multiprocessing.Event().wait()


@pytest.mark.slow
def test_where_one_process_is_killed_the_others_end() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.devices: process 1 of 2 was ended$"):
        in_processes(2, end_or_wait)


def test_a_model_that_normalizes_by_the_batch_is_refused() -> None:
    check_model(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))
    with pytest.raises(ConfigError, match=r"^trainer\.devices: must be 1, the model normalizes"):
        check_model(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))


def test_a_worker_of_joblib_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.parent_process", object)
    with pytest.raises(ConfigError, match=r"^trainer\.devices: must be 1 under hydra/launcher"):
        in_processes(2, rank)
