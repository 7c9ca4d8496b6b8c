"""Train all runs of a study with a launcher, and write its report."""

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig

from mnist_imbalance.config import CONF, compose_with, start
from mnist_imbalance.errors import one_line_errors
from mnist_imbalance.records.identity import source_of
from mnist_imbalance.sweeps import plan
from mnist_imbalance.sweeps.launch import check_launcher, launch, tabulate

if TYPE_CHECKING:
    import pandas


def title(run: plan.PlannedRun) -> str:
    """Return the name of a run for a line of the screen."""
    return " ".join(run.overrides).removeprefix("experiment=")


def show_plan(
    runs: Sequence[plan.PlannedRun], left: Sequence[plan.PlannedRun], records: "pandas.DataFrame"
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
    seconds = sum(means[run.experiment] for run in left)  # nan without records
    length = timedelta(seconds=round(seconds)) if seconds >= 0 else "an unknown time"
    print(f"the rest takes {length} one by one, judging by the records of each overlay")


def train_all(
    runs: Sequence[plan.PlannedRun], options: plan.StudyConfig, images: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Train runs without a record of these images; return how many ended, a line of each other."""
    from mnist_imbalance.records.table import read
    from mnist_imbalance.training.folder import lock

    failures: dict[str, str] = {}  # by config hash
    while True:
        records, _ = read([options.runs_dir, *options.records_dirs])
        here = records.config.map(lambda values: images.get(source_of(values)))
        records = records[here.isna() | records.data_sha256.isna() | (here == records.data_sha256)]
        recorded = {*records.config_hash}
        chosen = plan.with_choices(runs, records, options.study.weights)
        ready: dict[str, plan.PlannedRun] = {}
        for run in chosen:
            ready.setdefault(run.config_hash, run)  # two overlays may share it
        left = [ready[key] for key in ready if key not in recorded]
        wave = [run for run in left if not run.waits and run.config_hash not in failures]
        failed = sum(run.config_hash in failures for run in left)
        ended = len(ready) - len(left) + failed
        print(f"{ended} of {len(ready)} runs ended, {failed} of them failed", flush=True)
        if options.dry_run:
            show_plan(chosen, left, records)
            return 0, []
        if not wave:
            break
        runs_dir = QuotedString(options.runs_dir, Quote.single).with_quotes()
        jobs = [(*run.overrides, f"runs_dir={runs_dir}") for run in wave]
        with lock(Path(options.runs_dir)):
            outcomes = launch(jobs, HydraConfig.get(), earlier=ended)
        for run, outcome in zip(wave, outcomes, strict=True):
            elsewhere = f"its record, in {outcome.folder}, is not here"
            failures[run.config_hash] = outcome.failure or elsewhere
    own = records.set_index("config_hash").loc[[key for key in ready if key in recorded]]
    if len(own):
        print(tabulate(own[["model", "optimizer", "condition", "seed"]], own)[0])
    for setting in plan.at_grid_ends(runs, chosen):
        print(f"chosen at the end of its grid: {title(setting)}")
    no_sweep = "its weight sweep is not complete, or not in study.experiments"
    no_setting = "a run that decides its setting has no record"
    reasons = {run.config_hash: no_setting if run.tuned else no_sweep for run in left} | failures
    return len(ready) - len(left), [f"{title(run)}: {reasons[run.config_hash]}" for run in left]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="study")
def job(config: DictConfig) -> None:
    """Train the runs of a study, then write its report."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        check_launcher(HydraConfig.get())
        options = plan.check_study(config)
        runs = plan.plan(options.study)
        from mnist_imbalance.training.run import check_parts  # slow to import

        kinds: dict[Any, plan.PlannedRun] = {}  # one of each overlay, and of each choice of methods
        for run in runs:
            choices = run.choices.values() if options.study.methods else ()
            kinds.setdefault((run.experiment, *choices), run)
        images = check_parts(
            compose_with([*run.overrides, *(["loss=plain"] if run.waits and not run.tuned else [])])
            for run in kinds.values()
        )
        finished, failures = train_all(runs, options, images)
        if finished:
            from mnist_imbalance.report.page import write_report  # slow to import

            write_report(config)
    if failures:
        sys.exit("\n".join([f"error: {len(failures)} runs failed", *failures]))


def main() -> None:
    """Run the command line."""
    start(job, "study")


if __name__ == "__main__":
    main()
