"""Hydra's door to `sweeps.launch`; Hydra imports this at every start."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SweepLauncher(Launcher):
    """Trains the runs of a sweep with any choice of ``hydra/launcher`` and shows their table.

    Args:
        keys: Of the choice, which are read from the config.
    """

    def __init__(self, **keys: Any) -> None: ...

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the config of the sweep."""
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train all runs."""
        from mnist_imbalance.errors import ConfigError
        from mnist_imbalance.sweeps.launch import check_launcher, launch, show

        hydra = self.config.hydra
        if hydra.job.config_name != "train":
            name = hydra.job.config_name
            raise ConfigError(f"hydra.mode: a {name} has no sweep of its own; leave out -m")
        check_launcher(hydra)
        jobs = [tuple(overrides) for overrides in job_overrides]
        print(f"{len(jobs)} jobs, in {hydra.sweep.dir}", flush=True)
        outcomes = launch(jobs, hydra, hydra.overrides.hydra)
        show(outcomes)
        returned = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            returned.append(JobReturn(job, status=JobStatus.COMPLETED))
            returned[-1].return_value = outcome
        return returned
