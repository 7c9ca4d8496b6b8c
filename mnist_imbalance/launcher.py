"""What the launchers in ``hydra_plugins/`` share."""

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SetUpLauncher(Launcher):
    """A launcher that keeps what Hydra knows before it has the jobs."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take it."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
