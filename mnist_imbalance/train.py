"""``python -m mnist_imbalance.train``: one run, or with ``-m`` a sweep of them."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mnist_imbalance.config import CONF, check, start
from mnist_imbalance.errors import STOPPED, ConfigError, one_line_errors


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(config: DictConfig) -> None:
    """Train one run and show its result; with ``-m``, Hydra's launcher trains all."""
    console, hydra_config = Console(), HydraConfig.get()
    with one_line_errors():  # not later: Hydra would print the overrides first
        if swept := hydra_config.sweeper.params:
            raise ConfigError(f"experiment: this overlay sweeps {', '.join(swept)}; add -m")
        check(config, hydra_config.runtime.choices)  # before PyTorch is loaded
        with Console(stderr=True).status("loading PyTorch"):
            from mnist_imbalance.sweeps.launch import remove_empty
            from mnist_imbalance.training.folder import RunFolder
            from mnist_imbalance.training.run import run_or_resume
        folder = RunFolder(Path(hydra_config.runtime.output_dir))
        finished = folder.result_file.exists()
        try:
            result = run_or_resume(config, hydra_config, folder)
        except SystemExit:  # Lightning's answer to SIGTERM
            sys.exit(STOPPED)
        finally:
            remove_empty(folder.path, Path(hydra_config.sweep.dir).absolute())
    title = f"{result.condition}, {result.model}, {result.optimizer}, {result.epochs} epochs"
    table = Table("label", "test accuracy %", title=f"{title}, seed {result.seed}", min_width=70)
    names = {str(label): f"{label}: {name}" for label, name in enumerate(result.class_names)}
    groups = result.test.by_group(result.groups) | {"all": result.test.accuracy}
    for name, accuracy in (*enumerate(result.test.accuracy_per_label), *groups.items()):
        table.add_row(names.get(str(name), str(name)), f"{100 * accuracy:.1f}")
    console.print(table)
    if finished:
        print("finished before, nothing trained")
    print(f"run folder: {folder.path}")
    if "tensorboard" in (config.logger or {}):
        experiment = f"{config.runs_dir}/{hydra_config.runtime.choices['experiment']}"
        print(f"curves: tensorboard --logdir {experiment}")


def main() -> None:
    """Run the command line."""
    start(job, "train")


if __name__ == "__main__":
    main()
