"""The whole study, over real images."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pandas
import pytest
from conftest import REPOSITORY, end_by, wait_for
from test_plan import study_of

from mnist_imbalance import study
from mnist_imbalance.errors import STOPPED
from mnist_imbalance.records.table import read
from mnist_imbalance.study import estimate
from mnist_imbalance.sweeps.plan import plan
from mnist_imbalance.training.folder import RunFolder

BATCHES = '"+trainer.limit_train_batches=20"'
TWO_RUNS = [
    "study.experiments=[per_label]",
    "study.extensions=[]",
    "study.seeds=[3]",
    f'study.overrides=["trainer.max_epochs=1",{BATCHES}]',
]
Study = Callable[..., tuple[int, str, str]]


def places(folder: Path) -> list[str]:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    runs, records, report = (folder / name for name in ("runs", "records", "report"))
    return [f"runs_dir={runs}", f"records_dirs=[{records}]", f"study.report_dir={report}"]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_imbalance.study", *places(folder), *overrides],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, as these tests may be, ignores it and passes that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def study_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Study:
    """The study's command line in this process: its exit code, what it prints, its errors."""

    def run(folder: Path, *overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["study", *places(folder), *overrides])
        code, message = 0, ""
        try:
            study.main()
        except SystemExit as stopped:
            code, message = (0, "") if stopped.code is None else (1, f"{stopped.code}\n")
        printed, errors = capfd.readouterr()
        return code, printed, errors + message

    return run


def test_a_study_trains_each_run_once_and_writes_its_report(
    study_here: Study, tmp_path: Path
) -> None:
    code, printed, _ = study_here(tmp_path / "dry", *TWO_RUNS, "dry_run=true")
    assert (code, "2 of 2 runs are missing\n" in printed) == (0, True)
    assert "missing: per_label model=cnn trainer.max_epochs=1" in printed
    assert not (tmp_path / "dry" / "runs").exists()

    code, printed, errors = study_here(tmp_path, *TWO_RUNS, "hydra/launcher=basic")
    assert code == 0, errors
    assert "0 of 2 runs done, 2 to come, 0 failed" in printed
    assert "2 of 2 done: model=cnn" in printed
    assert "2 of 2 runs done, 0 to come, 0 failed" in printed
    assert (tmp_path / "report" / "index.html").exists()
    found, _ = read([tmp_path / "runs"])
    assert {*found.model} == {"lstm", "cnn"} and {*found.seed} == {3}

    (tmp_path / "runs").rename(tmp_path / "records" / "moved")
    code, printed, _ = study_here(tmp_path, *TWO_RUNS)
    assert (code, "done: " in printed) == (0, False)
    assert not (tmp_path / "runs").exists()
    more = [*TWO_RUNS[:2], "study.seeds=[3,4]", TWO_RUNS[3]]
    code, printed, _ = study_here(tmp_path, *more, "dry_run=true")
    assert "per_label     4         2" in printed
    assert "2 of 4 runs are missing, 0:0" in printed


def test_weights_are_trained_in_a_second_wave(study_here: Study, tmp_path: Path) -> None:
    short = '["data/source=debug","trainer.max_epochs=1","trainer.accelerator=cpu"]'
    overrides = ["study.experiments=[weight_sweep,per_label_chosen]", "study.extensions=[]"]
    overrides += ["study.seeds=[0]", f"study.overrides={short}", "hydra/launcher=joblib"]
    code, printed, errors = study_here(tmp_path, *overrides)
    assert code == 0, errors
    waves = [line for line in printed.splitlines() if " runs done, " in line]
    assert waves == [
        "0 of 20 runs done, 20 to come, 0 failed",
        "18 of 20 runs done, 2 to come, 0 failed",
        "20 of 20 runs done, 0 to come, 0 failed",
    ]


