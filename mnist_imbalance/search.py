"""Search for the setting with the best validation accuracy, with one of Hydra's launchers."""

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import hydra
import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial
from pydantic import BaseModel, Field, PositiveInt, ValidationError
from rich.console import Console

from mnist_imbalance.commandline import one_line_errors, start
from mnist_imbalance.config import CONF, compose_with
from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.files import as_seen_from_here
from mnist_imbalance.jobs import Outcome, check_launcher, launch, processes
from mnist_imbalance.plan import Seeds
from mnist_imbalance.runs import RunFolder, determining, hash_config
from mnist_imbalance.summary import tabulate_sweep
from mnist_imbalance.trials import (
    Setting,
    Space,
    as_overrides,
    ask_and_tell,
    distribution,
    ends,
    open_search,
)


class SearchKeys(BaseModel, strict=True, extra="forbid"):
    """The values of ``search`` in ``conf/search.yaml``, which says what they mean."""

    space: Annotated[dict[str, Any], Field(min_length=1)]
    budget: PositiveInt
    batch: PositiveInt | None
    seeds: Seeds | None
    seed: Seed
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None


def check_search(config: DictConfig) -> SearchKeys:
    """Check what is told of the search, but for its space's values.

    Raises:
        ConfigError: A value cannot work.
    """
    if OmegaConf.is_missing(config, "space"):
        raise ConfigError("search.space: must say what to search, {loss.minority_weight: [2,7]}")
    try:
        keys = SearchKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error, prefix="search.") from error
    if "seed" in keys.space:
        raise ConfigError("search.space: no seed is better than another; see search.seeds")
    return keys


def check_before_training(overrides: Sequence[str], space: Space) -> None:
    """Refuse what would fail only later: each key's choices or ends, the others at their first.

    Raises:
        ConfigError: A value cannot work.
    """
    from mnist_imbalance.fit import check_parts  # slow to import

    values = {key: ends(each) for key, each in space.items()}
    first = {key: each[0] for key, each in values.items()}
    settings = [{**first, key: value} for key, each in values.items() for value in each]
    check_parts(compose_with([*overrides, *as_overrides(each)]) for each in settings)


def settings_at_once(keys: SearchKeys, launcher: DictConfig, seeds: int) -> int:
    """Return how many settings a batch has: as many as are asked for, or as can be trained."""
    if keys.batch:
        return keys.batch
    one_by_one = launcher._target_.endswith(".BasicLauncher")
    runs: int = 1 if one_by_one else launcher.get("array_parallelism") or processes(launcher)
    runs *= int(launcher.get("side_by_side", 1))
    return max(1, min(runs // seeds, keys.budget // 4))


def progress(trials: Sequence[FrozenTrial], budget: int, tried: int, elapsed: float) -> str:
    """Return the line of the screen after a batch.

    Args:
        trials: All that there are.
        budget: How many there will be.
        tried: How many of them are of this time.
        elapsed: Seconds that these took.
    """
    done = [each.value for each in trials if each.value is not None]
    left = budget - len(trials)
    time_left = timedelta(seconds=round(elapsed / tried * left))
    return (
        f"{len(trials)} of {budget} settings tried, {len(trials) - len(done)} failed"
        + (f", best {100 * max(done):.1f} %" if done else "")
        + (f", about {time_left} left" if left else "")
    )


def show(trials: Sequence[FrozenTrial], command: Sequence[str]) -> None:
    """Print what was found, best first, what failed, and what trains the best.

    Args:
        trials: All of the search.
        command: What trains, but for the setting.

    Raises:
        SystemExit: All failed; the text has a line for each.
    """
    ranked = sorted(trials, key=lambda each: (-(each.value or 0), each.number))
    done, failed = {}, {}  # by overrides: a setting may have been tried twice
    for trial in ranked:
        outcomes: list[Outcome] = trial.user_attrs["outcomes"]
        setting = tuple(as_overrides(trial.params))
        failures = [each["failure"] for each in outcomes if each["failure"]]
        if failures:
            failed[setting] = f"{' '.join(setting)}: {failures[0]}"
        else:
            done[setting] = outcomes
    if not done:
        sys.exit("\n".join(["error: all settings failed", *failed.values()]))
    runs: list[tuple[Sequence[str], Outcome]] = []
    for setting, outcomes in done.items():
        for each in outcomes:
            balanced = each["val_balanced_accuracy"] or 0.0
            runs.append((setting, {**each, "val": {"balanced": balanced, **each["val"]}}))
    Console().print(tabulate_sweep(runs, "val"))
    for line in failed.values():
        print(f"failed: {line}")
    print(f"the best: {shlex.join([*command, *next(iter(done))])}")


def search(config: DictConfig) -> None:
    """Search as the command line says.

    Raises:
        ConfigError: A value cannot work.
    """
    settings = HydraConfig.get()
    if settings.mode != RunMode.RUN:
        raise ConfigError("hydra.mode: a search has no sweep of its own; leave out -m")
    if settings.sweeper.params:
        raise ConfigError("experiment: an overlay that sweeps cannot be searched")
    check_launcher(settings.launcher)
    keys = check_search(config.search)
    space = {key: distribution(key, values) for key, values in keys.space.items()}
    placed = [each for each in settings.overrides.task if each.startswith("runs_dir=")]
    own = ("search.", "seed=", *placed)
    given = [each for each in settings.overrides.task if not each.lstrip("+").startswith(own)]
    check_before_training(given, space)

    seeds = keys.seeds or [config.seed]
    training = determining(OmegaConf.masked_copy(config, [*map(str, config.keys() - {"search"})]))
    decides = {"space": keys.space, "batch": keys.batch, "seeds": seeds, "seed": keys.seed}
    definition = training | {f"search.{key}": value for key, value in decides.items()}
    folder = Path(config.runs_dir) / "search" / (keys.name or hash_config(definition)[:12])
    reached: dict[tuple[str, ...], Outcome] = {}  # by overrides

    def train(asked: Sequence[Setting]) -> list[list[Outcome]]:
        jobs = [
            [(*given, *as_overrides(setting), f"seed={seed}") for seed in seeds]
            for setting in asked
        ]
        new = [job for job in dict.fromkeys(chain.from_iterable(jobs)) if job not in reached]
        if new:
            reached.update(zip(new, launch(new, config.runs_dir, settings.launcher), strict=True))
        return [[reached[job] for job in of_setting] for of_setting in jobs]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with RunFolder(folder).lock():
        batch = settings_at_once(keys, settings.launcher, len(seeds))
        found = open_search(folder, definition, batch)
        print(f"{keys.budget} settings, in {as_seen_from_here(folder)}", flush=True)
        begun, before = time.monotonic(), len(found.trials)
        for trials in ask_and_tell(found, space, keys.seed, keys.budget, train):
            elapsed = time.monotonic() - begun
            print(progress(trials, keys.budget, len(trials) - before, elapsed), flush=True)
        trials = found.trials
    sources = settings.runtime.config_sources
    command = ["python", "-m", "mnist_imbalance.train"]
    command += [f"--config-dir={each.path}" for each in sources if each.provider == "command-line"]
    show(trials, [*command, *placed, *given, f"seed={seeds[0]}"])


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")
def job(config: DictConfig) -> None:
    """Do what Hydra composed."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        search(config)


def main() -> None:
    """Run the command line."""
    start(job)


if __name__ == "__main__":
    main()
