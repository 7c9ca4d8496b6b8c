"""``hydra/sweeper=tabulated``, where Hydra looks for sweepers; it imports this at every start."""

import copy
from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import prod

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
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
        self.composed = copy.deepcopy(config)
        with read_write(self.composed):
            basic = ConfigStore.instance().load("hydra/sweeper/basic.yaml").node
            self.composed.hydra.sweeper._target_ = basic._target_
        self.context = hydra_context
        self.task_function = task_function

    def swept(self, arguments: list[str]) -> dict[str, int]:
        """Return the keys that take several values, and how many each."""
        params = self.composed.hydra.sweeper.params or {}
        given = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        last = {each.get_key_element(): each for each in parser.parse_overrides(given)}
        return {
            key: len(list(each.sweep_string_iterator()))
            for key, each in last.items()
            if each.is_discrete_sweep()
        }

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Do all jobs, show them, and return what they gave back, launch by launch.

        Raises:
            SystemExit: Some failed; the text has a line for each.
        """
        from mnist_imbalance.jobs import (
            check_launcher,
            leave_ctrl_c_to_us,
            quiet_hydra,
            run_and_tell,
        )
        from mnist_imbalance.summary import show_sweep

        check_launcher(self.composed.hydra.launcher)
        swept = self.swept(arguments)
        jobs = prod(swept.values())
        basic = Plugins.instance().instantiate_sweeper(
            hydra_context=self.context,
            task_function=partial(run_and_tell, self.task_function, swept.keys(), jobs),
            config=self.composed,
        )
        quiet_hydra()
        print(f"{jobs} jobs, in {self.composed.hydra.sweep.dir}", flush=True)
        with leave_ctrl_c_to_us():
            launches: list[Sequence[JobReturn]] = basic.sweep(arguments)
        show_sweep(chain.from_iterable(launches))
        return launches
