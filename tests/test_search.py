"""A search over real images, with real trainings of a second."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from conftest import REPOSITORY, end_by, wait_for
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mnist_imbalance import train
from mnist_imbalance.records.table import read
from mnist_imbalance.sweeps import search
from mnist_imbalance.sweeps.search import as_overrides, distribution, open_search

SMALL = ["model=cnn", "loss=weighted", "data/source=debug", "optimizer=adam", "logger=none"]
WEIGHT = "loss.minority_weight: {low: 1.0, high: 50, log: true}"
RATE = "optimizer.lr: {low: 0.001, high: 0.01}"
SPACE = f"search.space={{{WEIGHT}, {RATE}}}"
Search = Callable[..., str]


def trials_below(runs: Path) -> list[FrozenTrial]:
    [file] = runs.glob("search/*/trials.db")
    return optuna.load_study(study_name="search", storage=f"sqlite:///{file}").trials


def sequence(runs: Path) -> list[tuple[object, ...]]:
    """What was asked and told, in order."""
    return [(each.number, each.params, each.value, each.state) for each in trials_below(runs)]


@pytest.fixture
def search_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The search's command line in this process, which returns what it prints."""

    def run(runs: Path, *overrides: str, epochs: int = 1) -> str:
        given = [*SMALL, f"trainer.max_epochs={epochs}", "hydra/launcher=basic", f"runs_dir={runs}"]
        monkeypatch.setattr(sys, "argv", ["search", *given, *overrides])
        search.main()
        return capsys.readouterr().out

    return run


