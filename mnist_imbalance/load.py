"""A run folder → the trained model, its data and its config."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from mnist_imbalance.checkpoints import read_checkpoint
from mnist_imbalance.classifier import Classifier
from mnist_imbalance.config import check
from mnist_imbalance.data import MNISTData
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.fit import build_parts
from mnist_imbalance.methods.posthoc import adjusted
from mnist_imbalance.runs import Result, RunFolder


@dataclass(frozen=True)
class TrainedRun:
    """What a run folder gives back.

    Attributes:
        config: As it was composed.
        data: Set up, on the CPU.
        classifier: With the weights of the last checkpoint, and after the run's ``posthoc``, in
            evaluation mode; called with images (N, C, H, W) in [0, 1] it returns logits (N, K).
        result: None if the run is not complete.
    """

    config: DictConfig
    data: MNISTData
    classifier: Classifier
    result: Result | None


def load_run(folder: str | Path) -> TrainedRun:
    """Return the trained run that a folder holds.

    PyTorch's random numbers and threads are then those of the run's config. The images come from
    the config's ``data.dir``, which is relative to the working folder.

    Raises:
        ConfigError: There is none, or its checkpoint is damaged or of other parts.
    """
    run = RunFolder(Path(folder))
    for file in (run.config_file, run.last_checkpoint):
        if not file.exists():
            raise ConfigError(f"{folder}: no run folder with a checkpoint, {file} is missing")
    try:
        config = run.config()
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{folder}: its config cannot be read ({error})") from error
    if "minority" not in config.data:
        raise ConfigError(f"{folder}: written by an earlier version, whose config says less")
    checkpoint = read_checkpoint(run.last_checkpoint)
    data, classifier = build_parts(config)
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ConfigError(f"{folder}: its checkpoint does not fit its config") from error
    classifier.model = adjusted(config, data, classifier.model)
    return TrainedRun(config, data, classifier.eval(), run.result())
