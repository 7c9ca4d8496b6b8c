"""Train all runs of a study with a launcher, and write its report."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from mnist_imbalance.config import CONF, compose_with, start
from mnist_imbalance.errors import ConfigError, as_config_error, one_line_errors
from mnist_imbalance.sweeps.launch import check_launcher, launch
from mnist_imbalance.sweeps.plan import PlannedRun, Study, at_grid_ends, plan, with_choices

if TYPE_CHECKING:
    import pandas


class StudyKeys(BaseModel, strict=True, extra="forbid"):
    """The values of ``conf/study.yaml``."""

    study: Study
    runs_dir: str
    records_dirs: list[str]
    dry_run: bool


def check_study(config: DictConfig) -> StudyKeys:
    """Check the values of a study and its folders."""
    try:
        keys = StudyKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in keys.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}; [] for none")
    report_dir = keys.study.report_dir or keys.runs_dir
    for key, folder in (("runs_dir", keys.runs_dir), ("study.report_dir", report_dir)):
        path = Path(folder).absolute()
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")
    return keys


def check_runs(runs: Sequence[PlannedRun], study: Study) -> None:
    """Build the parts of a run of each overlay, and of each choice of methods."""
    from mnist_imbalance.training.run import check_parts  # slow to import

    kinds: dict[Any, PlannedRun] = {}
    for run in runs:
        kinds.setdefault((run.experiment, *(run.choices.values() if study.methods else ())), run)
    check_parts(
        compose_with([*run.overrides, *(["loss=plain"] if run.waits and not run.tuned else [])])
        for run in kinds.values()
    )


def title(run: PlannedRun) -> str:
    """Return the name of a run for a line of the screen."""
    return " ".join(run.overrides).removeprefix("experiment=")


def unique(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs without those that an earlier overlay has, too."""
    return [*{run.config_hash: run for run in reversed(runs)}.values()][::-1]


def estimate(runs: Sequence[PlannedRun], records: "pandas.DataFrame") -> timedelta:
    """Return how long runs take one by one, by the records of as many epochs of such data."""

    def kind(config: Mapping[str, Any]) -> str:
        keys = ("model._target_", "data.keep", "trainer.max_epochs", "trainer.max_steps")
        return str([*map(config.get, keys), len(config["data.copies"])])

    seconds = records.seconds + records.test_seconds
    means = seconds.groupby(records.config.map(kind)).mean()
    return timedelta(
        seconds=round(sum(means.get(kind(run.config), seconds.mean()) for run in runs))
    )


def show_plan(runs: Sequence[PlannedRun], records: "pandas.DataFrame") -> None:
    """Print the runs and records of each overlay, the missing runs and how long they take."""
    import pandas

    recorded = {*records.config_hash}
    table = pandas.DataFrame(
        [(run.experiment, 1, run.config_hash in recorded) for run in runs],
        columns=["overlay", "runs", "recorded"],
    )
    print(table.groupby("overlay", sort=False).sum().to_string())
    missing = [run for run in unique(runs) if run.config_hash not in recorded]
    for run in missing:
        print(f"missing: {title(run)}" + (", which waits for others" if run.waits else ""))
    took = f", {estimate(missing, records)} one by one" if missing and len(records) else ""
    print(f"{len(missing)} of {len(unique(runs))} runs are missing{took}")


def train_all(runs: Sequence[PlannedRun], keys: StudyKeys) -> tuple[int, list[str]]:
    """Train the runs without a record, those that wait for a choice after those that decide it.

    Returns:
        The number of finished runs, and a line for each run that failed.
    """
    from mnist_imbalance.records.table import read
    from mnist_imbalance.training.folder import RunFolder

    failed: dict[str, str] = {}  # by config hash
    while True:
        records, _ = read([keys.runs_dir, *keys.records_dirs])
        recorded = {*records.config_hash}
        chosen = with_choices(runs, records, keys.study.weights)
        ready = unique(chosen)
        if keys.dry_run:
            show_plan(chosen, records)
            return 0, []
        ended = recorded | failed.keys()
        wave = [run for run in ready if not run.waits and run.config_hash not in ended]
        to_come = sum(run.config_hash not in ended for run in ready)
        done = len(ready) - to_come - len(failed)
        print(f"{done} of {len(ready)} runs done, {to_come} to come, {len(failed)} failed")
        if not wave:
            for setting in at_grid_ends(runs, chosen):
                print(f"chosen at the end of its grid: {setting}")
            break
        sys.stdout.flush()
        runs_dir = QuotedString(keys.runs_dir, Quote.single).with_quotes()
        jobs = [(*run.overrides, f"runs_dir={runs_dir}") for run in wave]
        with RunFolder(Path(keys.runs_dir)).lock():
            outcomes = launch(jobs, HydraConfig.get())
        recorded = {*read([keys.runs_dir])[0].config_hash}
        for run, outcome in zip(wave, outcomes, strict=True):
            if run.config_hash not in recorded:
                reason = outcome.failure or f"its record, in {outcome.folder}, is not here"
                failed[run.config_hash] = f"{title(run)}: {reason}"
    incomplete = "its weight sweep is not complete, or not in study.experiments"
    return done, [*failed.values(), *(f"{title(run)}: {incomplete}" for run in ready if run.waits)]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="study")
def job(config: DictConfig) -> None:
    """Train the runs of a study, then write its report."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        check_launcher(HydraConfig.get())
        keys = check_study(config)
        runs = plan(keys.study)
        check_runs(runs, keys.study)
        finished, failures = train_all(runs, keys)
        if finished:
            from mnist_imbalance.report.page import write_report  # slow to import

            write_report(config)
    if failures:
        sys.exit("\n".join([f"error: {len(failures)} runs failed", *failures]))


def main() -> None:
    """Run the command line."""
    start(job)


if __name__ == "__main__":
    main()
