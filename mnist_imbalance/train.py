"""``python -m mnist_imbalance.train``: one run, or with ``-m`` a sweep of them."""

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_imbalance import outcomes
from mnist_imbalance.commandline import (
    CONF,
    STOPPED,
    explain,
    hush_libraries,
    one_line_errors,
)
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import remove_if_empty

if TYPE_CHECKING:
    from mnist_imbalance.runs import Result


def run(config: DictConfig) -> "Result":
    """Train in the folder that Hydra gives."""
    from mnist_imbalance.runs import RunFolder  # the heavy imports wait, --help does not
    from mnist_imbalance.training import train

    settings = HydraConfig.get()
    folder = RunFolder(Path(settings.runtime.output_dir))
    in_main_process = multiprocessing.parent_process() is None
    try:
        if settings.mode == RunMode.RUN and settings.sweeper.params:
            swept = ", ".join(settings.sweeper.params)
            raise ConfigError(f"experiment: this overlay sweeps {swept}; add -m")
        return train(config, settings, folder, show_progress=in_main_process)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    finally:
        remove_if_empty(folder.path, top=Path(settings.sweep.dir).absolute())


def run_one(config: DictConfig) -> None:
    """Do a single run and show its result."""
    from rich.console import Console

    from mnist_imbalance.runs import RunFolder
    from mnist_imbalance.summary import tabulate_run

    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    done_before = folder.result_file.exists()
    result = run(config)
    console = Console()
    if done_before:
        console.print(f"finished before, nothing trained: {folder.result_file}", soft_wrap=True)
    console.print(tabulate_run(result))
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    console.print(f"TensorBoard: tensorboard --logdir {config.runs_dir}", soft_wrap=True)


def run_in_sweep(config: DictConfig) -> None:
    """Do one job of a sweep and note how it ended, so that a failure stops no other job."""
    failure = None
    try:
        run(config)
    except Exception as error:
        failure = explain(error)
    outcomes.note(HydraConfig.get(), failure)


def show_sweep(lines: list[str]) -> int:
    """Show how the jobs of a sweep ended; count the failed ones."""
    from rich.console import Console

    from mnist_imbalance.runs import RunFolder
    from mnist_imbalance.summary import tabulate_sweep

    ended = sorted(map(json.loads, lines), key=lambda outcome: int(outcome["number"]))
    done, failed = [], []
    for outcome in ended:
        if "failure" in outcome:
            failed.append(f"{' '.join(outcome['overrides'])}: {outcome['failure']}")
        elif result := RunFolder(Path(outcome["folder"])).result():
            done.append((outcome["overrides"], result))
    if done:
        Console().print(tabulate_sweep(done))
    if failed:
        count = f"error: {len(failed)} of {len(ended)} jobs failed"
        print(count, *failed, sep="\n", file=sys.stderr)
    return len(failed)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(config: DictConfig) -> None:
    """Do what Hydra composed."""
    if HydraConfig.get().mode == RunMode.RUN:
        with one_line_errors():  # not later: Hydra would print the overrides first
            run_one(config)
    else:
        run_in_sweep(config)


def main() -> None:
    """Run the command line."""
    hush_libraries()
    with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8") as noted, one_line_errors():
        os.environ[outcomes.VARIABLE] = noted.name
        failed = 0
        try:
            job()
        finally:
            if lines := noted.readlines():
                failed = show_sweep(lines)
        if failed:
            sys.exit(1)


if __name__ == "__main__":
    main()
