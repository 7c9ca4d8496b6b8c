"""Search for the setting with the best validation accuracy: Optuna asks, a launcher trains."""

import json
import shlex
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import hydra
import optuna
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from optuna import distributions
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from mnist_imbalance.config import CONF, compose_with, start
from mnist_imbalance.data.seeds import Seed, derive
from mnist_imbalance.errors import ConfigError, as_config_error, naming, one_line_errors
from mnist_imbalance.records.identity import determining, hash_config
from mnist_imbalance.sweeps.launch import Job, Outcome, check_launcher, launch, tabulate
from mnist_imbalance.sweeps.plan import Seeds

Train = Callable[[Sequence[Mapping[str, Any]]], list[list[Outcome]]]


class SearchKeys(BaseModel, strict=True, extra="forbid"):
    """The values of ``search`` in ``conf/search.yaml``, which says what they mean."""

    space: Annotated[dict[str, Any], Field(min_length=1)]
    budget: PositiveInt
    batch: PositiveInt | None
    seeds: Seeds | None
    seed: Seed
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None


class Range(BaseModel, strict=True, extra="forbid"):
    """Numbers from low to high, both included; whole ones if both are whole."""

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    step: FiniteFloat = 1


def distribution(key: str, values: Any) -> distributions.BaseDistribution:
    """Return the distribution of a key of the space: the choices of a list, or a `Range`."""
    with naming(f"search.space.{key}"):
        if isinstance(values, list):
            if not all(isinstance(value, str | int | float | None) for value in values):
                raise ValueError('a choice must be one value; write a list as text, "[1,2]"')
            return distributions.CategoricalDistribution(values)
        if not isinstance(values, dict):
            raise ValueError(f"must be a list of choices or {{low: 1, high: 50}}, got {values!r}")
        Range.model_validate(values)
        if any(isinstance(value, float) for value in values.values()):
            return distributions.FloatDistribution(**values)
        return distributions.IntDistribution(**values)


