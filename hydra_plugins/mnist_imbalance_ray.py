"""``hydra/launcher=ray``, where Hydra looks for launchers; it imports this at every start."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from mnist_imbalance.launcher import SetUpLauncher


class RayLauncher(SetUpLauncher):
    """Hands runs to Ray, each or some as a task of as many CPUs as a run uses.

    Args:
        address: Of a running cluster; None starts Ray on this machine, for this command alone.
        num_gpus: GPUs of a task; a fraction lets several share one.
        max_retries: Times that a task is started again whose process or node died; -1 for always.
        side_by_side: Runs of a task, at most, which are trained as one.
    """

    def __init__(
        self, address: str | None, num_gpus: float, max_retries: int, side_by_side: int
    ) -> None:
        self.address = address
        self.num_gpus = num_gpus
        self.max_retries = max_retries
        self.side_by_side = side_by_side

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all jobs."""
        from mnist_imbalance.ray_tasks import launch  # heavy imports

        return launch(self, job_overrides, initial_job_idx)
