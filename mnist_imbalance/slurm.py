"""Jobs of Slurm: submitted, waited for, submitted again where Slurm lost them."""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from submitit import AutoExecutor, Job, SlurmJob

from mnist_imbalance.jobs import as_outcome

AGAIN = 2  # times that a lost job is submitted again
ASK_EVERY = 10  # seconds
SHOWN_AFTER = 10  # seconds in which a shared file system shows what a node wrote


class Queue:
    """Tells submitit which jobs Slurm still has.

    submitit would ask ``sacct``, which knows nothing on a cluster without accounting, so that a
    lost job would be waited for without end.
    """

    def __init__(self) -> None:
        self.states: dict[str, str] | None = None  # by job, None until asked with success
        self.next_look = 0.0

    def register_job(self, job_id: str) -> None:
        """Look anew when asked next, for there is a new job."""
        self.states, self.next_look = None, 0.0

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """Return what Slurm calls the job's state; "UNKNOWN" if it cannot be asked."""
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + ASK_EVERY
            asked = subprocess.run(
                ["squeue", "--me", "--array", "--noheader", "--format=%i %T"],
                capture_output=True,
                text=True,
            )
            if asked.returncode == 0:
                self.states = dict(line.split() for line in asked.stdout.splitlines())
        return "UNKNOWN" if self.states is None else self.states.get(job_id, "not in the queue")

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Tell whether Slurm no longer has the job."""
        return self.get_state(job_id) == "not in the queue"


def submit(
    job: Callable[..., JobReturn], numbered: Mapping[int, list[str]], keys: Mapping[str, Any]
) -> list[Job[JobReturn]]:
    """Hand jobs to Slurm, as one array.

    Args:
        job: Called with what hydra-submitit-launcher calls its own with.
        numbered: The overrides of each, by its number in the sweep.
        keys: Of ``hydra/launcher=submitit_slurm``.
    """
    of_every_queue = {each.name for each in fields(BaseQueueConf)}
    of_submitting = ("submitit_folder", "max_num_timeout")
    executor = AutoExecutor(
        keys["submitit_folder"], cluster="slurm", slurm_max_num_timeout=keys["max_num_timeout"]
    )
    executor.update_parameters(
        **{
            key if key in of_every_queue else f"slurm_{key}": value
            for key, value in keys.items()
            if key not in of_submitting
        }
    )
    SlurmJob.watcher = Queue()  # type: ignore[assignment]
    arguments = [
        (overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
        for number, overrides in numbered.items()
    ]
    return executor.map_array(job, *zip(*arguments, strict=True))


def has_result(job: Job[JobReturn]) -> bool:
    """Tell whether a job gave something back, looking past what the file system remembers."""
    job.done()
    return job.paths.result_pickle.exists()


def launch(
    job: Callable[..., JobReturn],
    numbered: Mapping[int, list[str]],
    keys: Mapping[str, Any],
    sweep_dir: str,
) -> list[JobReturn]:
    """Do jobs, and return what each gave back.

    Slurm itself requeues a job that is pre-empted or whose node fails, and submitit one that runs
    out of time. Others that end without a result, cancelled or killed for their memory, are
    submitted again when all have ended.

    Args:
        job: See `submit`.
        numbered: See `submit`.
        keys: See `submit`.
        sweep_dir: Root of the run folders.
    """
    returned: dict[int, JobReturn] = {}
    for times_left in reversed(range(AGAIN + 1)):
        left = {number: each for number, each in numbered.items() if number not in returned}
        jobs = dict(zip(left, submit(job, left, keys), strict=True))
        for each in jobs.values():
            each.wait()
        if not all(map(has_result, jobs.values())):
            time.sleep(SHOWN_AFTER)
        for number, each in jobs.items():
            if has_result(each):
                returned[number] = each.result()
                continue
            print(f"lost: job {each.job_id} of Slurm, see {each.paths.stderr}", flush=True)
            if not times_left:
                reason = f"Slurm lost its job {AGAIN + 1} times, see {each.paths.stderr}"
                returned[number] = JobReturn(left[number], status=JobStatus.COMPLETED)
                returned[number].return_value = as_outcome(Path(sweep_dir), reason)
        if len(returned) == len(numbered):
            break
    return [returned[number] for number in numbered]
