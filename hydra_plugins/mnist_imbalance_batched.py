"""``hydra/launcher=batched``, where Hydra looks for launchers; it imports this at every start."""

import ctypes
from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mnist_imbalance.config import CONF
from mnist_imbalance.launcher import SetUpLauncher


def has_cuda_driver() -> bool:
    """Tell, without the seconds that torch takes, whether it is worth asking torch for a GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


class BatchedLauncher(SetUpLauncher):
    """Trains the runs of a sweep side by side on a GPU, and in parallel processes elsewhere.

    Args:
        on_cpu: Train side by side on a CPU, too, where processes are faster.
    """

    def __init__(self, on_cpu: bool) -> None:
        self.on_cpu = on_cpu

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all jobs."""
        if not (self.on_cpu or has_cuda_driver()):
            return self.hand_over(job_overrides, initial_job_idx)
        from mnist_imbalance.batched.launch import launch  # heavy imports

        return launch(self, job_overrides, initial_job_idx)

    def hand_over(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Leave all jobs to parallel processes."""
        processes = instantiate(OmegaConf.load(CONF / "hydra" / "launcher" / "joblib.yaml"))
        processes.setup(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        done: Sequence[JobReturn] = processes.launch(job_overrides, initial_job_idx)
        return done
