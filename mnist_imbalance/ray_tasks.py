"""Jobs as tasks of Ray: on this machine or on a cluster, started again where their node dies."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError

from mnist_imbalance.chunks import Chunk, chunks, do_chunk, lost
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.jobs import Outcome, own_overrides, tell
from mnist_imbalance.launcher import returned

if TYPE_CHECKING:
    from hydra_plugins.mnist_imbalance_ray import RayLauncher

ANSWERS_WITHIN = 10  # seconds
HANDED_ON = ("PYTHONPATH", "PYTHONWARNINGS", "MLFLOW_", "WANDB_")  # how such variables begin


@contextmanager
def hearing_ctrl_c_afterwards() -> Iterator[None]:
    """Put Ctrl-C off meanwhile: stopped half started, Ray can end in a segmentation fault."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def join(address: str | None) -> None:
    """Start Ray on this machine, or join a cluster, for as long as this process lives.

    Its nodes may be started with another environment than this command: what Python imports, what
    it warns of, and where trackers are, is the same in the jobs.

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
    passed = {key: value for key, value in os.environ.items() if key.startswith(HANDED_ON)}
    if "PYTHONPATH" in passed:
        places = map(os.path.abspath, passed["PYTHONPATH"].split(os.pathsep))
        passed["PYTHONPATH"] = os.pathsep.join(places)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    try:
        with hearing_ctrl_c_afterwards():
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
        needed = f"{cpus} CPUs (threads of each device) and {gpus:g} GPUs (hydra.launcher.num_gpus)"
        print(f"waiting: no node of the Ray cluster has {needed}, which a job needs", flush=True)


def cpus_of(config: DictConfig) -> int:
    """Return how many CPUs the processes of a run use; 1 where the run will tell a mistake."""
    numbers = [config.get("threads"), OmegaConf.select(config, "trainer.devices")]
    right = all(isinstance(each, int) and each > 0 for each in numbers)
    return prod(numbers) if right else 1


@ray.remote
def do(shared: tuple["RayLauncher", dict[Any, Any], Path], chunk: Chunk) -> dict[int, Outcome]:
    """Do some runs, in a process of Ray's.

    Args:
        shared: What Hydra knows of all jobs, its singletons, and where the command was given.
        chunk: The runs.
    """
    launcher, singletons, place = shared
    os.chdir(place)
    return do_chunk(launcher, singletons, chunk)


def launch(
    launcher: "RayLauncher", job_overrides: Sequence[Sequence[str]], first_number: int
) -> Sequence[JobReturn]:
    """Do the jobs of a sweep, as many at a time as there is room for, and tell how each ended.

    Args:
        launcher: What Hydra has set up.
        job_overrides: Of each run; all tasks get as many CPUs as the first run uses.
        first_number: Of these jobs in the sweep.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    setup_globals()
    numbered = dict(enumerate(map(list, job_overrides), first_number))
    first = launcher.compose(numbered[first_number], first_number)
    join(launcher.address)
    cpus = cpus_of(first)
    check_room(cpus, launcher.num_gpus)
    task = do.options(num_cpus=cpus, num_gpus=launcher.num_gpus, max_retries=launcher.max_retries)
    shared = ray.put((launcher, Singleton.get_state(), Path.cwd()))
    together = chunks(launcher, numbered)
    left = {task.remote(shared, chunk): chunk for chunk in together}

    begun = time.monotonic()
    told = dict(zip(numbered, own_overrides(job_overrides), strict=True))
    outcomes: dict[int, Outcome] = {}
    while left:
        [ended], _ = ray.wait(list(left))
        chunk = left.pop(ended)
        try:
            ended_so = ray.get(ended)
        except RayError as error:
            ended_so = lost(launcher, chunk, f"Ray lost it: {' '.join(str(error).split())}")
        done = len(outcomes) + len(chunk)
        to_come = len(numbered) - done
        time_left = timedelta(seconds=round((time.monotonic() - begun) / done * to_come))
        after = f", about {time_left} left" if left else ""
        for number, outcome in ended_so.items():
            outcomes[number] = outcome
            tell(outcome, told[number], f"{len(outcomes)} of {len(numbered)} ", after)
    return [returned(overrides, outcomes[number]) for number, overrides in numbered.items()]
