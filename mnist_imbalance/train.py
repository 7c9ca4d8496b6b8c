"""``python -m mnist_imbalance.train``: one run, or with ``-m`` a sweep of them."""

import multiprocessing
import os
import sys
import tempfile
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_imbalance.commandline import CONF, EXPECTED, one_line, one_line_errors

FAILURES = "MNIST_IMBALANCE_FAILURES"  # names the file in which a sweep's jobs note their failure


def run(config: DictConfig) -> None:
    """Train one run and show its result."""
    from rich.console import Console  # heavy imports here, so that --help need not wait for them

    from mnist_imbalance.runs import RunFolder
    from mnist_imbalance.summary import tabulate
    from mnist_imbalance.training import train

    settings = HydraConfig.get()
    folder = RunFolder(Path(settings.runtime.output_dir))
    done_before = folder.result_file.exists()
    in_main_process = multiprocessing.parent_process() is None
    try:
        result = train(config, settings, folder, show_progress=in_main_process)
    finally:
        remove_if_empty(folder.path)
    console = Console()
    if done_before:
        console.print(f"Finished before, nothing trained: {folder.result_file}")
    console.print(tabulate(result))
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    console.print(f"TensorBoard: tensorboard --logdir {config.runs_dir}", soft_wrap=True)


def remove_if_empty(folder: Path) -> None:
    """Remove the folders that Hydra made for a job that then had nothing to put there."""
    try:
        os.removedirs(folder)
    except OSError:
        return


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(config: DictConfig) -> None:
    """Do one run; in a sweep, note a failure and let the other jobs go on."""
    settings = HydraConfig.get()
    if settings.mode == RunMode.RUN:
        run(config)
        return
    try:
        run(config)
    except Exception as error:
        if not isinstance(error, EXPECTED):
            traceback.print_exc()
        failure = f"{' '.join(settings.overrides.task)}: {one_line(error)}"
        print(f"failed: {failure}", file=sys.stderr)
        with open(os.environ[FAILURES], "a", encoding="utf-8") as failures:
            failures.write(f"{failure}\n")


def main() -> None:
    """Run the command line; exit code 1 if anything failed."""
    with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8") as failures, one_line_errors():
        os.environ[FAILURES] = failures.name
        job()
        failed = failures.read().splitlines()
        if failed:
            sys.exit("\n".join([f"error: {len(failed)} of the sweep's jobs failed:", *failed]))


if __name__ == "__main__":
    main()
