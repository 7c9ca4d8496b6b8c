"""A search over real images, with real trainings of a second."""

import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from conftest import end_by, wait_for
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState
from test_launch import start

from mnist_imbalance import train
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import search
from mnist_imbalance.sweeps.search import as_overrides, distribution

SMALL = ["model=cnn", "loss=weighted", "data/source=debug", "optimizer=adam", "logger=none"]
RATE = "optimizer.lr: {low: 0.001, high: 0.01}"
SPACE = f"search.space={{loss.minority_weight: {{low: 1.0, high: 50, log: true}}, {RATE}}}"
Search = Callable[..., str]


def trials_below(runs: Path) -> list[FrozenTrial]:
    [file] = runs.glob("search/*/trials.log")
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name="search", storage=storage).trials


def sequence(runs: Path) -> list[tuple[object, ...]]:
    """What was asked and told, in order."""
    return [(each.number, each.params, each.value, each.state) for each in trials_below(runs)]


@pytest.fixture
def search_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Search:
    """The search's command line in this process, which returns what it prints."""

    def run(runs: Path, *overrides: str, epochs: int = 1) -> str:
        given = [*SMALL, f"trainer.max_epochs={epochs}", "hydra/launcher=basic", f"runs_dir={runs}"]
        monkeypatch.setattr(sys, "argv", ["search", *given, *overrides])
        search.main()
        return capsys.readouterr().out

    return run


def test_a_killed_search_goes_on_and_ends_alike(
    search_here: Search,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    given = [SPACE, "search.budget=4", "search.batch=2"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = [
        *SMALL,
        f"runs_dir={killed}",
        *given,
        "trainer.max_epochs=8",
        "hydra.launcher.n_jobs=1",
    ]
    process = start("search", *words)
    wait_for(lambda: len([*killed.rglob("result.json")]), 3, process)  # one of the second batch
    end_by(process, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in killed.rglob("result.json")}
    assert len(kept) == 3
    states = [trial.state.name for trial in trials_below(killed)]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING"]

    for runs in (killed, whole):
        printed = search_here(runs, *given, epochs=8)
        assert "4 of 4 settings tried\n" in printed
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert sequence(killed) == sequence(whole)

    found, _ = read([whole])
    assert "test acc" not in printed
    rows = re.findall(r"^ *([\d.]+) +([\d.]+) +[\d.]+ +COMPLETE$", printed, re.MULTILINE)
    scores = [float(score) for score, _ in rows]
    assert scores == pytest.approx(sorted(found.val_balanced_accuracy, reverse=True))
    best = found.config[found.val_balanced_accuracy.idxmax()]
    assert float(rows[0][1]) == pytest.approx(best["loss.minority_weight"])
    words = shlex.split(printed.splitlines()[-1].removeprefix("the best: "))
    assert words[:3] == ["python", "-m", "mnist_imbalance.train"]
    monkeypatch.setattr(sys, "argv", words[2:])
    train.main()
    assert "finished before, nothing trained" in capsys.readouterr().out


def test_seeds_count_by_their_mean_and_a_larger_budget_goes_on(
    search_here: Search, tmp_path: Path
) -> None:
    given = ["search.space={loss: [plain, focal]}", "search.seeds=[0,1]", "search.batch=2"]
    for budget in (2, 3):
        search_here(tmp_path, *given, f"search.budget={budget}")
        assert len(trials_below(tmp_path)) == budget
    found, _ = read([tmp_path])
    assert {*found.seed} == {0, 1}
    for trial in trials_below(tmp_path):
        reached = found.val_balanced_accuracy[found.loss == trial.params["loss"]]
        assert len(reached) == 2
        assert trial.value == fmean(reached)


def test_a_failed_run_fails_its_setting_alone(search_here: Search, tmp_path: Path) -> None:
    given = ["search.space={optimizer.lr: [0.01, 1e30]}", "search.budget=6", "search.batch=3"]
    printed = search_here(tmp_path, *given)
    states = {each.params["optimizer.lr"]: each.state for each in trials_below(tmp_path)}
    assert states == {0.01: TrialState.COMPLETE, 1e30: TrialState.FAIL}
    assert "failed: optimizer.lr=1e+30: optimizer.lr: " in printed
    assert "optimizer.lr=0.01" in printed.splitlines()[-1]


def test_whole_numbers_stay_whole_and_text_is_as_on_the_command_line() -> None:
    assert distribution("a", {"low": 1, "high": 50, "log": True}) == IntDistribution(
        1, 50, log=True
    )
    assert distribution("b", {"low": 1.0, "high": 50}) == FloatDistribution(1, 50)
    stepped = distribution("c", {"low": 0, "high": 1, "step": 0.25})
    assert stepped == FloatDistribution(0, 1, step=0.25)
    choices: list[str | float | bool | None] = ["[6,7]", 1e-5, None, True, "plain"]
    assert distribution("e", choices) == CategoricalDistribution(choices)
    written = as_overrides({str(number): each for number, each in enumerate(choices)})
    assert written == ["0=[6,7]", "1=1e-05", "2=null", "3=true", "4=plain"]


KEY = "loss.minority_weight"
MISTAKES = {  # what is written, and how its error begins
    "seed=0": "search.space: Input should be a valid dictionary",
    f"search.space={{{KEY}: []}}": f"search.space.{KEY}: ",
    f"search.space={{{KEY}: 5}}": f"search.space.{KEY}.list.*: Input should be a valid list",
    f"search.space={{{KEY}: {{low: 1}}}}": f"search.space.{KEY}: .* argument: 'high'",
    f"search.space={{{KEY}: {{low: 5, high: 1}}}}": f"search.space.{KEY}: `low <= high` must hold",
    f"search.space={{{KEY}: {{low: 1, high: x}}}}": f"search.space.{KEY}: ",
    "search.space={no.such: [1]}": "Could not override 'no.such'",
    "search.space={loss: [plain,bogus]}": "loss: no choice bogus; there are ",
    "search.space={loss: [weighted,ldam]}": "model.head: ldam needs cosine",
    "search.space={optimizer.lr: {low: -1.0, high: 1}}": "optimizer.lr: Input should be greater",
    "experiment=weight_sweep": "experiment: an overlay that sweeps cannot be searched",
    "hydra.mode=MULTIRUN": "hydra.mode: a search has no sweep of its own",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_trained(
    search_here: Search, tmp_path: Path, override: str, message: str
) -> None:
    space = [] if override.startswith(("search.space", "seed")) else [SPACE]
    with pytest.raises(SystemExit, match=f"^error: {message}[^\n]*$"):
        search_here(tmp_path / "runs", *space, override)
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and "multirun" not in str(path)
    ]
