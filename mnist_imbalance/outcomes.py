"""How the jobs of a sweep ended, told across processes by lines in a file."""

import json
import os

from hydra.conf import HydraConf

VARIABLE = "MNIST_IMBALANCE_OUTCOMES"  # names the file


def note(settings: HydraConf, failure: str | None) -> None:
    """Say how a job ended, here and to who waits for the sweep.

    Args:
        settings: Hydra's part of the job's config.
        failure: Why it has no result; None if it has.
    """
    overrides = list(settings.overrides.task)
    outcome = {"number": settings.job.num, "overrides": overrides}
    outcome |= {"failure": failure} if failure else {"folder": settings.runtime.output_dir}
    print(f"{'failed' if failure else 'done'}: {' '.join(overrides)}", flush=True)
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as outcomes:
        outcomes.write(json.dumps(outcome) + "\n")
