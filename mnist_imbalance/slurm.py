"""Jobs of Slurm: submitted, waited for, submitted again where Slurm lost them."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from submitit import AutoExecutor, Job, JobEnvironment, SlurmJob
from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission

from mnist_imbalance.chunks import Chunk, chunks, do_chunk, lost
from mnist_imbalance.jobs import Outcome
from mnist_imbalance.launcher import returned

if TYPE_CHECKING:
    from hydra_plugins.mnist_imbalance_slurm import SlurmLauncher

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


class Task:
    """What a job of Slurm does; submitit asks it what the job does when it is requeued.

    Args:
        launcher: What Hydra has set up.
    """

    def __init__(self, launcher: "SlurmLauncher") -> None:
        self.launcher = launcher
        self.singletons = Singleton.get_state()

    def __call__(self, chunk: Chunk) -> dict[int, Outcome]:
        """Do some runs, and return how each ended."""
        return do_chunk(self.launcher, self.singletons, chunk, JobEnvironment().job_id)

    def checkpoint(self, chunk: Chunk) -> DelayedSubmission:
        """Do the same again: each run goes on from its last whole epoch."""
        return DelayedSubmission(self, chunk)


def submit(launcher: "SlurmLauncher", together: Sequence[Chunk]) -> list[Job[dict[int, Outcome]]]:
    """Hand runs to Slurm, as one array of jobs.

    Args:
        launcher: What Hydra has set up.
        together: The runs of each job.
    """
    keys = launcher.keys
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
    return executor.map_array(Task(launcher), together)


def has_result(job: Job[dict[int, Outcome]]) -> bool:
    """Tell whether a job gave something back, looking past what the file system remembers."""
    job.done()
    return job.paths.result_pickle.exists()


def launch(launcher: "SlurmLauncher", numbered: Mapping[int, list[str]]) -> list[JobReturn]:
    """Do runs, and return what each gave back.

    Slurm itself requeues a job that is pre-empted or whose node fails, and submitit one that runs
    out of time. Others that end without a result, cancelled or killed for their memory, are
    submitted again when all have ended.

    Args:
        launcher: What Hydra has set up.
        numbered: The overrides of each run, by its number in the sweep.
    """
    outcomes: dict[int, Outcome] = {}
    left = chunks(launcher, numbered)
    for times_left in reversed(range(AGAIN + 1)):
        jobs = submit(launcher, left)
        for job in jobs:
            job.wait()
        if not all(map(has_result, jobs)):
            time.sleep(SHOWN_AFTER)
        again = []
        for job, chunk in zip(jobs, left, strict=True):
            if has_result(job):
                try:
                    outcomes |= job.result()
                except UncompletedJobError as error:  # the job itself could not begin
                    *_, told = str(error).strip().splitlines()
                    outcomes |= lost(launcher, chunk, f"{told}, see {job.paths.stderr}")
                continue
            again.append(chunk)
            print(f"lost: job {job.job_id} of Slurm, see {job.paths.stderr}", flush=True)
            if not times_left:
                reason = f"Slurm lost its job {AGAIN + 1} times, see {job.paths.stderr}"
                outcomes |= lost(launcher, chunk, reason)
        left = again
        if not left:
            break
    return [returned(overrides, outcomes[number]) for number, overrides in numbered.items()]
