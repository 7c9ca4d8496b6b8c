"""``python -m mnist_imbalance.train``: one run, or with ``-m`` a sweep of them."""

import io
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_imbalance.commandline import one_line_errors, start
from mnist_imbalance.config import CONF
from mnist_imbalance.jobs import Outcome, as_outcome, run, run_in_sweep


def run_one(config: DictConfig) -> Outcome:
    """Do a single run, show its result and return how it ended."""
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
    if not folder.result_file.exists():
        console.print("on trial, as trainer.fast_dev_run says: nothing is kept")
        return as_outcome(folder.path, result)
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    if "tensorboard" in (config.logger or {}):
        experiment = f"{config.runs_dir}/{HydraConfig.get().runtime.choices['experiment']}"
        console.print(f"TensorBoard: tensorboard --logdir {experiment}", soft_wrap=True)
    if "mlflow" in (config.logger or {}):
        store = config.logger.mlflow.tracking_uri
        console.print(f"MLflow: mlflow ui --backend-store-uri {store}", soft_wrap=True)
    return as_outcome(folder.path, result)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(config: DictConfig) -> Outcome:
    """Do what Hydra composed and return how it ended."""
    if HydraConfig.get().mode == RunMode.RUN:
        with one_line_errors():  # not later: Hydra would print the overrides first
            return run_one(config)
    return run_in_sweep(config)


def show_help() -> None:
    """Show Hydra's help without the group that is the study's alone."""
    with suppress(SystemExit), redirect_stdout(io.StringIO()) as shown:
        job()
    print(re.sub(r"(?m)^study: .*\n", "", shown.getvalue()))


def main() -> None:
    """Run the command line."""
    start(show_help if {"-h", "--help"} & {*sys.argv} else job)


if __name__ == "__main__":
    main()
