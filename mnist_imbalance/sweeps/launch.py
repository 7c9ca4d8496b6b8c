"""One seam for all launchers: command lines in, outcomes out as they come."""

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt
from tqdm import tqdm

from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.errors import STOPPED, ConfigError, describe_failure, naming

if TYPE_CHECKING:
    import pandas

Job = tuple[str, ...]  # a training command line
Chunk = Sequence[Job]  # runs that one process trains, side by side if there are several


@dataclass(frozen=True)
class Outcome:
    """How a run ended; small and plain, for it may come from another machine."""

    job: Job
    folder: str = ""  # the run folder
    failure: str | None = None  # why there is no result, in one line
    val_balanced_accuracy: float | None = None
    val: dict[str, float] = field(default_factory=dict)  # accuracies by group and of "all" images
    test: dict[str, float] = field(default_factory=dict)


RunChunk = Callable[[Chunk], list[Outcome]]


def end_with_parent() -> None:
    """End a worker process when its parent ends."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        while parent and os.getppid() == parent.pid:  # joblib's workers have no sentinel
            time.sleep(0.5)
        os._exit(1)  # the main thread computes

    if parent and "follow" not in {thread.name for thread in threading.enumerate()}:
        threading.Thread(target=follow, name="follow", daemon=True).start()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT while workers start: they inherit the mask, so only this process handles Ctrl-C.

    Another thread receives the signal, and Python handles it in the main one.
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


def compose_job(common: Sequence[str], job: Job) -> DictConfig:
    """Compose a job as Hydra composes the jobs of a sweep, with Hydra's part and the run folder."""
    config = compose_with(["hydra.mode=MULTIRUN", *common, *job], with_hydra=True)
    HydraConfig.instance().set_config(config)  # for the resolver in the name of the folder
    folder = Path(config.hydra.sweep.dir).absolute() / config.hydra.sweep.subdir
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    return config


def run_chunk(place: Path, common: Sequence[str], chunk: Chunk) -> list[Outcome]:
    """Train runs, several of them side by side, and return how each ended.

    Args:
        place: The working folder of the command.
        common: Overrides of all jobs, see `common_overrides`.
        chunk: The other overrides of each.
    """
    end_with_parent()
    os.chdir(place)
    from mnist_imbalance.sweeps.batched import Run, fit_together
    from mnist_imbalance.training.folder import RunFolder

    outcomes, runs = [], {}
    for job in chunk:
        try:
            config, hydra = take_apart(compose_job(common, job))
            runs[job] = Run(config, hydra, RunFolder(Path(hydra.runtime.output_dir)))
        except Exception as error:
            outcomes.append(Outcome(job, failure=describe_failure(error)))
    try:
        in_main_process = multiprocessing.parent_process() is None
        results = fit_together([*runs.values()], show_progress=in_main_process)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    finally:
        for run in runs.values():
            remove_empty(run.folder.path, Path(run.hydra.sweep.dir).absolute())
    for (job, run), result in zip(runs.items(), results, strict=True):
        folder = str(run.folder.path)
        if isinstance(result, str):
            outcomes.append(Outcome(job, folder, result))
            continue
        val, test = (
            {**scores.of_groups(result.groups), "all": scores.accuracy}
            for scores in (result.val, result.test)
        )
        outcomes.append(Outcome(job, folder, None, result.val.balanced_accuracy, val, test))
    return outcomes


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and its parents below ``top``, as far as they are empty."""
    with suppress(OSError):
        for path in (folder, *folder.parents):
            if top not in path.parents:
                return
            path.rmdir()


def with_joblib(
    run: RunChunk, chunks: Sequence[Chunk], *, n_jobs: int = -1, **keys: Any
) -> Iterator[list[Outcome]]:
    """In processes of this machine; ``keys`` are those of `joblib.Parallel`."""
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs, return_as="generator_unordered", **keys)
    yield from parallel(delayed(run)(chunk) for chunk in chunks)


def with_slurm(
    run: RunChunk, chunks: Sequence[Chunk], *, cluster: str, submitit_folder: str, **keys: Any
) -> Iterator[list[Outcome]]:
    """As jobs of Slurm, one array; ``keys`` are submitit's."""
    from submitit import AutoExecutor
    from submitit.helpers import Checkpointable, as_completed

    class Requeued(Checkpointable):  # done again after its time, the runs of a chunk resume
        def __call__(self, chunk: Chunk) -> list[Outcome]:
            return run(chunk)

    shared = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
    shared |= {"name", "stderr_to_stdout"}  # keys of submitit for any cluster
    times = keys.pop("max_num_timeout")
    executor = AutoExecutor(submitit_folder, cluster=cluster, slurm_max_num_timeout=times)
    executor.update_parameters(
        **{key if key in shared else f"slurm_{key}": value for key, value in keys.items()}
    )
    jobs = executor.map_array(Requeued(), chunks)  # type: ignore[no-untyped-call]
    chunk_of = {job.job_id: chunk for job, chunk in zip(jobs, chunks, strict=True)}
    for job in as_completed(jobs, poll_frequency=1):
        if job.exception() is None:
            yield job.result()
        else:
            failure = f"Slurm's job {job.job_id} has no result, see {job.paths.stderr}"
            yield [Outcome(each, failure=failure) for each in chunk_of[job.job_id]]


