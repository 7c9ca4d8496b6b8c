"""Train all runs of a study with a launcher, and write its report."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import hydra
import pandas
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from mnist_imbalance.config import CONF, compose_with, start
from mnist_imbalance.errors import ConfigError, as_config_error, one_line_errors
from mnist_imbalance.sweeps.plan import PlannedRun, Study, plan, with_choices


class StudyKeys(BaseModel, strict=True, extra="forbid"):
    """The values of ``conf/study.yaml``."""

    study: Study
    runs_dir: str
    records_dirs: list[str]
    dry_run: bool


def check_study(config: DictConfig) -> StudyKeys:
    """Check the values of a study and the folders that it reads and writes.

    Raises:
        ConfigError: One cannot work.
    """
    try:
        keys = StudyKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in keys.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}; [] for none")
    places = {"runs_dir": keys.runs_dir, "study.report_dir": keys.study.report_dir or keys.runs_dir}
    for key, folder in places.items():
        path = Path(folder).absolute()
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")
    return keys


def check_runs(runs: Sequence[PlannedRun], study: Study) -> None:
    """Build the parts of a run of each overlay, and of each choice of a study of methods.

    Raises:
        ConfigError: A value cannot work.
    """
    from mnist_imbalance.training.run import check_parts  # slow to import

    kinds: dict[Any, PlannedRun] = {}
    for run in runs:
        kinds.setdefault((run.experiment, *(run.choices.values() if study.methods else ())), run)
    check_parts(
        compose_with([*run.overrides, *(["loss=plain"] if run.waits else [])])
        for run in kinds.values()
    )


def seconds_left(runs: Sequence[PlannedRun], records: pandas.DataFrame) -> float:
    """Estimate how long runs take one by one, from the records of the same model and data."""

    def kind(config: Mapping[str, Any]) -> tuple[Any, ...]:
        keep, copies = config.get("data.keep"), len(config["data.copies"])
        return config["model._target_"], str(keep), copies, config.get("trainer.max_steps")

    took = (records.seconds + records.test_seconds).groupby(records.config.map(kind)).mean()
    every = (records.seconds + records.test_seconds).mean()
    return float(sum(took.get(kind(run.config), every) for run in runs))


def show_plan(runs: Sequence[PlannedRun], records: pandas.DataFrame) -> None:
    """Print how many runs each overlay has and how many have a record, and those that have none."""
    known = {*records.config_hash}
    rows = [(run.experiment, run.waits, run.config_hash in known) for run in runs]
    table = pandas.DataFrame(rows, columns=["overlay", "wait", "have a record"])
    counts = table.groupby("overlay", sort=False).sum()
    counts.insert(0, "runs", table.groupby("overlay", sort=False).size())
    counts["missing"] = counts["runs"] - counts["have a record"]
    print(counts.to_string())
    missing = {run.config_hash: run for run in runs if run.config_hash not in known}
    for run in missing.values():
        print(f"missing: {title(run)}" + (" (waits for a choice)" if run.waits else ""))
    print(f"{len(missing)} of {len({run.config_hash for run in runs})} runs are missing", end="")
    if missing and len(records):
        left = timedelta(seconds=round(seconds_left([*missing.values()], records)))
        print(f"; about {left} one by one", end="")
    print()


def title(run: PlannedRun) -> str:
    """Return the name of a run for a line of the screen."""
    return " ".join(run.overrides).removeprefix("experiment=")


def train_all(
    runs: Sequence[PlannedRun], keys: StudyKeys, settings: HydraConf
) -> tuple[int, list[str]]:
    """Train the runs without a record; those that wait for a choice come after the runs they need.

    Returns:
        The number of finished runs, and a line for each run that failed.

    Raises:
        ConfigError: Another study is at work in the same place.
    """
    from mnist_imbalance.records.table import read
    from mnist_imbalance.sweeps.launch import launch
    from mnist_imbalance.training.folder import RunFolder

    place = runs_dir_override(keys.runs_dir)
    failures: dict[str, str] = {}  # by config hash
    while True:
        records, _ = read([keys.runs_dir, *keys.records_dirs])
        ready = with_choices({run.config_hash: run for run in runs}.values(), records, keys.study.weights)
        done = {*records.config_hash}
        wave = [run for run in ready if not run.waits and run.config_hash not in done | failures.keys()]
        finished = sum(run.config_hash in done for run in ready)
        print(f"{finished} of {len(ready)} runs done, {len(ready)-finished-len(failures)} to come, {len(failures)} failed", flush=True)
        if not wave:
            break
        with RunFolder(Path(keys.runs_dir)).lock():
            outcomes = launch([(*run.overrides, place) for run in wave], settings)
        for run, outcome in zip(wave, outcomes, strict=True):
            if outcome.failure:
                failures[run.config_hash] = f"{title(run)}: {outcome.failure}"
    ...
