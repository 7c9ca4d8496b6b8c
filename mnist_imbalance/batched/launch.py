"""Which jobs of a sweep share a program, and the doing of them all."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_imbalance.config import take_apart
from mnist_imbalance.errors import STOPPED, explain
from mnist_imbalance.jobs import as_outcome, own_overrides, tell
from mnist_imbalance.launcher import SetUpLauncher, returned
from mnist_imbalance.runs import Result, RunFolder
from mnist_imbalance.sweeps.batched import Run, fit_together, program

if TYPE_CHECKING:
    from hydra_plugins.mnist_imbalance_batched import BatchedLauncher


def on_gpu(config: DictConfig) -> bool:
    """Tell whether a run would be trained on a CUDA device."""
    accelerator = OmegaConf.select(config, "trainer.accelerator")
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def launch(
    launcher: "BatchedLauncher", job_overrides: Sequence[Sequence[str]], first_number: int
) -> Sequence[JobReturn]:
    """Do the jobs of a sweep: side by side where that pays, in parallel processes elsewhere."""
    setup_globals()
    configs = [
        launcher.compose(overrides, number)
        for number, overrides in enumerate(job_overrides, first_number)
    ]
    if not (launcher.on_cpu or any(map(on_gpu, configs))):
        return launcher.hand_over(job_overrides, first_number)
    done = do_jobs(launcher, configs, launcher.on_cpu)
    return [done[config.hydra.job.num] for config in configs]


def do_jobs(
    launcher: SetUpLauncher, configs: Sequence[DictConfig], on_cpu: bool
) -> dict[int, JobReturn]:
    """Do jobs in this process, side by side those that can share a program, and tell how they end.

    Args:
        launcher: What Hydra has set up.
        configs: Of each job, with Hydra's part.
        on_cpu: Share programs on a CPU, too.

    Returns:
        What each gave back, by its number in the sweep.
    """
    runs = {config.hydra.job.num: as_run(config) for config in configs}
    programs: dict[str, list[Run]] = defaultdict(list)
    for run in runs.values() if len(runs) > 1 else ():
        if (on_cpu or on_gpu(run.config)) and (shared := program(run.config)):
            programs[shared].append(run)
    sharing = [together for together in programs.values() if len(together) > 1]
    numbers = {run.hydra.job.num for run in chain.from_iterable(sharing)}
    done = {}
    for config in configs:
        number = config.hydra.job.num
        if number not in numbers:
            try:
                done[number] = launcher.do(config)
            except Exception as error:  # of Hydra, before the job begins
                outcome = as_outcome(runs[number].folder.path, explain(error))
                done[number] = returned(config.hydra.overrides.task, outcome)
    own = own_overrides([config.hydra.overrides.task for config in configs])
    told = {config.hydra.job.num: each for config, each in zip(configs, own, strict=True)}
    for together in sharing:
        for run, reached in do_together(together):
            number, outcome = run.hydra.job.num, as_outcome(run.folder.path, reached)
            done[number] = returned(run.hydra.overrides.task, outcome)
            tell(outcome, told[number], f"{len(done)} of {len(configs)} ")
    return done


def as_run(config: DictConfig) -> Run:
    """Take a job's config apart, as Hydra does before it calls a job."""
    HydraConfig.instance().set_config(config)  # for its resolver in the values of the folder
    folder = Path(config.hydra.sweep.dir).absolute() / config.hydra.sweep.subdir
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    return Run(*take_apart(config), RunFolder(folder), tuple(config.hydra.overrides.task))


def do_together(runs: Sequence[Run]) -> list[tuple[Run, Result | str]]:
    """Train runs that share a program; a failure stops no other program.

    Returns:
        Every run and its result, or why it has none.
    """
    try:
        return list(zip(runs, fit_together(runs), strict=True))
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
