"""Train all runs of a study with a launcher, and write its report."""

import os
import sys
from collections.abc import Sequence
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


class StudyConfig(BaseModel, strict=True, extra="forbid"):
    """The values of ``conf/study.yaml``."""

    study: Study
    runs_dir: str
    records_dirs: list[str]
    dry_run: bool


def check_study(config: DictConfig) -> StudyConfig:
    """Check the values of a study and its folders."""
    try:
        checked = StudyConfig.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in checked.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}; [] for none")
    report_dir = checked.study.report_dir or checked.runs_dir
    for key, folder in (("runs_dir", checked.runs_dir), ("study.report_dir", report_dir)):
        path = Path(folder).absolute()
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")
    return checked


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


def show_plan(
    runs: Sequence[PlannedRun], left: Sequence[PlannedRun], records: "pandas.DataFrame"
) -> None:
    """Print the runs and records of each overlay, the runs that are left and how long they take."""
    import pandas

    rows = [(run.experiment, run.config_hash) for run in runs]
    planned = pandas.DataFrame(rows, columns=["overlay", "config_hash"])
    known = records.assign(took=records.seconds + records.test_seconds)
    planned = planned.merge(known[["config_hash", "took"]], how="left")
    overlays = planned.groupby("overlay", sort=False).took
    print(overlays.agg(runs="size", recorded="count").to_string())
    for run in left:
        print(f"missing: {title(run)}" + (", which waits for others" if run.waits else ""))
    means = overlays.mean().fillna(planned.took.mean())
    seconds = sum(means[run.experiment] for run in left)
    if seconds > 0:  # not nan, as without records
        print(
            f"{timedelta(seconds=round(seconds))} one by one, as the records of each overlay took"
        )


def train_all(runs: Sequence[PlannedRun], options: StudyConfig) -> tuple[int, list[str]]:
    """Train the runs without a record, those that wait for a choice after those that decide it.

    Returns:
        The number of finished runs, and a line for each of the others.
    """
    from mnist_imbalance.records.table import read
    from mnist_imbalance.training.folder import lock

    failures: dict[str, str] = {}  # by config hash
    while True:
        records, _ = read([options.runs_dir, *options.records_dirs])
        recorded = {*records.config_hash}
        chosen = with_choices(runs, records, options.study.weights)
        ready: dict[str, PlannedRun] = {}
        for run in chosen:
            ready.setdefault(run.config_hash, run)  # two overlays may share it
        left = [ready[key] for key in ready if key not in recorded]
        wave = [run for run in left if not run.waits and run.config_hash not in failures]
        failed = sum(run.config_hash in failures for run in left)
        done = len(ready) - len(left)
        print(f"{done} of {len(ready)} runs done, {len(left) - failed} to come, {failed} failed")
        if options.dry_run:
            show_plan(chosen, left, records)
            return 0, []
        if not wave:
            break
        sys.stdout.flush()
        runs_dir = QuotedString(options.runs_dir, Quote.single).with_quotes()
        jobs = [(*run.overrides, f"runs_dir={runs_dir}") for run in wave]
        with lock(Path(options.runs_dir)):
            outcomes = launch(jobs, HydraConfig.get())
        for run, outcome in zip(wave, outcomes, strict=True):
            elsewhere = f"its record, in {outcome.folder}, is not here"
            failures[run.config_hash] = outcome.failure or elsewhere
    for setting in at_grid_ends(runs, chosen):
        print(f"chosen at the end of its grid: {title(setting)}")
    no_sweep = "its weight sweep is not complete, or not in study.experiments"
    no_setting = "a run that decides its setting has no record"
    reasons = {run.config_hash: no_setting if run.tuned else no_sweep for run in left} | failures
    return done, [f"{title(run)}: {reasons[run.config_hash]}" for run in left]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="study")
def job(config: DictConfig) -> None:
    """Train the runs of a study, then write its report."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        check_launcher(HydraConfig.get())
        options = check_study(config)
        runs = plan(options.study)
        check_runs(runs, options.study)
        finished, failures = train_all(runs, options)
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
