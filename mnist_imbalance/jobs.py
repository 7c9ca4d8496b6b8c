"""What a job of a sweep or a study does, and what it gives back to the command."""

import logging
import multiprocessing
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, open_dict, read_write
from pydantic import BaseModel, Field, FiniteFloat
from rich.console import Console

from mnist_imbalance.config import check_installed, compose_with, hydra_at_conf
from mnist_imbalance.errors import STOPPED, ConfigError, explain, naming
from mnist_imbalance.files import remove_if_empty
from mnist_imbalance.processes import end_with_parent

if TYPE_CHECKING:
    from mnist_imbalance.runs import Result


class Outcome(TypedDict):
    """How a job ended, small and plain, for it may come from another machine.

    Attributes:
        folder: The run folder.
        failure: Why there is no result, in one line; None if there is one.
        val_balanced_accuracy: Mean of the labels' validation accuracies, in [0, 1], for sweepers
            that optimise; None without a result.
        val: Validation accuracies by group and of "all" images; empty without a result.
        test: Test accuracies likewise.
    """

    folder: str
    failure: str | None
    val_balanced_accuracy: float | None
    val: dict[str, float]
    test: dict[str, float]


def as_outcome(folder: Path, reached: "Result | str") -> Outcome:
    """Return how a job ended.

    Args:
        folder: The run folder.
        reached: The run's result, or why it has none.
    """
    if isinstance(reached, str):
        return Outcome(
            folder=str(folder), failure=reached, val_balanced_accuracy=None, val={}, test={}
        )
    return Outcome(
        folder=str(folder),
        failure=None,
        val_balanced_accuracy=reached.val.balanced_accuracy,
        val=reached.val.by_group(reached.groups),
        test=reached.test.by_group(reached.groups),
    )


@contextmanager
def leave_ctrl_c_to_us() -> Iterator[None]:
    """Let the processes that are started meanwhile not hear it, from their first moment on.

    They inherit what the main thread blocks. Another thread hears it instead, and Python answers in
    the main one, whichever hears it.
    """
    multiprocessing.get_context("spawn").Lock()  # starts a tracker, which unblocks
    ended = threading.Event()
    threading.Thread(target=ended.wait, daemon=True).start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        ended.set()


def run(config: DictConfig) -> "Result":
    """Train in the folder that Hydra gives and return the result."""
    in_main_process = multiprocessing.parent_process() is None
    with Console(stderr=True, quiet=not in_main_process).status("loading PyTorch"):
        from mnist_imbalance.fit import fit_run
        from mnist_imbalance.runs import RunFolder  # the heavy imports wait, --help does not

    settings = HydraConfig.get()
    folder = RunFolder(Path(settings.runtime.output_dir))
    try:
        if settings.mode == RunMode.RUN and settings.sweeper.params:
            swept = ", ".join(settings.sweeper.params)
            raise ConfigError(f"experiment: this overlay sweeps {swept}; add -m")
        return fit_run(config, settings, folder, show_progress=in_main_process)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    finally:
        remove_if_empty(folder.path, top=Path(settings.sweep.dir).absolute())


def run_in_sweep(config: DictConfig) -> Outcome:
    """Do one job of many and return how it ended, so that a failure stops no other job."""
    end_with_parent()
    reached: Result | str
    try:
        reached = run(config)
    except Exception as error:
        reached = explain(error)
    return as_outcome(Path(HydraConfig.get().runtime.output_dir), reached)


def processes(launcher: DictConfig) -> int:
    """Return how many jobs are done at a time where joblib does them."""
    from joblib import cpu_count  # which its launcher imports, too

    asked: int = launcher.get("n_jobs", -1) or 1
    return asked if asked > 0 else max(1, cpu_count() + 1 + asked)


def jobs_at_once() -> int:
    """Return how many jobs are done at a time where this one is: by joblib, Slurm or one by one."""
    launcher = HydraConfig.get().launcher
    if multiprocessing.parent_process() is None:
        return launcher.get("array_parallelism", 1)  # type: ignore[no-any-return]
    return processes(launcher)


