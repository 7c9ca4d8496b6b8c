"""The whole study, over real images."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import REPOSITORY, end_by, wait_for
from handmade import scores, study_of, write_record

from mnist_imbalance import study
from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import STOPPED
from mnist_imbalance.jobs import launch
from mnist_imbalance.runs import RunFolder, find_records
from mnist_imbalance.study import estimate_left

EPOCH = ["model=cnn", "trainer.max_epochs=1", "+trainer.limit_train_batches=2"]
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


def finish(folder: Path, *overrides: str) -> tuple[int, str, str]:
    begun = start(folder, *overrides)
    printed, errors = begun.communicate(timeout=500)
    return begun.returncode, printed, errors


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
    code, printed, _ = study_here(tmp_path, *TWO_RUNS, "hydra/launcher=basic")
    assert code == 0
    assert "0 of 2 runs done, 2 to come, 0 failed" in printed
    assert "2 of 2 runs done, 0 to come, 0 failed" in printed
    assert "done: experiment=per_label model=cnn" in printed
    assert (tmp_path / "report" / "index.html").exists()
    records = find_records([tmp_path / "runs"])
    assert {result.model for result in records.results.values()} == {"lstm", "cnn"}
    assert {result.seed for result in records.results.values()} == {3}

    (tmp_path / "runs").rename(tmp_path / "records" / "moved")
    code, printed, _ = study_here(tmp_path, *TWO_RUNS)
    assert code == 0
    assert "done: " not in printed
    assert not (tmp_path / "runs").exists()


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
        ("records_dirs=[nowhere]", "error: records_dirs: there is no folder nowhere"),
        ("study.report_dir=README.md/report", "error: study.report_dir: "),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    study_here: Study, tmp_path: Path, override: str, error: str
) -> None:
    code, printed, errors = study_here(tmp_path, *TWO_RUNS[:3], override)
    assert code == 1
    assert errors.startswith(error)
    assert len(errors.splitlines()) == 1
    assert not printed
    assert not (tmp_path / "runs").exists()


def test_the_config_of_a_study_is_shown(study_here: Study, tmp_path: Path) -> None:
    code, printed, errors = study_here(tmp_path, "study=quick", "--cfg", "job")
    assert (code, errors) == (0, "")
    assert "report_dir: " in printed
    assert "trainer.max_epochs=1" in printed


def test_two_studies_do_not_share_a_place(study_here: Study, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs").lock():
        code, _, errors = study_here(tmp_path, *TWO_RUNS)
    assert code == 1
    assert errors.startswith("error: runs_dir: another process is at work in ")


def test_ctrl_c_is_answered_in_one_line_while_the_workers_start(tmp_path: Path) -> None:
    begun = start(tmp_path, *TWO_RUNS)
    assert begun.stdout
    assert begun.stdout.readline().startswith("0 of 2 runs done")
    time.sleep(0.5)
    os.killpg(begun.pid, signal.SIGINT)
    _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 1
    assert errors.splitlines()[-1] == STOPPED
    assert "Traceback" not in errors


def test_what_jobs_give_back(tmp_path: Path) -> None:
    keys = compose_with(["hydra/launcher=basic"], name="study", with_hydra=True)
    broken = [
        "model._target_=broken_model.Broken",
        "~model.channels",
        "~model.features",
        "~model.head",
    ]
    jobs = [[*EPOCH, *broken], EPOCH]
    failed, done = launch(jobs, f"{tmp_path}/it's", keys.hydra.launcher)
    assert failed["failure"] == "TwoPartsError: out of order"
    assert failed["val_balanced_accuracy"] is None
    assert done["failure"] is None
    result = RunFolder(Path(done["folder"])).result()
    assert result
    assert tmp_path / "it's" in Path(done["folder"]).parents
    assert done["val_balanced_accuracy"] == pytest.approx(result.val.accuracy)  # 500 of each label
    assert done["test"]["0-4"] == result.test.accuracy_of(range(5))


def test_a_study_over_a_clusters_launcher(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    code, printed, errors = finish(tmp_path, *TWO_RUNS, "hydra/launcher=submitit_local")
    assert code == 0, errors
    assert "2 of 2 runs done, 0 to come, 0 failed" in printed
    assert len(find_records([tmp_path / "runs"]).results) == 2


def test_the_estimate_knows_long_runs_from_short_ones(tmp_path: Path) -> None:
    _, runs = study_of("study.experiments=[data_sweep]", "study.extensions=[]", "study.seeds=[0]")
    original, imbalanced, *_, cnn = runs
    assert estimate_left(runs, [], elapsed=9) is None
    for run in (original, imbalanced):
        write_record(tmp_path, run, scores([0.5] * 10))
    records = find_records([tmp_path]).results
    long, short = (
        records[run.config_hash].model_copy(
            update={"seconds": records[run.config_hash].seconds.model_copy(update={"fit": fit})}
        )
        for run, fit in ((original, 299.0), (imbalanced, 99.0))
    )
    both = [long, short]  # 400 s, which took 200 s
    assert estimate_left([imbalanced] * 4, both, elapsed=200) == timedelta(seconds=200)
    assert estimate_left([cnn], both, elapsed=400) == timedelta(seconds=200)


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
        end_by(begun, how)
        finished = list((tmp_path / "killed").rglob("result.json"))
        assert len(finished) < 8

    kept = {path: path.stat().st_mtime_ns for path in finished}
    for place in ("killed", "whole"):
        code, _, errors = study_here(tmp_path / place, *overrides, "hydra/launcher=basic")
        assert code == 0, errors
    assert kept == {path: path.stat().st_mtime_ns for path in finished}
    killed, whole = (find_records([tmp_path / place]) for place in ("killed", "whole"))
    assert killed.results.keys() == whole.results.keys()
    assert len(whole.results) == 8
    for key, result in whole.results.items():
        assert killed.results[key].test == result.test
        assert killed.results[key].val == result.val
        assert (killed.folders[key] / "metrics.csv").read_text() == (
            whole.folders[key] / "metrics.csv"
        ).read_text()


@pytest.mark.slow
def test_the_quick_study_does_everything(tmp_path: Path) -> None:
    code, printed, errors = finish(tmp_path, "study=quick")
    assert code == 0, errors
    assert "53 of 53 runs done" in printed
    report = (tmp_path / "report" / "report.md").read_text()
    assert "53 of 53" not in report  # nothing is missing, so nothing is said
    assert "missing" not in report
    assert len(find_records([tmp_path / "runs"]).results) == 53
