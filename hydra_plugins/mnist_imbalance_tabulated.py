"""``hydra/sweeper=tabulated``, where Hydra looks for sweepers; it imports this at every start."""

import copy
from collections.abc import Sequence
from itertools import chain

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write


class TabulatedSweeper(Sweeper):
    """Hydra's own sweeper, which then shows what each job reached, whatever launcher did it.

    Args:
        keys: Those of ``hydra/sweeper=basic``, which reads them from the config.
    """

    def __init__(self, **keys: object) -> None: ...

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows before the sweep."""
        config = copy.deepcopy(config)
        with read_write(config):
            basic = ConfigStore.instance().load("hydra/sweeper/basic.yaml").node
            config.hydra.sweeper._target_ = basic._target_
        self.basic = Plugins.instance().instantiate_sweeper(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Do all jobs, show them, and return what they gave back, launch by launch.

        Raises:
            SystemExit: Some failed; the text has a line for each.
        """
        from mnist_imbalance.jobs import leave_ctrl_c_to_us
        from mnist_imbalance.summary import show_sweep

        with leave_ctrl_c_to_us():
            launches: list[Sequence[JobReturn]] = self.basic.sweep(arguments)
        show_sweep(chain.from_iterable(launches))
        return launches
