"""What a job of a cluster does: one run, or several side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from omegaconf import DictConfig

from mnist_imbalance.jobs import Outcome, as_outcome
from mnist_imbalance.launcher import SetUpLauncher

Chunk = dict[int, list[str]]  # the overrides of each run, by its number in the sweep


def chunks(launcher: SetUpLauncher, numbered: Mapping[int, list[str]]) -> list[Chunk]:
    """Return which runs are done by one job.

    They are as many as ``side_by_side`` says where the runs can share a program, and one elsewhere.
    Those that were trained together when they were stopped go on together.

    Args:
        launcher: What Hydra has set up.
        numbered: The overrides of each run, by its number in the sweep.
    """
    if launcher.side_by_side == 1:
        return [{number: overrides} for number, overrides in numbered.items()]
    from mnist_imbalance.batched.launch import as_run  # heavy imports
    from mnist_imbalance.sweeps.batched import Job, similar

    setup_globals()
    number_of = {tuple(overrides): number for number, overrides in numbered.items()}

    def compose(job: Job) -> DictConfig:
        return as_run(launcher.compose(job, number_of[job])).config

    groups = similar(
        list(number_of), compose, Path(launcher.config.hydra.sweep.dir), launcher.side_by_side
    )
    return [{number_of[job]: [*job] for job in group} for group in groups]


def lost(launcher: SetUpLauncher, chunk: Chunk, reason: str) -> dict[int, Outcome]:
    """Return how the runs of a job ended that gave nothing back."""
    return dict.fromkeys(chunk, as_outcome(Path(launcher.config.hydra.sweep.dir), reason))


def do_chunk(
    launcher: SetUpLauncher, singletons: dict[Any, Any], chunk: Chunk, job_id: str | None = None
) -> dict[int, Outcome]:
    """Do a job's runs, in its own process, and return how each ended, by its number.

    Args:
        launcher: What Hydra knows of all jobs.
        singletons: Hydra's, of the process of the command.
        chunk: See `chunks`; those that share a program are trained as one, on any device.
        job_id: What the cluster calls the job.
    """
    from mnist_imbalance.batched.launch import do_jobs  # heavy imports

    Singleton.set_state(singletons)
    setup_globals()
    configs = [launcher.compose(overrides, number, job_id) for number, overrides in chunk.items()]
    return {
        number: job.return_value for number, job in do_jobs(launcher, configs, on_cpu=True).items()
    }
