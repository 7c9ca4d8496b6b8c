"""``hydra/launcher=slurm``, where Hydra looks for launchers; it imports this at every start."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from mnist_imbalance.launcher import SetUpLauncher

with suppress(ImportError):  # of the extra, which the launcher asks for when it is chosen
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

    @dataclass
    class SlurmKeys(SlurmQueueConf):  # type: ignore[misc]
        """The keys of ``hydra/launcher=submitit_slurm``, and one more."""

        side_by_side: int = 1

    ConfigStore.instance().store("slurm", SlurmKeys, group="hydra/launcher/keys")


class SlurmLauncher(SetUpLauncher):
    """Hands runs to Slurm, each or some as a job, and once more those that it lost.

    Args:
        side_by_side: Runs of a job, at most, which are trained as one.
        keys: Those of ``hydra/launcher=submitit_slurm``.
    """

    def __init__(self, side_by_side: int, **keys: object) -> None:
        self.side_by_side = side_by_side
        self.keys: Any = OmegaConf.to_container(OmegaConf.create(keys), resolve=True)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all jobs."""
        from mnist_imbalance.slurm import launch

        return launch(self, dict(enumerate(map(list, job_overrides), start=initial_job_idx)))