def with_ray(
    run: RunChunk, chunks: Sequence[Chunk], *, address: str | None, threads: int, **options: Any
) -> Iterator[list[Outcome]]:
    """As tasks of Ray, on this machine or a cluster; ``options`` are a task's."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    try:
        if address and address != "auto":  # Ray would wait for two minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        handed_on = ("PYTHONPATH", "PYTHONWARNINGS", "MLFLOW_", "WANDB_")
        variables = {key: os.environ[key] for key in os.environ if key.startswith(handed_on)}
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": variables},
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"hydra.launcher.address: no Ray answers at {address} ({error}); must be HOST:PORT of "
            "`ray start --head`, auto where a node runs, or null"
        ) from error
    task: Any = ray.remote(lambda chunk: run(chunk)).options(num_cpus=threads, **options)
    left = {task.remote(chunk): chunk for chunk in chunks}
    try:
        while left:
            [done], _ = ray.wait([*left])
            chunk = left.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                failure = f"Ray lost it: {' '.join(str(error).split())}"
                yield [Outcome(job, failure=failure) for job in chunk]
    finally:
        ray.shutdown()


LAUNCHERS: dict[str, Callable[..., Iterator[list[Outcome]]]] = {
    **dict.fromkeys(("basic", "batched"), map),  # in this process
    **{"joblib": with_joblib, "slurm": with_slurm, "ray": with_ray},
}
EXTRAS = {"slurm": "submitit", "ray": "ray"}  # packages that an extra brings


class LauncherKeys(BaseModel, strict=True):
    """The keys that are not a library's."""

    on_cpu: bool = False
    address: str | None = None
    num_gpus: Annotated[FiniteFloat, Field(ge=0)] = 0
    max_retries: Annotated[int, Field(ge=-1)] = 0
    side_by_side: PositiveInt | None = 1


def check_launcher(hydra: HydraConf) -> None:
    """Refuse a launcher that cannot work here."""
    name = hydra.runtime.choices["hydra/launcher"]
    if name not in LAUNCHERS:
        raise ConfigError(f"hydra/launcher: must be one of {', '.join(LAUNCHERS)}, got {name}")
    if name in EXTRAS and not find_spec(EXTRAS[name]):
        raise ConfigError(f"hydra/launcher: {name} is not installed; pip install -e '.[{name}]'")
    if name == "slurm" and hydra.launcher.cluster == "slurm" and not shutil.which("srun"):
        raise ConfigError("hydra/launcher: there is no srun here; start this where Slurm is")
    with naming("hydra.launcher"):
        LauncherKeys.model_validate(OmegaConf.to_container(hydra.launcher, resolve=True))


