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


def launch(jobs: Chunk, hydra: HydraConf, common: Job = (), earlier: int = 0) -> list[Outcome]:
    """Train runs after ``earlier`` others; return how each ended, in the order of the jobs."""
    before = HydraConfig.instance().cfg
    how = hydra.runtime.choices["hydra/launcher"]
    keys: Any = OmegaConf.to_container(hydra.launcher, resolve=True)
    keys.pop("_target_")
    searched = [
        f"{source.schema}://{source.path}"
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" or "searchpath" in source.provider
    ]
    common = (f"hydra.searchpath={searched}", *common)
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
    ended, total = dict[Job, Outcome](), earlier + len({*jobs})
    hidden = True if how in ("basic", "batched") else None  # each run shows its own bar
    with naming("hydra.launcher"):  # keys that it does not have
        in_any_order = LAUNCHERS[how](run, chunks, **keys)
    with sigint_blocked(), tqdm(total=len({*jobs}), unit="run", disable=hidden) as bar:
        for outcomes in in_any_order:
            for outcome in outcomes:
                ended[outcome.job] = outcome
                own = " ".join(each for each in outcome.job if each not in shared)
                val = 0 if outcome.failure else outcome.result.val.balanced_accuracy
                state = "failed" if outcome.failure else f"done, val {val:.1%}"
                with tqdm.external_write_mode():
                    print(f"{earlier + len(ended)} of {total} {state}: {own}", flush=True)
            bar.update(len(outcomes))
    HydraConfig.instance().cfg = before  # a job in this process has set its own
    return [ended[job] for job in jobs]


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT while workers start, who inherit this: only this process handles Ctrl-C."""
    multiprocessing.get_context("spawn").Lock()  # starts a tracker, which unblocks
    # another thread receives the signal, and Python handles it in the main one
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
LAUNCHERS = {"basic": map, "batched": map, "joblib": with_joblib}  # these in this process
LAUNCHERS |= {"slurm": with_slurm, "ray": with_ray}


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the table of a sweep, and write it to ``sweep.csv`` beside the run folders."""
    from mnist_imbalance.records import result, table  # slow to import

    done = {outcome.folder: outcome for outcome in outcomes if not outcome.failure}
    if done:
        jobs = [dict(word.partition("=")[::2] for word in own.job) for own in done.values()]
        rows = [table.row_of(own.result, Path(folder)) for folder, own in done.items()]
        text, numbers = tabulate(jobs, rows)
        common = os.path.commonpath(done)
        result.write_whole(Path(common, "sweep.csv"), numbers)
        print(f"{text}\nrun folders (tensorboard --logdir): '{os.path.relpath(common)}'")
    failed = [f"{' '.join(each.job)}: {each.failure}" for each in outcomes if each.failure]
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of {len(outcomes)} jobs failed", *failed]))


def tabulate(names: Any, runs: Any) -> tuple[str, str]:
    """Return accuracies of runs, in %, by the names that vary but for seed: as text and as CSV."""
    import pandas

    from mnist_imbalance.records.table import accuracies

    names, runs = pandas.DataFrame(names).fillna(""), pandas.DataFrame(runs)
    keys = [key for key in names if key != "seed" and names[key].nunique() > 1]
    row = names.groupby(keys, sort=False).ngroup() if keys else pandas.Series(0, names.index)
    seeds, parts = names.get("seed", row * 0), []
    for split in ("val", "test"):
        parts.append(accuracies(runs, split).filter(regex=r"\D").add_prefix(f"{split} "))
        parts.append(runs[f"{split}_balanced_accuracy"].rename(f"{split} balanced"))
    scores = 100 * pandas.concat(parts, axis=1)
    balanced = scores.filter(like="balanced")
    less = balanced - balanced[row == 0].groupby(seeds).mean().reindex(seeds).to_numpy()
    groups = scores.join(less[row > 0].add_suffix(" − first")).groupby(row)
    table = names.loc[~row.duplicated(), keys].reset_index(drop=True).assign(n=groups.size())
    text = table.join(groups.agg(mean_over_seeds)).to_string(index=False)
    note = "± half a 95 % interval over seeds, or all values; − first: paired; choose by val"
    numbers = table.join(groups.mean()).join(groups.std().add_suffix(", s.d."))
    return f"accuracy in %\n{text}\n\n{note}", numbers.to_csv(index=False, float_format="%.6g")


def mean_over_seeds(values: Any) -> str:
    """Return the mean with half its 95 % t-interval, or the values if that says nothing."""
    from scipy.stats import t  # slow to import

    half = t.ppf(0.975, values.count() - 1) * values.sem()
    if values.count() < 3 or half > 50:
        return " and ".join(map("{:.1f}".format, values.dropna()))
    return f"{values.mean():.1f} ± {half:.1f}"
