"""Train command lines with any launcher: `launch`, `run_chunk` in its processes, then `show`."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write
from tqdm import tqdm

from mnist_imbalance.config import activate_hydra, compose_with
from mnist_imbalance.errors import STOPPED, ConfigError, describe_failure, naming

Job = tuple[str, ...]  # a training command line
Chunk = Sequence[Job]  # jobs of one process; several are trained side by side


class Outcome(NamedTuple):
    """How a run ended."""

    job: Job
    result: Any  # its `Result`, or a line that says why there is none
    folder: str = ""  # the run folder

    @property
    def failure(self) -> str:
        """Why there is no result; empty if there is one."""
        return self.result if isinstance(self.result, str) else ""


RunChunk = Callable[[Chunk], list[Outcome]]
EXTRAS = {"slurm": "submitit", "ray": "ray"}  # packages that an extra brings


def check_launcher(hydra: HydraConf) -> None:
    """Refuse a launcher that cannot work here."""
    name = hydra.runtime.choices["hydra/launcher"]
    if name not in LAUNCHERS:
        raise ConfigError(f"hydra/launcher: must be one of {', '.join(LAUNCHERS)}, got {name}")
    if name in EXTRAS and not find_spec(EXTRAS[name]):
        raise ConfigError(f"hydra/launcher: {name} is not installed; pip install -e '.[{name}]'")
    if (hydra.launcher.get("side_by_side") or 1) < 1:
        raise ConfigError("hydra.launcher.side_by_side: must be above 0, or null for all")


def launch(jobs: Sequence[Job], hydra: HydraConf, common: Sequence[str] = ()) -> list[Outcome]:
    """Train runs and return how each ended, in the order of the jobs.

    Args:
        jobs: Command lines.
        hydra: Hydra's part of the command's config.
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
    at_most = keys.pop("side_by_side", 1)
    if how == "batched":
        import torch  # slow to import

        if not (keys.pop("on_cpu") or torch.cuda.is_available()):
            how, at_most = "joblib", 1
    chunks: Sequence[Chunk] = [[job] for job in dict.fromkeys(jobs)]
    if at_most != 1:
        from mnist_imbalance.sweeps.batched import similar

        chunks = similar(jobs, lambda job: compose_job(common, job)[0], at_most)
    run = partial(run_chunk, Path.cwd(), common)
    shared = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    ended: dict[Job, Outcome] = {}
    hidden = True if how in ("basic", "batched") else None  # each run shows its own bar
    with naming("hydra.launcher"):  # keys that it does not have
        in_any_order = LAUNCHERS[how](run, chunks, **keys)
    with sigint_blocked(), tqdm(total=len({*jobs}), unit="run", disable=hidden) as bar:
        for outcomes in in_any_order:
            for outcome in outcomes:
                ended[outcome.job] = outcome
                own = " ".join(each for each in outcome.job if each not in shared)
                state = "failed" if outcome.failure else "done"
                with tqdm.external_write_mode():
                    print(f"{len(ended)} of {bar.total} {state}: {own}", flush=True)
            bar.update(len(outcomes))
    HydraConfig.instance().cfg = before  # a job in this process has set its own
    return [ended[job] for job in jobs]


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT while workers start: they inherit the mask, so only this process handles Ctrl-C.

    Another thread receives the signal, and Python handles it in the main one.
    """
    multiprocessing.get_context("spawn").Lock()  # starts a tracker, which unblocks
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def compose_job(common: Sequence[str], job: Job) -> tuple[DictConfig, HydraConf]:
    """Compose a job as Hydra composes the jobs of a sweep; return its config and Hydra's part."""
    overrides = ["hydra.mode=MULTIRUN", *common, *job]
    config, hydra = activate_hydra(compose_with(overrides, with_hydra=True))
    runtime: Any = hydra.runtime
    with read_write(runtime):
        runtime.output_dir = str(Path(hydra.sweep.dir).absolute() / hydra.sweep.subdir)
    return config, hydra


