"""What the launchers in ``hydra_plugins/`` share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

if TYPE_CHECKING:
    from mnist_imbalance.jobs import Outcome


def returned(overrides: Sequence[str], outcome: "Outcome") -> JobReturn:
    """Return what Hydra is given back of a job that ended so."""
    job = JobReturn(list(overrides), status=JobStatus.COMPLETED)
    job.return_value = outcome
    return job


class SetUpLauncher(Launcher):
    """A launcher that keeps what Hydra knows before it has the jobs.

    Attributes:
        side_by_side: Runs of a job, at most, which are trained as one.
    """

    side_by_side = 1

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra knows."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def compose(
        self, overrides: Sequence[str], number: int, job_id: str | None = None
    ) -> DictConfig:
        """Return a job's config, with Hydra's part.

        Args:
            overrides: Of the job.
            number: In the sweep.
            job_id: What a cluster calls it; None for its number.
        """
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number if job_id is None else job_id
            config.hydra.job.num = number
        return config

    def do(self, config: DictConfig) -> JobReturn:
        """Do a job by itself, as Hydra's own launchers do."""
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