def run_and_tell(
    task: TaskFunction, own_keys: Collection[str], jobs: int | None, config: DictConfig
) -> Outcome:
    """Do one job of many, and print at once how it ended.

    Args:
        task: Does it and returns an `Outcome`.
        own_keys: What its overrides change, by which it is known.
        jobs: How many there are, for an estimate of the time that is left; None for none.
        config: Of the job.
    """
    begun = time.monotonic()
    outcome: Outcome = task(config)
    settings = HydraConfig.get()
    number, at_once = settings.job.num, jobs_at_once()
    rounds_left = (jobs - 1) // at_once - number // at_once if jobs else 0
    left = timedelta(seconds=round(rounds_left * (time.monotonic() - begun)))
    tell(
        outcome,
        [each for each in settings.overrides.task if each.partition("=")[0] in own_keys],
        f"{number + 1} of {jobs} " if jobs else "",
        f", about {left} left" if left else "",
    )
    return outcome


def tell(outcome: Outcome, overrides: Iterable[str], before: str = "", after: str = "") -> None:
    """Print how the job of these overrides ended, and something before and after it."""
    ended = "failed" if outcome["failure"] else "done"
    print(f"{before}{ended}: {' '.join(overrides)}{after}", flush=True)


def own_overrides(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return what each job is told and not all of them are."""
    shared_by_all = set.intersection(*map(set, jobs))
    return [[each for each in job if each not in shared_by_all] for job in jobs]


class LauncherKeys(BaseModel, strict=True):
    """The keys that our own launchers have."""

    on_cpu: bool = False
    address: str | None = None
    num_gpus: Annotated[FiniteFloat, Field(ge=0)] = 0
    max_retries: Annotated[int, Field(ge=-1)] = 0
    side_by_side: Annotated[int, Field(gt=0)] = 1


OWN_KEYS = LauncherKeys.model_fields.keys()


def check_launcher(launcher: DictConfig) -> None:
    """Refuse a launcher that cannot work here.

    Raises:
        ConfigError: It is Slurm's or Ray's, and there is no such thing, or it has a value that
            cannot work.
    """
    name = launcher._target_.rpartition(".")[2].removesuffix("Launcher").lower()
    check_installed(name)
    if name == "slurm" and not shutil.which("srun"):
        raise ConfigError("hydra/launcher: there is no srun here; start this where Slurm is")
    with naming("hydra.launcher"):
        LauncherKeys.model_validate({key: launcher[key] for key in OWN_KEYS & launcher.keys()})


def quiet_hydra() -> None:
    """Let Hydra and its launchers not say what is told anyway, each job's overrides in full."""
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)


def as_override(key: str, value: str) -> str:
    """Return ``key=value`` as Hydra reads it, whatever the value holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def launch(jobs: Sequence[Sequence[str]], runs_dir: str, launcher: DictConfig) -> list[Outcome]:
    """Train runs as a sweep of the training command line would, but of any overrides.

    Args:
        jobs: What each run's command line would be given, ``key=value``.
        runs_dir: Root of the run folders.
        launcher: What a choice in ``hydra/launcher`` describes.

    Returns:
        How each ended.
    """
    place = as_override("runs_dir", runs_dir)
    own_keys = {override.partition("=")[0] for job in jobs for override in job}
    with hydra_at_conf():
        keys = ["hydra.mode=MULTIRUN", "hydra/hydra_logging=none", place]
        config = compose_with(keys, with_hydra=True)
        with read_write(config), open_dict(config):
            config.hydra.launcher = launcher
        chosen = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(
                GlobalHydra.instance().config_loader(),
                Callback(),  # type: ignore[arg-type]  # Hydra's class for several is private
            ),
            task_function=partial(run_and_tell, run_in_sweep, own_keys, None),
            config=config,
        )
        quiet_hydra()
        with leave_ctrl_c_to_us():
            returned = chosen.launch([[*each, place] for each in jobs], initial_job_idx=0)
    return [job.return_value for job in returned]
