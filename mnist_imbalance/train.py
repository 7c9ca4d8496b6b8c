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

from mnist_imbalance.config import CONF, start
from mnist_imbalance.errors import STOPPED, ConfigError, one_line_errors
from mnist_imbalance.records.result import Result


def train(config: DictConfig) -> Result:
    """Train one run, show its result and return it."""
    from rich.console import Console

    console = Console()
    with Console(stderr=True).status("loading PyTorch"):
        from mnist_imbalance.training.folder import RunFolder
        from mnist_imbalance.training.run import fit_run

    settings = HydraConfig.get()
    if settings.mode == RunMode.RUN and settings.sweeper.params:
        swept = ", ".join(settings.sweeper.params)
        raise ConfigError(f"experiment: this overlay sweeps {swept}; add -m")
    folder = RunFolder(Path(settings.runtime.output_dir))
    if folder.result_file.exists():
        console.print(f"finished before, nothing trained: {folder.result_file}", soft_wrap=True)
    try:
        result = fit_run(config, settings, folder)
    except SystemExit:  # Lightning's answer to SIGINT and SIGTERM
        sys.exit(STOPPED)
    if not folder.result_file.exists():
        console.print("on trial, as trainer.fast_dev_run says: nothing is kept")
        return result
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    if "tensorboard" in (config.logger or {}):
        experiment = f"{config.runs_dir}/{settings.runtime.choices['experiment']}"
        console.print(f"TensorBoard: tensorboard --logdir {experiment}", soft_wrap=True)
    return result


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(config: DictConfig) -> Result:
    """Do what Hydra composed and return how it ended."""
    with one_line_errors():  # not later: Hydra would print the overrides first
        return train(config)


def main() -> None:
    """Run the command line."""
    start(job)


if __name__ == "__main__":
    main()
