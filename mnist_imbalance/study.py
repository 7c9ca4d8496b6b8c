"""Train all runs of a study with one of Hydra's launchers, and write its report."""

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_imbalance.commandline import one_line_errors, start
from mnist_imbalance.config import CONF, compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.jobs import check_launcher, launch
from mnist_imbalance.plan import PlannedRun, StudyKeys, check_study, plan, with_choices
from mnist_imbalance.runs import Result, RunFolder, find_records


def title(run: PlannedRun) -> str:
    """Return the name of a run for a line of the screen."""
    return " ".join(run.overrides).removeprefix("experiment=")


def estimate_left(
    left: Collection[PlannedRun], trained: Collection[Result], elapsed: float
) -> timedelta | None:
    """Return when all runs will be done, in whole seconds; None as long as nothing is known.

    Args:
        left: Runs to come.
        trained: Runs of the same study that are done.
        elapsed: Seconds in which they were; less than their sum where runs are trained at once.
    """

    def kind(values: Mapping[str, Any]) -> tuple[Any, ...]:
        return values["model._target_"], str(values.get("data.keep")), len(values["data.copies"])

    if not trained:
        return None
    seconds = defaultdict(list)
    for result in trained:
        seconds[kind(result.config)].append(result.seconds.fit + result.seconds.test)
    every = [value for values in seconds.values() for value in values]
    to_come = sum(fmean(seconds.get(kind(run.config), every)) for run in left)
    return timedelta(seconds=round(to_come * elapsed / sum(every)))


@contextmanager
def watching(
    runs_dir: str, wave: Collection[str], tell: Callable[[Collection[Result], float], None]
) -> Iterator[None]:
    """Meanwhile look for records, which the jobs of every launcher leave, and tell when one comes.

    Args:
        runs_dir: Root of the folders of the runs.
        wave: Config hashes of the runs that are being trained.
        tell: Given the results that there are of them, and the seconds since the beginning.
    """
    ended = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        seen: set[str] = set()
        trained: dict[str, Result] = {}
        took = 0.0
        while not ended.wait(max(2, 20 * took)):  # among many folders it takes seconds to look
            begun = time.monotonic()
            there = {folder for folder, _, names in os.walk(runs_dir) if "result.json" in names}
            took = time.monotonic() - begun
            for folder in there - seen:
                with suppress(ConfigError):  # a damaged record, which its own job tells
                    result = RunFolder(Path(folder)).result()
                    if result and result.config_hash in wave:
                        trained[result.config_hash] = result
            seen |= there
            tell(trained.values(), time.monotonic() - started)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def train_all(
    runs: Sequence[PlannedRun], keys: StudyKeys, launcher: DictConfig
) -> tuple[int, list[str]]:
    """Train the runs that are not finished, in waves, and show how far it is.

    A run that waits for weights is in the wave after the runs that choose them.

    Args:
        runs: All of the study.
        keys: Where records are and come to.
        launcher: A choice in ``hydra/launcher``.

    Returns:
        The number of finished runs, and a line for each run that failed.

    Raises:
        ConfigError: Another study is at work in the same place.
    """
    roots = [keys.runs_dir, *keys.records_dirs]
    records = find_records(roots).results
    known: dict[str, PlannedRun] = {}
    for run in runs:
        known.setdefault(run.config_hash, run)
    failures: dict[str, str] = {}  # by config hash
    shown = (-1, -1)  # runs done and failed

    def tell(trained: Collection[Result] = (), elapsed: float = 0) -> None:
        nonlocal shown
        done = records.keys() | {result.config_hash for result in trained} | failures.keys()
        left = [run for run in ready if run.config_hash not in done]
        counts = (len(ready) - len(left) - len(failures), len(failures))
        if counts == shown:
            return
        shown = counts
        time_left = estimate_left(left, trained, elapsed)
        print(
            f"{counts[0]} of {len(ready)} runs done, {len(left)} to come, {counts[1]} failed"
            + (f", about {time_left} left" if time_left else ""),
            flush=True,
        )

    while True:
        ready = with_choices(known.values(), records)
        ended = records.keys() | failures.keys()
        wave = {
            run.config_hash: run for run in ready if not run.waits and run.config_hash not in ended
        }
        tell()
        if not wave:
            break
        with RunFolder(Path(keys.runs_dir)).lock(), watching(keys.runs_dir, wave, tell):
            outcomes = launch([run.overrides for run in wave.values()], keys.runs_dir, launcher)
        records = find_records(roots).results
        for (key, run), outcome in zip(wave.items(), outcomes, strict=True):
            if key not in records:
                reason = outcome["failure"] or f"its record, in {outcome['folder']}, is not here"
                failures[key] = f"{title(run)}: {reason}"
    incomplete = "its weight sweep is not complete, or not in study.experiments"
    lines = [*failures.values(), *(f"{title(run)}: {incomplete}" for run in ready if run.waits)]
    return sum(run.config_hash in records for run in ready), lines


def check_before_training(keys: StudyKeys, runs: Sequence[PlannedRun]) -> None:
    """Refuse what would fail only later.

    Raises:
        ConfigError: A value or a folder cannot work.
    """
    from mnist_imbalance.fit import check_parts  # slow to import

    methods = keys.study.methods
    first_of = {
        (run.experiment, *(run.choices.values() if methods else ())): run for run in reversed(runs)
    }
    check_parts(
        compose_with([*run.overrides, *(["loss=plain"] if run.waits else [])])
        for run in first_of.values()
    )
    report_dir = keys.study.report_dir or keys.runs_dir
    for key, folder in (("runs_dir", keys.runs_dir), ("study.report_dir", report_dir)):
        path = Path(folder).absolute()
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="study")
def job(config: DictConfig) -> None:
    """Do what Hydra composed."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        if HydraConfig.get().mode != RunMode.RUN:
            raise ConfigError("hydra.mode: a study has no sweep of its own; leave out -m")
        launcher = HydraConfig.get().launcher
        check_launcher(launcher)
        keys = check_study(config)
        runs = plan(keys.study)
        check_before_training(keys, runs)
        finished, failures = train_all(runs, keys, launcher)
        if finished:
            from mnist_imbalance.report.page import write_report  # its imports wait till now

            write_report(config)
    if failures:
        sys.exit("\n".join([f"error: {len(failures)} runs failed", *failures]))


def main() -> None:
    """Run the command line."""
    start(job)


if __name__ == "__main__":
    main()
