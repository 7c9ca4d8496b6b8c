"""One task in several processes, one for each device that a run is trained on."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from joblib import wrap_non_picklable_objects
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from omegaconf import DictConfig
from torch import nn

from mnist_imbalance.errors import ConfigError, can_be_mended, one_line
from mnist_imbalance.processes import end_with_parent

Returned = TypeVar("Returned")
GRACE = 10.0  # seconds that the others have to end by themselves once one has failed


def rank() -> int:
    """Return this process's number among those of a run; the first, 0, keeps what is made."""
    return int(os.environ.get("LOCAL_RANK", 0))


def check_model(model: nn.Module) -> None:
    """Refuse a model whose training on parts of batches would be another one.

    Raises:
        ConfigError: It normalizes by the batch.
    """
    by_batch = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if any(isinstance(module, by_batch) for module in model.modules()):
        raise ConfigError(
            "trainer.devices: must be 1, the model normalizes by the batch, of which each device "
            "would see a part"
        )


def in_processes(number: int, task: Callable[..., Returned], *arguments: Any) -> Returned:
    """Do a task in several processes that know of each other, and return what the first returns.

    Lightning finds them by the environment's variables that it has for this. Where one fails, the
    others end.

    Raises:
        ConfigError: This process is a worker of joblib's, which can start no others.
        Exception: What the task raised in the process that failed first.
    """
    if multiprocessing.parent_process():
        raise ConfigError(
            "trainer.devices: must be 1 under hydra/launcher=joblib, and under batched without a "
            "GPU; basic trains one run after the other"
        )
    context = multiprocessing.get_context("spawn")
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_free_network_port()),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(number),
    }
    # a launcher's config may be of a class that Hydra has loaded twice, which pickle refuses
    given = wrap_non_picklable_objects(
        (HydraConfig.instance().cfg, task, arguments), keep_wrapper=False
    )
    processes, ends = [], {}
    for each in range(number):
        end, theirs = context.Pipe(duplex=False)
        environment = shared | {"LOCAL_RANK": str(each)}
        process = context.Process(target=_work, args=(theirs, environment, given))
        process.start()
        theirs.close()
        processes.append(process)
        ends[end] = each
    returned: list[Returned] = []
    failures: list[Exception] = []
    try:
        while ends and (ready := wait(list(ends), GRACE if failures else None)):
            for end in cast("list[Connection]", ready):
                each = ends.pop(end)
                try:
                    outcome, failure = end.recv()
                except EOFError:
                    failure = ConfigError(f"trainer.devices: process {each} of {number} was ended")
                if failure:
                    failures.append(failure)
                elif each == 0:
                    returned.append(outcome)
    finally:
        if failures or sys.exception():
            for process in processes:
                process.kill()  # what waits for another one hears nothing else
        for process in processes:
            process.join()
    if failures:
        raise next((each for each in failures if isinstance(each, ConfigError)), failures[0])
    return returned[0]


def _work(
    end: Connection,
    environment: dict[str, str],
    given: tuple[DictConfig | None, Callable[..., Any], tuple[Any, ...]],
) -> None:
    """Do the task in one of the processes."""
    end_with_parent()
    os.environ.update(environment)
    setup_globals()
    hydra, task, arguments = given
    if hydra:
        HydraConfig.instance().set_config(hydra)
    if rank() > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # the first tells it all
    outcome: tuple[Any, Exception | None]
    try:
        outcome = task(*arguments), None
    except OSError as error:
        outcome = None, error
    except Exception as error:
        if can_be_mended(error):
            outcome = None, ConfigError(one_line(error))  # which its traceback tells, here alone
        else:
            error.add_note("".join(traceback.format_exception(error)))
            outcome = None, error
    with suppress(BrokenPipeError):
        end.send(outcome)
