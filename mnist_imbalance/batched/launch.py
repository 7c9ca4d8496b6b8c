"""Which jobs of a sweep share a program, and the doing of them all."""

import json
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

from mnist_imbalance.batched.fit import Run, fit_side_by_side
from mnist_imbalance.config import check, take_apart
from mnist_imbalance.errors import STOPPED, ConfigError, explain
from mnist_imbalance.jobs import as_outcome, own_overrides, tell
from mnist_imbalance.launcher import SetUpLauncher, returned
from mnist_imbalance.runs import Result, RunFolder, determining

if TYPE_CHECKING:
    from hydra_plugins.mnist_imbalance_batched import BatchedLauncher

OF_LOSSES = {"loss.minority_weight", "loss.weights"}  # tensors of the losses in losses.py
OWN = OF_LOSSES | {  # keys in which the runs of one program may differ
    "seed",
    "data.seed",
    "data.order_seed",
    "data.copies",
    "optimizer.lr",
    "optimizer.weight_decay",
}
ELEMENTWISE = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "NAdam")}
OF_EACH_RATE = {  # schedulers that change each parameter group's rate from its own, step by step
    f"torch.optim.lr_scheduler.{name}"
    for name in ("CosineAnnealingLR", "StepLR", "MultiStepLR", "ExponentialLR", "LinearLR")
}
TRAINER = {  # all that a shared program can heed
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.deterministic",
    "trainer._target_",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
}
LIMITS = {f"trainer.limit_{stage}_batches" for stage in ("train", "val", "test")}


def program(config: DictConfig) -> str | None:
    """Name the program that a run can share with others; None where it must be trained alone."""
    try:
        check(config)
    except ConfigError:
        return None  # alone it tells the mistake
    values = determining(config)
    trainer = {f"trainer.{key}" for key in config.trainer}
    if values.get("optimizer._target_") not in ELEMENTWISE or trainer - TRAINER - LIMITS:
        return None
    if config.get("scheduler") and str(values.get("scheduler._target_")) not in OF_EACH_RATE:
        return None
    if any(map(config.get, ("mix", "callbacks", "posthoc"))) or config.trainer.devices > 1:
        return None
    if set(config.get("logger") or ()) != {"tensorboard"}:
        return None
    copies = values.get("data.copies")
    own = OWN
    room = str(values["loss._target_"]).rpartition(".")[0]
    if room == "mnist_imbalance.methods":  # one formula, whose numbers are tensors
        own = OWN | {key for key in values if key.startswith("loss.")} - {"loss.normalize"}
    elif values["loss._target_"] == "mnist_imbalance.methods.losses.GroupDRO":
        return None  # its weights change within a step
    elif room != "mnist_imbalance.methods.losses":
        own = OWN - OF_LOSSES  # another loss may keep them as numbers, which one program shares
    shared = {key: value for key, value in values.items() if key not in own}
    if room == "mnist_imbalance.methods":
        shared = {"loss.normalize": "count"} | shared | {"loss": room}
    shared["images"] = len(copies) if isinstance(copies, list) else 0
    where = [config.data.dir, config.threads, OmegaConf.to_container(config.trainer)]
    where.append(OmegaConf.to_container(config.metrics))
    return json.dumps([shared, where], sort_keys=True, default=str)


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
    return Run(*take_apart(config), RunFolder(folder))


def do_together(runs: Sequence[Run]) -> list[tuple[Run, Result | str]]:
    """Train runs that share a program; a failure stops no other program.

    Returns:
        Every run and its result, or why it has none.
    """
    once: dict[Path, Run] = {}
    for run in runs:
        once.setdefault(run.folder.path, run)
    try:
        outcomes = fit_side_by_side(list(once.values()), show_progress=True)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    ended = []
    for run in runs:
        reached = outcomes[run.folder.path]
        if once[run.folder.path].config_hash != run.config_hash:
            reached = f"runs_dir: {run.folder.path} is the folder of another run of this sweep, too"
        ended.append((run, reached))
    return ended
