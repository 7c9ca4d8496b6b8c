"""The launcher plugin that Hydra finds here, imported at every start; see `sweeps.launch`."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig


class SweepLauncher(Launcher):
    """Trains the runs of a sweep with any choice of ``hydra/launcher`` and shows their table."""

    def __init__(self, **keys: Any) -> None: ...  # they are read from the config

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Keep the config of the sweep."""
        self.config = config

    def launch(self, job_overrides: Sequence[Any], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train all runs; a sweeper gets each one's balanced accuracy on validation images."""
        from mnist_imbalance.errors import ConfigError
        from mnist_imbalance.sweeps.launch import check_launcher, launch, show

        hydra = self.config.hydra
        if (name := hydra.job.config_name) != "train":
            raise ConfigError(f"hydra.mode: a {name} has no sweep of its own; leave out -m")
        check_launcher(hydra)
        print(f"{len(job_overrides)} jobs, in {hydra.sweep.dir}", flush=True)
        outcomes = launch([tuple(job) for job in job_overrides], hydra, hydra.overrides.hydra)
        show(outcomes)  # exits if one failed
        returned = [JobReturn(job, status=JobStatus.COMPLETED) for job in job_overrides]
        for job, outcome in zip(returned, outcomes, strict=True):
            job.return_value = outcome.result.val.balanced_accuracy
        return returned