def run_chunk(cwd: Path, common: Sequence[str], chunk: Chunk) -> list[Outcome]:
    """Train the runs of a chunk in the working folder of the command that launched it."""
    end_with_parent()
    os.chdir(cwd)
    from mnist_imbalance.sweeps.batched import Run, fit_runs
    from mnist_imbalance.training.folder import RunFolder

    outcomes, runs = [], {}
    for job in chunk:
        try:
            config, hydra = compose_job(common, job)
            runs[job] = Run(config, hydra, RunFolder(Path(hydra.runtime.output_dir)))
        except Exception as error:
            outcomes.append(Outcome(job, describe_failure(error)))
    try:
        in_main_process = multiprocessing.parent_process() is None
        results = fit_runs([*runs.values()], show_progress=in_main_process)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    finally:
        for run in runs.values():
            remove_empty(run.folder.path, Path(run.hydra.sweep.dir).absolute())
    for (job, run), result in zip(runs.items(), results, strict=True):
        outcomes.append(Outcome(job, result, str(run.folder.path)))
    return outcomes


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and its parents below ``top``, as far as they are empty."""
    with suppress(OSError):
        while top in folder.parents:
            folder.rmdir()
            folder = folder.parent


@cache  # once per process
def end_with_parent() -> None:
    """End a worker process when its parent ends."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        while parent and os.getppid() == parent.pid:  # joblib's workers have no sentinel
            time.sleep(0.5)
        os._exit(1)  # the main thread computes

    if parent:
        threading.Thread(target=follow, daemon=True).start()


def in_process(run: RunChunk, chunks: Sequence[Chunk]) -> Iterator[list[Outcome]]:
    """In this process, one chunk after the other."""
    return map(run, chunks)


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

    class Requeued(Checkpointable):  # started again after its time limit, its runs resume
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
            yield [Outcome(each, failure) for each in chunk_of[job.job_id]]


def with_ray(
    run: RunChunk, chunks: Sequence[Chunk], *, address: str | None, **options: Any
) -> Iterator[list[Outcome]]:
    """As tasks of Ray, on this machine or a cluster; ``options`` are a task's."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    handed_on = ("PYTHONPATH", "PYTHONWARNINGS", "MLFLOW_", "WANDB_")
    variables = {key: os.environ[key] for key in os.environ if key.startswith(handed_on)}
    with naming("hydra.launcher.address"):
        if address and address != "auto":  # Ray would wait for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": variables},
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    task: Any = ray.remote(lambda chunk: run(chunk)).options(**options)
    left = {task.remote(chunk): chunk for chunk in chunks}
    try:
        while left:
            [done], _ = ray.wait([*left])
            chunk = left.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                failure = f"Ray lost it: {' '.join(str(error).split())}"
                yield [Outcome(job, failure) for job in chunk]
    finally:
        ray.shutdown()


LAUNCHERS: dict[str, Callable[..., Iterator[list[Outcome]]]]
LAUNCHERS = {"basic": in_process, "batched": in_process, "joblib": with_joblib}
LAUNCHERS |= {"slurm": with_slurm, "ray": with_ray}


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the table of a sweep."""
    done = [*{outcome.folder: outcome for outcome in outcomes if not outcome.failure}.values()]
    if done:
        print(f"accuracy in %\n{tabulate(done)}\n")
        print("several seeds: mean ± half of its 95 % interval; choose by val")
        common = os.path.commonpath([outcome.folder for outcome in done])
        print(f"run folders (tensorboard --logdir): '{os.path.relpath(common)}'")
    failed = [f"{' '.join(each.job)}: {each.failure}" for each in outcomes if each.failure]
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of {len(outcomes)} jobs failed", *failed]))


def tabulate(done: Sequence[Outcome]) -> str:
    """Return accuracies in %, one row per combination of the overrides that vary, seed aside."""
    import pandas

    scores: list[dict[str, float]] = []
    for _, result, _ in done:
        scores.append({})
        for split in ("val", "test"):
            own = getattr(result, split)
            for name, accuracy in (own.by_group(result.groups) | {"all": own.accuracy}).items():
                scores[-1][f"{split} {name}"] = accuracy
    overrides = pandas.DataFrame(
        [dict(override.partition("=")[::2] for override in outcome.job) for outcome in done]
    )
    keys = [overrides[key] for key in overrides if key != "seed" and overrides[key].nunique() > 1]
    groups = pandas.DataFrame(scores).groupby(keys or (lambda _: 0), sort=False)
    table = groups.agg(mean_over_seeds)
    table.insert(0, "n", groups.size())
    return str(table.reset_index(drop=not keys).to_string(index=False))


def mean_over_seeds(accuracies: Any) -> str:
    """Return the mean in %, with half its 95 % t-interval if there are several."""
    from scipy.stats import t  # slow to import

    n = accuracies.count()
    half = f" ± {100 * t.ppf(0.975, n - 1) * accuracies.sem():.1f}" if n > 1 else ""
    return f"{100 * accuracies.mean():.1f}{half}"
