"""Search for the setting with the best validation accuracy: Optuna asks, a launcher trains."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import hydra
import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from optuna import distributions
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState
from pydantic import BaseModel, Field, PositiveInt

from mnist_imbalance.config import CONF, compose_with, start
from mnist_imbalance.data.seeds import Seed, derive
from mnist_imbalance.errors import ConfigError, naming, one_line_errors
from mnist_imbalance.records.identity import hash_config, result_config
from mnist_imbalance.sweeps.launch import check_launcher, launch
from mnist_imbalance.sweeps.plan import Seeds


class SearchConfig(BaseModel, strict=True, extra="forbid"):
    """The values of ``search`` in ``conf/search.yaml``, which says what they mean."""

    space: Annotated[dict[str, list[Any] | dict[str, Any]], Field(min_length=1)]
    budget: PositiveInt
    batch: PositiveInt | None
    seeds: Seeds | None
    seed: Seed


def distribution(key: str, values: Any) -> distributions.BaseDistribution:
    """Return the distribution of a key of the space: choices, or whole or any numbers."""
    with naming(f"search.space.{key}"):
        if isinstance(values, list):
            return distributions.CategoricalDistribution(values)
        if any(isinstance(value, float) for value in values.values()):
            return distributions.FloatDistribution(**values)
        return distributions.IntDistribution(**values)


def as_overrides(setting: Mapping[str, Any]) -> list[str]:
    """Return a setting as overrides; text stays as it is."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in setting.items()
    ]


def check_search(config: DictConfig, overrides: Sequence[str]) -> SearchConfig:
    """Check the keys of the search, and the choices and ends of its space one by one."""
    values = OmegaConf.to_container(config, resolve=True)
    with naming("search"):
        options = SearchConfig.model_validate(values)
    from mnist_imbalance.training.run import check_parts  # slow to import

    ends = {}
    for key, values in options.space.items():
        tried: Any = distribution(key, values)
        ends[key] = tried.choices if isinstance(values, list) else (tried.low, tried.high)
    first = {key: values[0] for key, values in ends.items()}
    settings = [{**first, key: value} for key, values in ends.items() for value in values]
    check_parts(compose_with([*overrides, *as_overrides(setting)]) for setting in settings)
    return options


def try_settings(
    search: optuna.Study, options: SearchConfig, seeds: Sequence[int], given: Sequence[str]
) -> None:
    """Try settings, a batch at a time, until there are as many as the budget.

    A setting is asked for by a sampler that its number seeds, and is kept before it is trained:
    a stopped search goes on with it, and ends as if it had not been stopped.
    """
    space = {key: distribution(key, values) for key, values in options.space.items()}
    batch = options.batch or max(1, min((os.cpu_count() or 1) // len(seeds), options.budget // 4))
    while (tried := sum(trial.state.is_finished() for trial in search.trials)) < options.budget:
        for number in range(len(search.trials), min(tried - tried % batch + batch, options.budget)):
            seed = derive("search", options.seed, number) % 2**32
            search.sampler = optuna.samplers.TPESampler(seed=seed)
            search.ask(space)
        trials = search.get_trials(states=[TrialState.RUNNING])
        settings = [(*given, *as_overrides(trial.params)) for trial in trials]
        jobs = [(*setting, f"seed={seed}") for setting in settings for seed in seeds]
        outcomes = iter(launch(jobs, HydraConfig.get()))
        for trial in trials:
            runs = [next(outcomes) for _ in seeds]
            if failures := [run.failure for run in runs if run.failure]:
                print(f"failed: {' '.join(as_overrides(trial.params))}: {failures[0]}")
                search.tell(trial.number, state=TrialState.FAIL)
            else:
                scores = (run.result.val.balanced_accuracy for run in runs)
                search.tell(trial.number, fmean(scores))
        print(f"{len(search.trials)} of {options.budget} settings tried", flush=True)


def show(search: optuna.Study, command: Sequence[str]) -> None:
    """Print the settings, best first, and the command that trains the best."""
    if not search.get_trials(states=[TrialState.COMPLETE]):
        sys.exit("error: all settings failed")
    table = search.trials_dataframe(attrs=("value", "params", "state"))
    table = table.sort_values("value", ascending=False).rename(columns={"value": "val balanced"})
    table = table.rename(columns=lambda name: name.removeprefix("params_").rpartition(".")[2])
    print(table.to_string(index=False, float_format="%.4g"))
    print(f"the best: {shlex.join([*command, *as_overrides(search.best_params)])}")


def search(config: DictConfig) -> None:
    """Search as the command line says."""
    hydra = HydraConfig.get()
    if hydra.sweeper.params:
        raise ConfigError("experiment: an overlay that sweeps cannot be searched")
    check_launcher(hydra)
    task = hydra.overrides.task
    given = [each for each in task if not each.lstrip("+").startswith(("search.", "seed="))]
    options = check_search(config.search, given)
    seeds = options.seeds or [config.seed]
    training = result_config(OmegaConf.masked_copy(config, [*map(str, config.keys() - {"search"})]))
    own = options.model_dump(exclude={"budget"}) | {"seeds": seeds}
    folder = Path(config.runs_dir) / "search" / hash_config(training | {"search": own})[:12]

    from mnist_imbalance.training.folder import lock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with lock(folder):
        storage = JournalStorage(JournalFileBackend(str(folder / "trials.log")))
        found = optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True
        )
        print(f"{options.budget} settings, in {folder}", flush=True)
        try_settings(found, options, seeds, given)
    show(found, ["python", "-m", "mnist_imbalance.train", *given, f"seed={seeds[0]}"])


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")
def job(config: DictConfig) -> None:
    """Search."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        search(config)


def main() -> None:
    """Run the command line."""
    start(job, "search")
