"""Train all runs of a study, as many at a time as there are cores, and write its report.

It can be stopped at any time; the same command does the rest. study=quick does it all in minutes.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mnist_imbalance.commandline import (
    compose_with,
    explain,
    hush_libraries,
    one_line,
    one_line_errors,
    overrides_from_arguments,
    take_apart,
)
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.plan import PlannedRun, StudyKeys, plan, read_study, with_chosen_weights
from mnist_imbalance.runs import Result, RunFolder, find_records


def as_override(key: str, value: str) -> str:
    """Quote a value for Hydra, whatever it holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def train_planned(overrides: Sequence[str], runs_dir: str) -> Result:
    """Train one run as the training command line would, in the folder that it would use.

    Raises:
        ConfigError: Whatever went wrong, in one line; of the unexpected, the traceback is printed.
    """
    from mnist_imbalance.training import train  # in the workers only

    try:
        config = compose_with([*overrides, as_override("runs_dir", runs_dir)], with_hydra=True)
        task, hydra = take_apart(config)
        folder = RunFolder(Path(hydra.run.dir).absolute())
        return train(task, hydra, folder, show_progress=False)
    except Exception as error:
        raise ConfigError(explain(error)) from None


@contextmanager
def leave_ctrl_c_to_us() -> Iterator[None]:
    """Let the processes that are started meanwhile not hear it, from their first moment on."""
    heard_by = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard_by)


def begin_worker() -> None:
    """End with the study's own process, however it ends."""

    def follow() -> None:
        if study := multiprocessing.parent_process():
            study.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def title(run: PlannedRun) -> str:
    """Name a run for a line of the screen."""
    return " ".join(run.overrides).removeprefix("experiment=")


def estimate_left(
    left: Sequence[PlannedRun], finished: Sequence[Result], workers: int
) -> timedelta | None:
    """Estimate when all runs are done, in whole seconds; None as long as nothing is known.

    Args:
        left: Runs to come.
        finished: Runs of the same study.
        workers: Runs at a time.
    """

    def kind(values: Mapping[str, Any]) -> tuple[Any, ...]:
        return values["model._target_"], values["data.keep"], len(values["data.copies"])

    if not finished:
        return None
    seconds = defaultdict(list)
    for result in finished:
        seconds[kind(result.config)].append(result.seconds.fit + result.seconds.test)
    overall = fmean(value for values in seconds.values() for value in values)
    each = (fmean(seconds.get(kind(run.values), [overall])) for run in left)
    return timedelta(seconds=round(sum(each) / workers))


def train_all(
    runs: Sequence[PlannedRun], records: Mapping[str, Result], runs_dir: str, workers: int
) -> tuple[dict[str, Result], list[str]]:
    """Train the runs that are not finished, and show how far it is.

    Args:
        runs: All of the study.
        records: Finished runs by config hash.
        runs_dir: Root of the folders of the others.
        workers: Runs at a time.

    Returns:
        The finished runs by config hash, and a line for each run that failed.

    Raises:
        ConfigError: Another study is at work in the same place.
    """
    known: dict[str, PlannedRun] = {}
    for run in runs:
        known.setdefault(run.config_hash, run)
    finished = {key: records[key] for key in known if key in records}
    waiting = [run for key, run in known.items() if key not in finished]
    trained: list[Result] = []
    running: dict[Future[Result], PlannedRun] = {}
    failures: list[str] = []
    progress = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())

    def how_far() -> str:
        left = [*running.values(), *waiting]
        time_left = estimate_left(left, trained or list(finished.values()), workers)
        return (
            f"{len(known) - len(left) - len(failures)} of {len(known)} runs done, "
            f"{len(running)} running, {len(waiting)} waiting, {len(failures)} failed"
            + (f", about {time_left} left" if time_left else "")
        )

    spawn = multiprocessing.get_context("spawn")
    with (
        RunFolder(Path(runs_dir)).lock() if waiting else nullcontext(),
        progress,
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=begin_worker) as pool,
    ):
        study_line = progress.add_task(how_far())
        lines = {}
        progress.console.print(how_far())
        try:
            while True:
                for run in waiting.copy():
                    if len(running) == workers:
                        break
                    ready = with_chosen_weights(run, runs, finished) if run.waits else run
                    if ready.waits:
                        continue
                    waiting.remove(run)
                    if record := records.get(ready.config_hash):
                        finished[ready.config_hash] = record
                    if ready.config_hash in finished:
                        continue
                    with leave_ctrl_c_to_us():  # a worker starts with its first run
                        future = pool.submit(train_planned, ready.overrides, runs_dir)
                    running[future] = ready
                    lines[future] = progress.add_task(title(ready))
                progress.update(study_line, description=how_far())
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(future)
                    progress.remove_task(lines.pop(future))
                    error = future.exception()
                    if error is None:
                        finished[run.config_hash] = future.result()
                        trained.append(future.result())
                    elif isinstance(error, BrokenExecutor):
                        raise error
                    else:
                        failures.append(f"{title(run)}: {one_line(error)}")
                    end = "failed" if error else "done"
                    progress.console.print(f"{end}: {title(run)}\n{how_far()}", soft_wrap=True)
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise
    incomplete = "its weight sweep is not complete, or not in study.experiments"
    return finished, failures + [f"{title(run)}: {incomplete}" for run in waiting]


def check_before_training(keys: StudyKeys, runs: Sequence[PlannedRun]) -> None:
    """Refuse what would fail only later.

    Raises:
        ConfigError: A value or a folder cannot work.
    """
    from mnist_imbalance.config import check  # slow to import
    from mnist_imbalance.training import build_parts

    first_of = {run.experiment: run for run in reversed(runs)}
    for run in first_of.values():
        config = compose_with([*run.overrides, *(["loss=plain"] if run.waits else [])])
        check(config)
        build_parts(config)
    for key, folder in (("runs_dir", keys.runs_dir), ("study.report_dir", keys.study.report_dir)):
        path = Path(folder).absolute()
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")


def main() -> None:
    """Run the command line."""
    hush_libraries()
    with one_line_errors():
        overrides = overrides_from_arguments(__doc__, "study")
        keys = read_study(overrides)
        runs = plan(keys.study)
        records = find_records([keys.runs_dir, *keys.records_dirs]).results
        check_before_training(keys, runs)
        workers = keys.workers or os.cpu_count() or 1
        finished, failures = train_all(runs, records, keys.runs_dir, workers)
        if finished:
            from mnist_imbalance.report.write import write_report  # its imports wait till now

            write_report(keys)
    if failures:
        sys.exit("\n".join([f"error: {len(failures)} runs failed", *failures]))


if __name__ == "__main__":
    main()