def as_overrides(setting: Mapping[str, Any]) -> list[str]:
    """Return a setting as overrides; text stays as it is."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in setting.items()
    ]


def check_search(config: DictConfig, overrides: Sequence[str]) -> SearchKeys:
    """Check the keys of the search, and the choices and ends of its space one by one."""
    if OmegaConf.is_missing(config, "space"):
        raise ConfigError("search.space: must say what to search, {loss.minority_weight: [2,7]}")
    try:
        keys = SearchKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error, prefix="search.") from error
    if "seed" in keys.space:
        raise ConfigError("search.space: no seed is better than another; see search.seeds")
    for key, values in keys.space.items():
        distribution(key, values)
    from mnist_imbalance.training.run import check_parts  # slow to import

    ends = {
        key: values if isinstance(values, list) else [values["low"], values["high"]]
        for key, values in keys.space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    settings = [{**first, key: value} for key, values in ends.items() for value in values]
    check_parts(compose_with([*overrides, *as_overrides(setting)]) for setting in settings)
    return keys


def default_batch(keys: SearchKeys, settings: HydraConf, seeds: int) -> int:
    """Return how many settings the launcher trains at once, at most a quarter of the budget."""
    from joblib import effective_n_jobs

    launcher = settings.launcher
    runs = (
        1
        if settings.runtime.choices["hydra/launcher"] == "basic"
        else effective_n_jobs(launcher.get("n_jobs", -1))
    )
    runs = launcher.get("array_parallelism", runs) * (launcher.get("side_by_side") or 1)
    return int(max(1, min(runs // seeds, keys.budget // 4)))


def open_search(folder: Path, definition: Mapping[str, Any], batch: int) -> optuna.Study:
    """Return the search that a folder holds, or a new one."""
    file = folder / "trials.db"
    connect = partial(sqlite3.connect, file)  # no URL, which some paths would break
    try:
        search = optuna.create_study(
            storage=optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect}),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
    except SQLAlchemyError as error:
        raise ConfigError(
            f"runs_dir: {file} cannot be read ({error.args[0]}); delete it and start the search "
            "again: finished runs are not trained again"
        ) from error
    if "batch" not in search.user_attrs:
        search.set_user_attr("definition", definition)
        search.set_user_attr("batch", batch)
    ours, kept = json.loads(json.dumps(definition)), search.user_attrs["definition"]
    if differing := sorted(key for key in ours.keys() | kept if ours.get(key) != kept.get(key)):
        raise ConfigError(
            f"search.name: {folder} holds a search with other values of {', '.join(differing)}; "
            "choose another name"
        )
    return search


def try_settings(search: optuna.Study, keys: SearchKeys, train: Train) -> None:
    """Try settings until there are as many as the budget.

    A batch is asked for in memory, by a sampler that its place seeds, and stored once it is
    trained: a stopped search asks for the same again.
    """
    space = {key: distribution(key, values) for key, values in keys.space.items()}
    batch: int = search.user_attrs["batch"]
    while (tried := len(search.trials)) < keys.budget:
        first = tried - tried % batch
        sampler = optuna.samplers.TPESampler(seed=derive("search", keys.seed, first) % 2**32)
        now = optuna.create_study(sampler=sampler, direction="maximize")
        now.add_trials(search.trials[:first])
        trials = [now.ask(space) for _ in range(min(batch, keys.budget - first))]
        outcomes = train([trial.params for trial in trials])
        for trial, runs in zip(trials, outcomes, strict=True):
            kept = [
                {key: value for key, value in asdict(run).items() if key != "job"} for run in runs
            ]
            trial.set_user_attr("outcomes", [{**run, "test": {}} for run in kept])
            scores = [
                run.val_balanced_accuracy for run in runs if run.val_balanced_accuracy is not None
            ]
            failed = len(scores) < len(runs)
            now.tell(
                trial,
                None if failed else fmean(scores),
                optuna.trial.TrialState.FAIL if failed else None,
            )
        search.add_trials(now.trials[tried:])
        done = [trial.value for trial in search.trials if trial.value is not None]
        best = f", best {100 * max(done):.1f} %" if done else ""
        failures = len(search.trials) - len(done)
        print(
            f"{len(search.trials)} of {keys.budget} settings tried, {failures} failed{best}",
            flush=True,
        )


def show(search: optuna.Study, command: Sequence[str]) -> None:
    """Print the settings, best first, the failed ones, and the command that trains the best."""
    done: dict[Job, list[Outcome]] = {}  # a setting may have been tried twice
    failed = {}
    for trial in sorted(search.trials, key=lambda trial: (-(trial.value or 0), trial.number)):
        setting = tuple(as_overrides(trial.params))
        outcomes = [Outcome(setting, **run) for run in trial.user_attrs["outcomes"]]
        if failures := [outcome.failure for outcome in outcomes if outcome.failure]:
            failed[setting] = f"{' '.join(setting)}: {failures[0]}"
        else:
            done[setting] = [
                replace(run, val={"balanced": run.val_balanced_accuracy or 0.0, **run.val})
                for run in outcomes
            ]
    if not done:
        sys.exit("\n".join(["error: all settings failed", *failed.values()]))
    print(tabulate([*chain.from_iterable(done.values())], "val"))
    for line in failed.values():
        print(f"failed: {line}")
    print(f"the best: {shlex.join([*command, *next(iter(done))])}")


def search(config: DictConfig) -> None:
    """Search as the command line says."""
    settings = HydraConfig.get()
    if settings.sweeper.params:
        raise ConfigError("experiment: an overlay that sweeps cannot be searched")
    check_launcher(settings)
    task = list(settings.overrides.task)
    placed = [override for override in task if override.startswith("runs_dir=")]
    own = ("search.", "seed=", *placed)
    given = [override for override in task if not override.lstrip("+").startswith(own)]
    keys = check_search(config.search, given)
    seeds = keys.seeds or [config.seed]
    training = determining(OmegaConf.masked_copy(config, [*map(str, config.keys() - {"search"})]))
    decides = {"space": keys.space, "batch": keys.batch, "seeds": seeds, "seed": keys.seed}
    definition = training | {f"search.{key}": value for key, value in decides.items()}
    folder = Path(config.runs_dir) / "search" / (keys.name or hash_config(definition)[:12])
    known: dict[Job, Outcome] = {}

    def train(asked: Sequence[Mapping[str, Any]]) -> list[list[Outcome]]:
        jobs: list[list[Job]] = [
            [(*placed, *given, *as_overrides(setting), f"seed={seed}") for seed in seeds]
            for setting in asked
        ]
        new = [job for job in dict.fromkeys(chain.from_iterable(jobs)) if job not in known]
        if new:
            known.update(zip(new, launch(new, settings), strict=True))
        return [[known[job] for job in runs] for runs in jobs]

    from mnist_imbalance.training.folder import RunFolder

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with RunFolder(folder).lock():
        found = open_search(
            folder, definition, keys.batch or default_batch(keys, settings, len(seeds))
        )
        print(f"{keys.budget} settings, in {folder}", flush=True)
        try_settings(found, keys, train)
    command = ["python", "-m", "mnist_imbalance.train"]
    sources = settings.runtime.config_sources
    command += [f"--config-dir={each.path}" for each in sources if each.provider == "command-line"]
    show(found, [*command, *placed, *given, f"seed={seeds[0]}"])


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")
def job(config: DictConfig) -> None:
    """Search."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        search(config)


def main() -> None:
    """Run the command line."""
    start(job)


if __name__ == "__main__":
    main()