def launch(jobs: Sequence[Job], hydra: HydraConf, common: Sequence[str] = ()) -> list[Outcome]:
    """Train runs and return how each ended, in the order of the jobs.

    Args:
        jobs: Command lines.
        hydra: Hydra's part of the command's config, for the launcher and the folders.
        common: Overrides that stand before those of each job.
    """
    before = HydraConfig.instance().cfg
    how = hydra.runtime.choices["hydra/launcher"]
    keys: Any = OmegaConf.to_container(hydra.launcher, resolve=True)
    keys.pop("_target_")
    searched = [
        f"{source.schema}://{source.path}"
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" or "searchpath" in source.provider
    ]
    common = [f"hydra.searchpath={searched}", *common]

    def compose(job: Job) -> DictConfig:
        return take_apart(compose_job(common, job))[0]

    at_most = keys.pop("side_by_side", 1)
    if how == "ray":
        keys["threads"] = compose(jobs[0]).threads
    if how == "batched":
        import torch  # slow to import

        if not (keys.pop("on_cpu") or torch.cuda.is_available()):
            how, at_most = "joblib", 1
    chunks: Sequence[Chunk] = [[job] for job in dict.fromkeys(jobs)]
    if at_most != 1:
        from mnist_imbalance.sweeps.batched import similar

        chunks = similar(jobs, compose, at_most)
    run = partial(run_chunk, Path.cwd(), common)
    shared = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    ended: dict[Job, Outcome] = {}
    hidden = True if how in ("basic", "batched") else None  # each run shows its own bar
    with sigint_blocked(), tqdm(total=len({*jobs}), unit="run", disable=hidden) as bar:
        for outcomes in LAUNCHERS[how](run, chunks, **keys):
            for outcome in outcomes:
                ended[outcome.job] = outcome
                own = " ".join(each for each in outcome.job if each not in shared)
                state = "failed" if outcome.failure else "done"
                with tqdm.external_write_mode():
                    print(f"{len(ended)} of {bar.total} {state}: {own}", flush=True)
            bar.update(len(outcomes))
    HydraConfig.instance().cfg = before  # a job in this process has set its own
    return [ended[job] for job in jobs]


def mean_over_seeds(accuracies: "pandas.Series[float]") -> str:
    """Return the mean in %, of several ± half of its 95 % interval, which takes them for normal."""
    from scipy.stats import t  # slow to import

    n = accuracies.count()
    half = f" ± {100 * t.ppf(0.975, n - 1) * accuracies.sem():.1f}" if n > 1 else ""
    return f"{100 * accuracies.mean():.1f}{half}"


def tabulate(outcomes: Sequence[Outcome], split: str) -> str:
    """Return accuracies in %, a row for the overrides that differ but the seed."""
    import pandas

    overrides = [
        {o.split("=")[0]: o.partition("=")[2] for o in outcome.job} for outcome in outcomes
    ]
    keys = [key for key in overrides[0] if key != "seed" and len({o[key] for o in overrides}) > 1]
    scores = [getattr(outcome, split) for outcome in outcomes]
    rows = pandas.DataFrame([own | score for own, score in zip(overrides, scores, strict=True)])
    groups = rows.assign(**{"": ""}).groupby(keys or "", sort=False)
    names = [*dict.fromkeys(name for score in scores for name in score)]
    table = groups[names].agg(mean_over_seeds)
    table.insert(0, "n", groups.size())
    shown: str = table.reset_index(drop=not keys).to_string(index=False)
    return f"{split} accuracy %\n{shown}\n"


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the table of a sweep."""
    done = [*{outcome.folder: outcome for outcome in outcomes if not outcome.failure}.values()]
    if done:
        print(tabulate(done, "val"), tabulate(done, "test"), sep="\n")
        print("several seeds: mean ± half of its 95 % interval; choose by val")
        common = os.path.commonpath([outcome.folder for outcome in done])
        logged = any((Path(outcome.folder) / "tensorboard").exists() for outcome in done)
        look = "TensorBoard: tensorboard --logdir" if logged else "run folders, in"
        print(f"{look} '{os.path.relpath(common)}'")
    failed = [f"{' '.join(each.job)}: {each.failure}" for each in outcomes if each.failure]
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of {len(outcomes)} jobs failed", *failed]))
