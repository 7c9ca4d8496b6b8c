"""The whole study, over real images."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import end_by, wait_for
from test_launch import start

from mnist_imbalance import study
from mnist_imbalance.errors import STOPPED
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps.launch import Outcome
from mnist_imbalance.training.folder import lock

NONE_ELSE = ["study.extensions=[]", "study.seeds=[3]"]
TWO_RUNS = [*NONE_ELSE, "study.experiments=[per_label]"]
SHORT = '"data/source=debug","trainer.max_epochs=1","trainer.accelerator=cpu"'
Study = Callable[..., tuple[int, str, str]]


def places(folder: Path) -> list[str]:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    runs, records, report = (folder / name for name in ("runs", "records", "report"))
    return [f"runs_dir={runs}", f"records_dirs=[{records}]", f"study.report_dir={report}"]


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
    short = f"study.overrides=[{SHORT}]"
    code, printed, _ = study_here(tmp_path / "dry", *TWO_RUNS, short, "dry_run=true")
    assert code == 0
    assert "0 of 2 runs done, 2 to come, 0 failed\n" in printed
    assert "missing: per_label model=cnn data/source=debug trainer.max_epochs=1" in printed
    assert not (tmp_path / "dry" / "runs").exists()

    code, printed, errors = study_here(tmp_path, *TWO_RUNS, short, "hydra/launcher=basic")
    assert code == 0, errors
    assert "0 of 2 runs done, 2 to come, 0 failed" in printed
    assert "2 of 2 done: model=cnn" in printed
    assert "2 of 2 runs done, 0 to come, 0 failed" in printed
    assert (tmp_path / "report" / "index.html").exists()
    found, _ = read([tmp_path / "runs"])
    assert {*found.model} == {"lstm", "cnn"} and {*found.seed} == {3}

    (tmp_path / "runs").rename(tmp_path / "records" / "moved")
    more = [*TWO_RUNS, "study.seeds=[3,4]", short]
    code, printed, _ = study_here(tmp_path, *more, "dry_run=true")
    assert (code, "done: " in printed) == (0, False)
    assert "2 of 4 runs done, 2 to come, 0 failed\n" in printed
    assert "per_label     4         2\n" in printed
    assert printed.endswith(" one by one, as the records of each overlay took\n")


def test_what_waits_is_trained_last_and_failures_stop_no_other_run(
    study_here: Study, tmp_path: Path
) -> None:
    file = tmp_path / "own" / "experiment" / "few.yaml"
    file.parent.mkdir(parents=True)
    params = "{model: lstm, loss.minority_weight: '2,3', optimizer.lr: '0.001,1e30'}"
    file.write_text(
        "# @package _global_\ndefaults: [override /loss: weighted]\n"
        f"hydra: {{sweeper: {{params: {params}}}}}\n"
    )
    overrides = [
        f"hydra.searchpath=['file://{file.parents[1]}']",
        "study.experiments=[few,per_label_chosen]",
    ]
    overrides += [*NONE_ELSE, "study.weights=[2,3]", f"study.overrides=[{SHORT}]"]
    code, printed, errors = study_here(tmp_path, *overrides, "hydra/launcher=basic")
    assert code == 1
    assert re.findall(r"\d of \d runs done.*", printed) == [
        "0 of 6 runs done, 6 to come, 0 failed",
        "2 of 6 runs done, 2 to come, 2 failed",
        "3 of 6 runs done, 1 to come, 2 failed",
    ]
    lines = errors.splitlines()[errors.splitlines().index("error: 3 runs failed") + 1 :]
    assert sum("optimizer.lr: the" in line for line in lines) == 2
    assert sum("its weight sweep is not complete" in line for line in lines) == 1
    assert "Traceback" not in errors
    assert (tmp_path / "report").exists()
    found, _ = read([tmp_path / "runs"])
    [chosen] = found.config[found.loss == "per_label_chosen"]
    assert {*chosen["loss.weights"]} <= {1, 2, 3}


def test_a_method_whose_settings_fail_is_named(
    study_here: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "launch", lambda jobs, _: [Outcome(job, "broken") for job in jobs])
    overrides = [*NONE_ELSE, "study.experiments=[methods_cnn]", 'study.tuned_at=["data.keep=0.1"]']
    mine = "+study.methods.mine=['optimizer.lr=0.1,1']"
    code, _, errors = study_here(tmp_path, *overrides, mine)
    assert code == 1
    reasons = [line.rpartition(": ")[2] for line in errors.splitlines()]
    assert reasons[:3] == ["3 runs failed", "broken", "broken"]
    assert reasons[3:] == ["a run that decides its setting has no record"]


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("study.seeds=[x]", "error: study.seeds.0: Input should be a valid integer"),
        ('study.overrides=["trainer.max_epochs=one"]', "error: trainer.max_epochs: Input should"),
        ("records_dirs=[nowhere]", "error: records_dirs: there is no folder nowhere;"),
        ("study.report_dir=README.md/report", "error: study.report_dir: /"),
        ("hydra.mode=MULTIRUN", "error: hydra.mode: a study has no sweep of its own"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    study_here: Study, tmp_path: Path, override: str, error: str
) -> None:
    code, printed, errors = study_here(tmp_path, *TWO_RUNS, override)
    assert (code, printed) == (1, "")
    assert errors.startswith(error)
    assert len(errors.splitlines()) == 1
    assert not [*tmp_path.rglob("config.yaml")]


def test_two_studies_do_not_share_a_place(study_here: Study, tmp_path: Path) -> None:
    with lock(tmp_path / "runs"):
        code, _, errors = study_here(tmp_path, *TWO_RUNS)
    assert code == 1
    assert errors.startswith("error: runs_dir: another process is at work in ")


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_alike(study_here: Study, tmp_path: Path) -> None:
    overrides = [*NONE_ELSE, "study.experiments=[weighted_by_count]"]
    overrides += ['study.overrides=["trainer.max_epochs=15","data/source=debug"]']
    for pattern, how in (("last.ckpt", signal.SIGKILL), ("result.json", signal.SIGINT)):
        begun = start("study", *places(tmp_path / "killed"), *overrides)
        wait_for(lambda: len([*(tmp_path / "killed").rglob(pattern)]), 1, begun)  # noqa: B023
        errors = end_by(begun, how)
        finished = list((tmp_path / "killed").rglob("result.json"))
        assert len(finished) < 4
    assert errors.splitlines()[-1] == STOPPED

    kept = {path: path.stat().st_mtime_ns for path in finished}
    tables = []
    for place in ("killed", "whole"):
        code, _, errors = study_here(tmp_path / place, *overrides, "hydra/launcher=basic")
        assert code == 0, errors
        unequal = ["seconds", "test_seconds", "device", "folder", "file"]
        table = read([tmp_path / place])[0].drop(columns=unequal)
        tables.append(table.sort_values("config_hash").map(str).to_dict("records"))
    assert kept == {path: path.stat().st_mtime_ns for path in finished}
    assert len(tables[0]) == 4
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_the_quick_study_does_everything(study_here: Study, tmp_path: Path) -> None:
    given = ["study=quick", f"study.overrides=[{SHORT}]"]
    code, printed, errors = study_here(tmp_path, *given, "hydra/launcher=joblib")
    assert code == 0, errors
    number = len(read([tmp_path / "runs"])[0])
    assert f"{number} of {number} runs done, 0 to come, 0 failed" in printed
    assert os.path.getsize(tmp_path / "report" / "report.md") > 1000
