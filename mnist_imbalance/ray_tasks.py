"""Jobs as tasks of Ray: on this machine or on a cluster, started again where their node dies."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from omegaconf import open_dict
from ray.exceptions import RayError

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.jobs import Outcome, as_outcome, own_overrides, tell

if TYPE_CHECKING:
    from hydra_plugins.mnist_imbalance_ray import RayLauncher

ANSWERS_WITHIN = 10  # seconds


def join(address: str | None) -> None:
    """Start Ray on this machine, or join a cluster, for as long as this process lives.

    Its nodes may be started with another environment than this command: what Python imports and
    what it warns of is the same in the jobs.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    if ray.is_initialized():
        return
    if address and address != "auto":  # Ray would wait for two minutes, then end this process
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.address: no Ray answers at {address} ({error}); must be HOST:PORT "
                "of `ray start --head`, auto where a node runs, or null"
            ) from error
    passed = {key: os.environ[key] for key in ("PYTHONPATH", "PYTHONWARNINGS") if key in os.environ}
    if "PYTHONPATH" in passed:
        places = map(os.path.abspath, passed["PYTHONPATH"].split(os.pathsep))
        passed["PYTHONPATH"] = os.pathsep.join(places)
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": passed},
            include_dashboard=None if address else False,
            log_to_driver=False,  # the jobs' progress bars, all at once
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise ConfigError(
            "hydra.launcher.address: no node of a Ray cluster runs on this machine; `ray start` it "
            "here, or give HOST:PORT, or null"
        ) from error


def check_room(cpus: int, gpus: float) -> None:
    """Say so if the jobs wait for a node that is not there yet.

    Args:
        cpus: That a job needs.
        gpus: Likewise.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        needed = f"{cpus} CPUs (threads) and {gpus:g} GPUs (hydra.launcher.num_gpus)"
        print(f"waiting: no node of the Ray cluster has {needed}, which a job needs", flush=True)


@ray.remote
def do(
    shared: tuple["RayLauncher", dict[Any, Any], Path], overrides: list[str], number: int
) -> Outcome:
    """Do one job, in a process of Ray's.

    Args:
        shared: What Hydra knows of all jobs, its singletons, and where the command was given.
        overrides: Of this job.
        number: In the sweep.
    """
    launcher, singletons, place = shared
    os.chdir(place)
    setup_globals()
    Singleton.set_state(singletons)
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    done = run_job(
        hydra_context=launcher.hydra_context,
        task_function=launcher.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    outcome: Outcome = done.return_value
    return outcome


def launch(
    launcher: "RayLauncher", job_overrides: Sequence[Sequence[str]], first_number: int
) -> Sequence[JobReturn]:
    """Do the jobs of a sweep, as many at a time as there is room for, and tell how each ended.

    Args:
        launcher: What Hydra has set up.
        job_overrides: Of each job; all get as many CPUs as the first one has threads.
        first_number: Of these jobs in the sweep.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    setup_globals()
    jobs = [list(overrides) for overrides in job_overrides]
    first = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, jobs[0])
    join(launcher.address)
    check_room(first.threads, launcher.num_gpus)
    task = do.options(
        num_cpus=first.threads, num_gpus=launcher.num_gpus, max_retries=launcher.max_retries
    )
    shared = ray.put((launcher, Singleton.get_state(), Path.cwd()))
    left = {
        task.remote(shared, job, first_number + number): number for number, job in enumerate(jobs)
    }

    begun, told = time.monotonic(), own_overrides(jobs)
    returned: dict[int, JobReturn] = {}
    while left:
        [ended], _ = ray.wait(list(left))
        number = left.pop(ended)
        job = JobReturn(jobs[number], status=JobStatus.COMPLETED)
        try:
            job.return_value = ray.get(ended)
        except RayError as error:
            reason = f"Ray lost it: {' '.join(str(error).split())}"
            job.return_value = as_outcome(Path(launcher.config.hydra.sweep.dir), reason)
        returned[number] = job
        done = len(returned)
        time_left = timedelta(seconds=round((time.monotonic() - begun) / done * len(left)))
        tell(
            job.return_value,
            told[number],
            f"{done} of {len(jobs)} ",
            f", about {time_left} left" if left else "",
        )
    return [returned[number] for number in range(len(jobs))]
