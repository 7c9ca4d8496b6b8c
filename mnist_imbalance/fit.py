"""One config → one run folder: builds the parts, trains, scores, keeps the record."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from hydra.conf import HydraConf
from hydra.errors import InstantiationException
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch.utils import deterministic

from mnist_imbalance.callbacks import EpochBar, Origin, SeedEveryEpoch
from mnist_imbalance.checkpoints import AtomicCheckpointIO, epochs_done
from mnist_imbalance.classifier import Classifier
from mnist_imbalance.conditions import CHOICES, changes, name_condition, named_choices
from mnist_imbalance.config import build, check, compose_with
from mnist_imbalance.data import MNISTData
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.provenance import describe, versions
from mnist_imbalance.runs import (
    Result,
    RunFolder,
    Seconds,
    determining,
    hash_config,
    is_cut_short,
)
from mnist_imbalance.tensorboard import make_logger, show_in_tensorboard


def make_trainer(
    config: DictConfig,
    folder: RunFolder,
    logger: TensorBoardLogger | None,
    callbacks: Sequence[lightning.Callback],
) -> lightning.Trainer:
    """Return the Trainer that keeps its checkpoint in a folder.

    Raises:
        ConfigError: A key of the trainer cannot work here.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The number of training batches")  # nothing is logged by step
    warnings.filterwarnings("ignore", "Checkpoint directory")  # not empty when a run goes on
    keep_last = ModelCheckpoint(
        folder.last_checkpoint.parent,
        filename=folder.last_checkpoint.stem,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    if variables := sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        raise ConfigError(
            f"trainer: Lightning would read {variables[0]} from the environment, which no record "
            "tells; unset it and write +trainer.key=value"
        )
    ours: dict[str, Any] = {
        "default_root_dir": folder.path,
        "logger": logger or False,
        "callbacks": [keep_last, *callbacks],
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    if taken := sorted(ours.keys() & config.trainer.keys()):
        raise ConfigError(f"trainer.{taken[0]}: cannot be set, a run has its own")
    try:
        trainer: lightning.Trainer = build(config, "trainer", **ours, enable_progress_bar=False)
    except InstantiationException as error:
        if isinstance(error.__cause__, MisconfigurationException):
            raise ConfigError(f"trainer: {' '.join(str(error.__cause__).split())}") from error
        raise
    return trainer


def fit_run(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Result:
    """Train, validate and test as the config says, or go on from where the folder is.

    Args:
        config: Composed from ``conf/train.yaml``.
        hydra: Hydra's part of the composition, for the choices and overrides.
        folder: Where the run is kept; a finished run of the same config is only read.
        show_progress: Show a bar while training, if the config wants one too.

    Returns:
        What ``result.json`` holds.

    Raises:
        ConfigError: A value cannot work, the folder holds another run or a damaged one, or the
            loss diverges.
    """
    check(config)
    with folder.lock():
        result = folder.result_of(config)
        if result:
            check_images(config, folder, result)
        return result or fit_and_score(config, hydra, folder, show_progress)


def check_images(config: DictConfig, folder: RunFolder, result: Result) -> None:
    """Refuse to take a finished run of other images for this config's.

    The images' folder is not part of a run's identity, so that data may move.

    Raises:
        ConfigError: ``data.dir`` holds others than the run was trained on.
    """
    if not result.data_sha256 or not folder.config_file.exists():
        return
    moved = OmegaConf.load(folder.config_file).data.dir != config.data.dir
    if moved and build_data(config).sha256 != result.data_sha256:
        raise ConfigError(
            f"data.dir: {folder.path} holds a finished run of other images; choose another "
            "runs_dir for these"
        )


def build_data(config: DictConfig) -> MNISTData:
    """Return a run's data, set up.

    Raises:
        ConfigError: It cannot be made with these values.
    """
    torch.set_num_threads(config.threads)
    data: MNISTData = build(config, "data")
    data.setup()
    return data


def build_classifier(config: DictConfig, data: MNISTData) -> Classifier:
    """Return a run's classifier with the initial weights of its seed.

    Args:
        config: Of the run.
        data: What its parts may ask for; set up.

    Raises:
        ConfigError: A part cannot be made with these values, or cannot be called.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 means the same on every device
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # 5 % of a step
    lightning.seed_everything(config.seed, verbose=False)
    asked = ("num_classes", "image_shape", "class_counts", "minority")
    known = {name: getattr(data, name) for name in asked}
    classifier = Classifier(
        build(config, "model", known),
        build(config, "loss", known),
        build(config, "optimizer"),
        data.groups,
        build(config, "metrics", known),
    )
    rehearse(classifier, data.image_shape)
    with naming("optimizer"):
        classifier.configure_optimizers()
    return classifier


def build_parts(config: DictConfig) -> tuple[MNISTData, Classifier]:
    """Return a run's data, set up, and its classifier, see `build_classifier`."""
    data = build_data(config)
    return data, build_classifier(config, data)


def rehearse(classifier: Classifier, image_shape: Sequence[int]) -> None:
    """Call model, loss and metrics once, on two black images.

    Raises:
        ConfigError: One of them cannot be called, or the loss is no scalar.
    """
    labels = torch.zeros(2, dtype=torch.long)
    classifier.eval()
    part = "model"
    try:
        with torch.inference_mode():
            logits = classifier(torch.zeros(2, *image_shape))
            part = "loss"
            loss = classifier.loss(logits, labels)
            if loss.numel() != 1:
                raise ValueError(f"must give one number for a batch, gives {loss.numel()} for two")
            for name, metric in classifier.metrics.items():
                part = f"metrics.{name}"
                float(metric(logits, labels))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{part}: {reason}") from error
    classifier.train()


def fit_and_score(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool
) -> Result:
    """Do what `fit_run` promises in a folder that is ours and not finished."""
    data, classifier = build_parts(config)
    done = epochs_done(folder.last_checkpoint)
    logger = make_logger(folder, done)
    max_time: Any = OmegaConf.to_container(config.trainer, resolve=True).get("max_time")  # type: ignore[union-attr]
    try:
        timer = Timer(max_time)
    except (AttributeError, TypeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer.max_time: {error}") from error
    show_progress = show_progress and config.trainer.enable_progress_bar
    callbacks = [timer, SeedEveryEpoch(config.seed), Origin(data)]
    if show_progress:
        alone = folder.path if hydra.mode == RunMode.RUN else None
        callbacks.append(EpochBar(f"{len(data.order(0)):,} images", alone))
    trainer = make_trainer(config, folder, logger, callbacks)
    fresh = folder.is_fresh()
    folder.begin(config, hydra)
    try:
        checkpoint = folder.last_checkpoint if done else None
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Exception:
        if fresh and not folder.last_checkpoint.exists():
            folder.discard()
        raise
    steps = trainer.global_step
    if trainer.current_epoch != config.trainer.max_epochs and steps != config.trainer.max_steps:
        raise ConfigError(
            f"trainer: training was ended after {trainer.current_epoch} of "
            f"{config.trainer.max_epochs} epochs; only a whole training has a result"
        )
    trainer.logger = None  # its curves are those of training
    trainer.validate(classifier, datamodule=data, verbose=False)
    trainer.test(classifier, datamodule=data, verbose=False)

    check_whole(config, data, classifier)
    end_history(classifier)
    result = make_result(
        config,
        hydra,
        data,
        classifier,
        steps,
        Seconds(fit=timer.time_elapsed("train"), test=timer.time_elapsed("test")),
        describe(trainer.strategy.root_device),
    )
    show_in_tensorboard(logger, result, data)
    folder.finish(result, classifier.history, classifier.predictions)
    return result


def check_whole(config: DictConfig, data: MNISTData, classifier: Classifier) -> None:
    """Refuse scores of a part of a set, unless a key of the config limits it and so names the run.

    Raises:
        ConfigError: Images are missing.
    """
    if is_cut_short(determining(config)):
        return
    for stage, held in (("val", "validation"), ("test", "test")):
        seen = [sum(row) for row in classifier.scores[stage].confusion]
        if seen != data.counts[held]:
            raise ConfigError(
                f"trainer: {sum(seen)} of {sum(data.counts[held])} {held} images were scored, and "
                "no key of the config says so; this run has no result"
            )


def end_history(classifier: Classifier) -> None:
    """Add the last validation where training ended within an epoch, without one of its own."""
    last = max(classifier.history["train"])
    classifier.history["val"].setdefault(last, classifier.scores["val"])


def condition_of(values: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """Return a run's condition as it would be called on the command line.

    Args:
        values: All that determines the run.
        choices: The name chosen in each config group, those below ``data`` among them.
    """
    usual = compose_with([f"data={choices['data']}"], with_hydra=True).hydra.runtime.choices
    named = named_choices(choices, usual)
    plain = determining(compose_with([f"{group}={choice}" for group, choice in named.items()]))
    return name_condition(named, changes(values, plain))


def make_result(
    config: DictConfig,
    hydra: HydraConf,
    data: MNISTData,
    classifier: Classifier,
    steps: int,
    seconds: Seconds,
    device: str,
) -> Result:
    """Put together what ``result.json`` holds of a run that has been trained and tested."""
    values = determining(config)
    choices = {group: hydra.runtime.choices[group] for group in CHOICES}
    return Result(
        config_hash=hash_config(values),
        condition=condition_of(values, hydra.runtime.choices),
        **choices,
        seed=config.seed,
        data_seed=config.data.seed,
        epochs=max(classifier.history["train"]) + 1,
        steps=steps,
        train_counts=data.counts["expanded"],
        groups=data.groups,
        data_sha256=data.sha256,
        train=classifier.scores["train"],
        val=classifier.scores["val"],
        test=classifier.scores["test"],
        seconds=seconds,
        device=device,
        threads=config.threads,
        versions=versions(),
        config=values,
    )
