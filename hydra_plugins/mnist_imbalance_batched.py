"""``hydra/launcher=batched``, where Hydra looks for launchers; it imports this at every start."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class BatchedLauncher(Launcher):
    """Trains the runs of a sweep side by side on a GPU, and in parallel processes elsewhere.

    Args:
        on_cpu: Train side by side on a CPU, too, where processes are faster.
    """

    def __init__(self, on_cpu: bool) -> None:
        self.on_cpu = on_cpu

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows before it has the jobs."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all jobs."""
        from mnist_imbalance.batched.launch import launch  # heavy imports

        return launch(self, job_overrides, initial_job_idx)
