"""``hydra/launcher=slurm``, where Hydra looks for launchers; it imports this at every start."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """Hands jobs to Slurm as ``submitit_slurm`` does, and once more those that it lost.

    Args:
        keys: Those of ``hydra/launcher=submitit_slurm``.
    """

    def __init__(self, **keys: object) -> None:
        self.keys = keys

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows before it has the jobs."""
        from hydra_plugins.hydra_submitit_launcher import submitit_launcher

        self.sweep_dir = str(config.hydra.sweep.dir)
        self.job = submitit_launcher.SlurmLauncher(**self.keys)
        self.job.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all jobs."""
        from mnist_imbalance.slurm import launch

        numbered = dict(enumerate(map(list, job_overrides), start=initial_job_idx))
        return launch(self.job, numbered, self.job.params, self.sweep_dir)