def start(runs: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_imbalance", "search", *SMALL, f"runs_dir={runs}", *overrides],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_search_goes_on_and_ends_alike(search_here: Search, tmp_path: Path) -> None:
    given = [SPACE, "search.budget=4", "search.batch=2"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed, *given, "trainer.max_epochs=8", "hydra.launcher.n_jobs=1")
    wait_for(lambda: len([*killed.rglob("result.json")]), 3, process)  # one of the second batch
    end_by(process, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in killed.rglob("result.json")}
    assert len(kept) == 3
    assert len(trials_below(killed)) == 2

    for runs in (killed, whole):
        printed = search_here(runs, *given, epochs=8)
        assert "4 of 4 settings tried, 0 failed, best " in printed
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert sequence(killed) == sequence(whole)
    assert len({each.params["optimizer.lr"] for each in trials_below(whole)}) == 4


def test_the_best_is_found_by_validation_and_trained_by_the_last_line(
    search_here: Search,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    printed = search_here(tmp_path, SPACE, "search.budget=4", "search.batch=2")
    assert re.search(r"^2 of 4 settings tried, 0 failed, best .* %$", printed, re.MULTILINE)
    assert "val accuracy %" in printed
    assert "test accuracy" not in printed
    rows = re.findall(r"^ *([\d.]+) +([\d.]+) +1 +([\d.]+) ", printed, re.MULTILINE)
    scores = [float(score) for *_, score in rows]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)

    found, _ = read([tmp_path])
    best = found.config[found.val_balanced_accuracy.idxmax()]
    assert float(rows[0][0]) == best["loss.minority_weight"]
    last = printed.splitlines()[-1]
    words = shlex.split(last.removeprefix("the best: "))
    assert words[:3] == ["python", "-m", "mnist_imbalance.train"]
    monkeypatch.setattr(sys, "argv", words[2:])
    train.main()
    assert "finished before, nothing trained" in capsys.readouterr().out


def test_a_larger_budget_goes_on_as_if_it_had_been_the_first(
    search_here: Search, tmp_path: Path
) -> None:
    for runs, budget in (("both", 3), ("both", 5), ("whole", 5)):
        search_here(tmp_path / runs, SPACE, f"search.budget={budget}", "search.batch=2")
        assert len(trials_below(tmp_path / runs)) == budget
    assert sequence(tmp_path / "both") == sequence(tmp_path / "whole")
    other_seed = search_here(tmp_path / "other", SPACE, "search.budget=1", "search.seed=1")
    assert "1 of 1 settings tried" in other_seed
    assert sequence(tmp_path / "other")[0] != sequence(tmp_path / "whole")[0]


def test_a_groups_choices_are_searched_and_several_seeds_count_by_their_mean(
    search_here: Search, tmp_path: Path
) -> None:
    given = ["search.space={loss: [plain, focal]}", "search.seeds=[0,1]", "search.batch=4"]
    printed = search_here(tmp_path, *given, "search.budget=4")
    found, _ = read([tmp_path])
    assert {*found.seed} == {0, 1}
    trials = trials_below(tmp_path)
    assert len(trials) == 4
    for trial in trials:
        reached = found.val_balanced_accuracy[found.loss == trial.params["loss"]]
        assert len(reached) == 2
        assert trial.value == fmean(reached)
        assert all(each["test"] == {} for each in trial.user_attrs["outcomes"])
    assert printed.count("done: ") == len(found)  # a setting that is asked for twice


def test_a_failed_run_fails_its_setting_alone(search_here: Search, tmp_path: Path) -> None:
    printed = search_here(
        tmp_path, "search.space={optimizer.lr: [0.01, 1e30]}", "search.budget=6", "search.batch=3"
    )
    states = {each.params["optimizer.lr"]: each.state for each in trials_below(tmp_path)}
    assert states == {0.01: TrialState.COMPLETE, 1e30: TrialState.FAIL}
    assert "failed: optimizer.lr=1e+30: " in printed
    assert "optimizer.lr=0.01" in printed.splitlines()[-1]

    with pytest.raises(SystemExit, match=r"^error: all settings failed\noptimizer\.lr=1e\+30: "):
        search_here(tmp_path / "all", "search.space={optimizer.lr: [1e30]}", "search.budget=1")


def test_a_name_is_of_one_search(search_here: Search, tmp_path: Path) -> None:
    given = ["search.budget=1", "search.name=mine"]
    search_here(tmp_path, SPACE, *given)
    assert [path.name for path in (tmp_path / "search").iterdir()] == ["mine"]
    with pytest.raises(SystemExit, match=r"^error: search\.name: .*mine holds a search with other"):
        search_here(tmp_path, f"search.space={{{RATE}}}", *given)
    file = tmp_path / "search" / "mine" / "trials.db"
    file.write_text("no database" * 10)
    with pytest.raises(SystemExit, match=r"^error: runs_dir: .*trials\.db cannot be read .*\n?"):
        search_here(tmp_path, SPACE, *given)


def test_whole_numbers_stay_whole_and_text_is_as_on_the_command_line() -> None:
    ranges = {
        "a": {"low": 1, "high": 50},
        "b": {"low": 1, "high": 50, "log": True},
        "c": {"low": 1.0, "high": 50},
        "d": {"low": 0, "high": 1, "step": 0.25},
    }
    made = [distribution(key, values) for key, values in ranges.items()]
    assert made == [
        IntDistribution(1, 50),
        IntDistribution(1, 50, log=True),
        FloatDistribution(1, 50),
        FloatDistribution(0, 1, step=0.25),
    ]
    choices: list[str | float | bool | None] = ["[6,7]", 1e-5, None, True, "plain"]
    assert distribution("e", choices) == CategoricalDistribution(choices)
    written = as_overrides({str(number): each for number, each in enumerate(choices)})
    assert written == ["0=[6,7]", "1=1e-05", "2=null", "3=true", "4=plain"]


def test_a_folders_name_may_be_anything(tmp_path: Path) -> None:
    folder = tmp_path / "it's 5 %?#"
    folder.mkdir()
    assert open_search(folder, {"key": [1]}, batch=3).user_attrs["batch"] == 3
    assert open_search(folder, {"key": [1]}, batch=2).user_attrs["batch"] == 3  # as it was begun
    assert [path.name for path in folder.iterdir()] == ["trials.db"]


KEY = "loss.minority_weight"
MISTAKES = {  # what is written, and how its error begins
    "seed=0": "search.space: must say what to search",
    "search.space={}": "search.space: ",
    "search.space=[a]": "search.space: Input should be a valid dictionary",
    f"search.space={{{KEY}: []}}": f"search.space.{KEY}: ",
    f"search.space={{{KEY}: 5}}": f"search.space.{KEY}: must be a list of choices or {{low: 1",
    f"search.space={{{KEY}: [[1,2]]}}": f"search.space.{KEY}: a choice must be one value",
    f"search.space={{{KEY}: {{low: 1}}}}": f"search.space.{KEY}.high: Field required",
    f"search.space={{{KEY}: {{low: 5, high: 1}}}}": f"search.space.{KEY}: `low <= high` must hold",
    f"search.space={{{KEY}: {{low: 1, high: x}}}}": f"search.space.{KEY}.high: Input should be a",
    f"search.space={{{KEY}: {{low: 1, high: 2, steps: 1}}}}": f"search.space.{KEY}.steps: Extra",
    "search.space={seed: [1]}": "search.space: no seed is better",
    "search.space={no.such: [1]}": "Could not override 'no.such'",
    "search.space={loss: [plain,bogus]}": "loss: no choice bogus; there are ",
    "search.space={loss: [weighted,ldam]}": "model.head: ldam needs cosine",
    "search.space={optimizer.lr: {low: -1.0, high: 1}}": "optimizer.lr: Input should be greater",
    "search.budget=0": "search.budget: Input should be greater than 0",
    "search.batch=0": "search.batch: Input should be greater than 0",
    "search.seeds=[]": "search.seeds: List should have at least 1 item",
    "search.name=../x": "search.name: String should match",
    "+search.x=1": "search.x: Extra inputs are not permitted",
    "experiment=weight_sweep": "experiment: an overlay that sweeps cannot be searched",
    "hydra.mode=MULTIRUN": "hydra.mode: a search has no sweep of its own",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_trained(
    search_here: Search, tmp_path: Path, override: str, message: str
) -> None:
    space = [] if override.startswith(("search.space", "seed")) else [SPACE]
    with pytest.raises(SystemExit) as stopped:
        search_here(tmp_path / "runs", *space, override)
    assert isinstance(stopped.value.code, str)
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and "multirun" not in str(path)
    ]