def test_failures_stop_no_other_run_and_are_listed(study_here: Study, tmp_path: Path) -> None:
    overrides = [
        "hydra/launcher=basic",
        *TWO_RUNS[1:3],
        "study.experiments=[output_relu,per_label_chosen]",
        f'study.overrides=["trainer.max_epochs=1",{BATCHES},"optimizer.lr=1e30"]',
    ]
    code, printed, errors = study_here(tmp_path, *overrides)
    assert code == 1
    lines = errors.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("error: 6 runs"))
    assert len(lines[first:]) == 7
    assert sum("optimizer.lr: the" in line for line in lines[first:]) == 4
    assert sum("its weight sweep is not complete" in line for line in lines[first:]) == 2
    assert "Traceback" not in errors
    assert "0 of 6 runs done, 2 to come, 4 failed" in printed
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("study.seeds=[x]", "error: study.seeds.0: Input should be a valid integer"),
        ('study.overrides=["trainer.max_epochs=one"]', "error: trainer.max_epochs: Input should"),
        ('study.overrides=["data.keep=2"]', "error: data.keep: Input should be a fraction above 0"),
        ("hydra/launcher=submitit_local", "error: hydra/launcher: "),
        ("hydra.mode=MULTIRUN", "error: hydra.mode: a study has no sweep of its own"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    study_here: Study, tmp_path: Path, override: str, error: str
) -> None:
    code, printed, errors = study_here(tmp_path, *TWO_RUNS[:3], override)
    assert (code, printed) == (1, "")
    assert errors.startswith(error)
    assert len(errors.splitlines()) == 1
    assert not [*tmp_path.rglob("config.yaml")]


def test_two_studies_do_not_share_a_place(study_here: Study, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs").lock():
        code, _, errors = study_here(tmp_path, *TWO_RUNS)
    assert code == 1
    assert errors.startswith("error: runs_dir: another process is at work in ")


def test_the_estimate_knows_long_runs_from_short_ones() -> None:
    runs = plan(study_of("study.experiments=[data_sweep]", "study.extensions=[]"))
    original, imbalanced, *_, cnn = runs[:8]
    rows = [(original.config, 299.0, 1.0), (imbalanced.config, 99.0, 1.0)]
    records = pandas.DataFrame(rows, columns=["config", "seconds", "test_seconds"])
    assert estimate([imbalanced] * 4, records) == timedelta(seconds=400)
    assert estimate([cnn], records) == timedelta(seconds=200)


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_alike(study_here: Study, tmp_path: Path) -> None:
    overrides = [
        "study.experiments=[data_sweep]",
        "study.extensions=[]",
        "study.seeds=[0]",
        'study.overrides=["trainer.max_epochs=30","data/source=debug"]',
    ]
    for pattern, number, how in (
        ("last.ckpt", 1, signal.SIGKILL),
        ("result.json", 2, signal.SIGINT),
    ):
        begun = start(tmp_path / "killed", *overrides)
        wait_for(lambda: len(list((tmp_path / "killed").rglob(pattern))), number, begun)  # noqa: B023
        errors = end_by(begun, how)
        finished = list((tmp_path / "killed").rglob("result.json"))
        assert len(finished) < 8
    assert errors.splitlines()[-1] == STOPPED

    kept = {path: path.stat().st_mtime_ns for path in finished}
    for place in ("killed", "whole"):
        code, _, errors = study_here(tmp_path / place, *overrides, "hydra/launcher=basic")
        assert code == 0, errors
    assert kept == {path: path.stat().st_mtime_ns for path in finished}
    unequal = ["seconds", "test_seconds", "device", "folder", "file"]
    killed, whole = (
        read([tmp_path / place])[0].drop(columns=unequal).sort_values("config_hash").map(str)
        for place in ("killed", "whole")
    )
    assert len(whole) == 8
    assert killed.to_dict("records") == whole.to_dict("records")


@pytest.mark.slow
def test_the_quick_study_does_everything(tmp_path: Path) -> None:
    begun = start(tmp_path, "study=quick")
    printed, errors = begun.communicate(timeout=900)
    assert begun.returncode == 0, errors
    number = len(read([tmp_path / "runs"])[0])
    assert f"{number} of {number} runs done, 0 to come, 0 failed" in printed
    assert os.path.getsize(tmp_path / "report" / "report.md") > 1000
