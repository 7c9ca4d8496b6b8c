"""A search over real images, with real trainings of a second."""

import re
import shlex
from functools import partial
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from conftest import Command, kill, start, wait_until
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from mnist_imbalance import train
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import search
from mnist_imbalance.sweeps.search import as_overrides, distribution

SMALL = ["model=cnn", "loss=weighted", "data/source=debug", "optimizer=adam", "logger=none"]
RATE = "optimizer.lr: {low: 0.001, high: 0.01}"
SPACE = f"search.space={{loss.minority_weight: {{low: 1.0, high: 50, log: true}}, {RATE}}}"


@pytest.fixture
def search_here(command: Command) -> Command:
    """The search's command line in this process, which returns what it prints."""
    return partial(command, search.main, *SMALL, "hydra/launcher=basic")


def trials_below(runs: Path) -> list[FrozenTrial]:
    [file] = runs.glob("search/*/trials.log")
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name="search", storage=storage).trials


def test_a_killed_search_resumes(search_here: Command, command: Command, tmp_path: Path) -> None:
    given = [SPACE, "search.budget=4", "search.batch=2", "trainer.max_epochs=8"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start("search", *SMALL, *given, "hydra.launcher.n_jobs=1", f"runs_dir={killed}")
    wait_until(lambda: len([*killed.rglob("result.json")]) >= 3, process)  # one of the second batch
    kill(process)
    kept = {path: path.stat().st_mtime_ns for path in killed.rglob("result.json")}
    assert len(kept) == 3
    states = [trial.state.name for trial in trials_below(killed)]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING"]

    asked_and_told = []
    for runs in (killed, whole):
        printed = search_here(*given, f"runs_dir={runs}")
        assert "4 of 4 settings tried\n" in printed
        trials = [(each.number, each.params, each.value, each.state) for each in trials_below(runs)]
        asked_and_told.append(trials)
    assert asked_and_told[0] == asked_and_told[1]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}

    found, _ = read([whole])
    assert "test acc" not in printed
    rows = re.findall(r"^ *([\d.]+) +([\d.]+) +[\d.]+ +COMPLETE$", printed, re.MULTILINE)
    scores = [float(score) for score, _ in rows]
    assert scores == pytest.approx(sorted(found.val_balanced_accuracy, reverse=True), rel=1e-3)
    assert re.search(r"^ *val balanced +minority_weight +lr +state$", printed, re.MULTILINE)
    best = found.config[found.val_balanced_accuracy.idxmax()]
    assert float(rows[0][1]) == pytest.approx(best["loss.minority_weight"], rel=1e-3)
    python, option, module, *words = shlex.split(printed.rpartition("the best: ")[2])
    assert (python, option, module) == ("python", "-m", "mnist_imbalance.train")
    assert "finished before, nothing trained" in command(train.main, *words)


def test_seeds_are_averaged_and_a_budget_can_grow(search_here: Command, tmp_path: Path) -> None:
    given = ["search.space={loss: [plain, focal]}", "search.seeds=[0,1]", "search.batch=2"]
    given += ["trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    for budget in (2, 3):
        search_here(*given, f"search.budget={budget}")
        assert len(trials_below(tmp_path)) == budget
    found, _ = read([tmp_path])
    assert {*found.seed} == {0, 1}
    for trial in trials_below(tmp_path):
        reached = found.val_balanced_accuracy[found.loss == trial.params["loss"]]
        assert len(reached) == 2
        assert trial.value == fmean(reached)


def test_a_failed_run_fails_its_setting_alone(search_here: Command, tmp_path: Path) -> None:
    given = ["search.space={optimizer.lr: [0.01, 1e30]}", "search.budget=6", "search.batch=3"]
    printed = search_here(*given, "trainer.max_epochs=1", f"runs_dir={tmp_path}")
    states = {each.params["optimizer.lr"]: each.state for each in trials_below(tmp_path)}
    assert states == {0.01: TrialState.COMPLETE, 1e30: TrialState.FAIL}
    assert "failed: optimizer.lr=1e+30: optimizer.lr: " in printed
    assert "optimizer.lr=0.01" in printed.splitlines()[-1]


def test_whole_numbers_stay_whole_and_text_is_as_on_the_command_line() -> None:
    whole = distribution("a", {"low": 1, "high": 50, "log": True})
    assert whole == IntDistribution(1, 50, log=True)
    assert distribution("b", {"low": 1.0, "high": 50}) == FloatDistribution(1, 50)
    stepped = distribution("c", {"low": 0, "high": 1, "step": 0.25})
    assert stepped == FloatDistribution(0, 1, step=0.25)
    choices: list[str | float | bool | None] = ["[6,7]", 1e-5, None, True, "plain"]
    assert distribution("e", choices) == CategoricalDistribution(choices)
    written = as_overrides({str(number): each for number, each in enumerate(choices)})
    assert written == ["0=[6,7]", "1=1e-05", "2=null", "3=true", "4=plain"]
