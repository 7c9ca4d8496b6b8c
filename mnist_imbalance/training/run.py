"""One config → one run folder: assemble the parts, train, score, keep the record."""

import copy
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import lightning
import torch
from filelock import FileLock
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils import deterministic

from mnist_imbalance.config import build, build_part, check, compose_with, part_of, parts_of
from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.imbalance import first_of_each
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records.identity import (
    CHOICES,
    condition_of,
    determining,
    hash_config,
    to_current,
)
from mnist_imbalance.records.result import (
    Groups,
    Result,
    Scores,
    Seconds,
    read_record,
    write_record,
    write_whole,
)
from mnist_imbalance.training.callbacks import (
    AtomicCheckpointIO,
    Bar,
    Origin,
    SeedEveryEpoch,
    read_checkpoint,
)
from mnist_imbalance.training.classifier import Batch, Classifier, to_metrics
from mnist_imbalance.training.folder import RunFolder, code, describe, versions
from mnist_imbalance.training.tensorboard import show_in_tensorboard

Posthoc = Callable[[nn.Module, MNISTData], nn.Module]
SILENCED = (
    "The number of training batches",  # nothing is logged by step
    ".*does not have many workers",  # slices need none
    "Checkpoint directory",  # not empty when a run resumes
    "Experiment logs directory",  # of CSVLogger, likewise
    "The `srun` command",  # where Slurm is installed but not used
)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that a notebook, too, needs: data that is set up, and a classifier."""

    data: MNISTData
    classifier: Classifier
    posthoc: Posthoc | None


@dataclass(frozen=True)
class Run(Parts):
    """A run before its training, all its parts built.

    Attributes:
        folder: Where it is kept.
        trainer: With all callbacks and loggers.
        timer: One of these callbacks.
        loggers: By name; none where nothing is kept.
        record: The fields of the result that are known before training.
        parent: A finished run that differs in ``posthoc`` alone.
        epochs_done: Epochs before the last checkpoint.
        keeps: False for ``trainer.fast_dev_run``.
    """

    folder: RunFolder
    trainer: lightning.Trainer
    timer: Timer
    loggers: dict[str, Logger]
    record: dict[str, Any]
    parent: RunFolder | None
    epochs_done: int
    keeps: bool


def build_data(config: DictConfig) -> MNISTData:
    """Return a run's data, set up.

    Raises:
        ConfigError: A value cannot work.
    """
    torch.set_num_threads(config.threads)
    data: MNISTData = build(config, "data", kind=MNISTData)
    data.setup()
    images = {"train": len(data.order(0)), "val": len(data.val[1]), "test": len(data.test[1])}
    for split, number in images.items():
        limit = config.trainer.get(f"limit_{split}_batches", 1.0)
        batches = ceil(number / data.batch_size)
        if isinstance(limit, float) and int(batches * limit) < 1:
            raise ConfigError(
                f"trainer.limit_{split}_batches: {limit} of {batches} batches is none"
            )
    return data


def build_parts(config: DictConfig, data: MNISTData | None = None) -> Parts:
    """Return a run's parts, with the initial weights of its seed; each is tried out once.

    Raises:
        ConfigError: A part cannot be made with these values, or cannot be called.
    """
    data = data or build_data(config)
    torch.backends.cudnn.allow_tf32 = False  # float32 means the same on every device
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # 5 % of a step
    lightning.seed_everything(config.seed, verbose=False)
    names = ("num_classes", "image_shape", "class_counts", "minority")
    known = {name: getattr(data, name) for name in names} | {"head": None}
    known |= {key: config.model[key] for key in ("head", "scale") if key in config.model}
    parts = {
        group: part_of(config, group, known)
        for group in ("model", "loss", "optimizer", "scheduler", "mix")
        if config.get(group)
    }
    metrics = parts_of(config, "metrics", known)
    classifier = Classifier(**parts, metrics=metrics, groups=data.groups)
    classifier.try_out(data.image_shape)
    if not config.get("posthoc"):
        return Parts(data, classifier, None)
    posthoc = build(config, "posthoc", {"seed": config.seed}, Callable)
    few = copy.copy(data)
    few.train, few.val = map(one_of_each_label, (data.train, data.val))
    adjust(classifier.model, few, posthoc)
    return Parts(data, classifier, posthoc)


def one_of_each_label(batch: Batch) -> Batch:
    """Return one image of each label that occurs, and the labels."""
    images, labels = batch
    present = labels.unique()
    return images[first_of_each(labels, present.tolist())], present


def check_parts(configs: Iterable[DictConfig]) -> None:
    """Build the parts of runs to come, equal data once.

    Raises:
        ConfigError: A value cannot work.
    """
    known: dict[str, MNISTData] = {}
    for config in configs:
        check(config)
        key = OmegaConf.to_yaml(config.data, resolve=True)
        known[key] = build_parts(config, known.get(key)).data


def adjust(model: nn.Module, data: MNISTData, posthoc: Posthoc) -> nn.Module:
    """Return a trained model after ``posthoc``, on the CPU.

    Raises:
        ConfigError: It cannot be done to this model.
    """
    data.to(torch.device("cpu"))
    with naming("posthoc"):
        adjusted = posthoc(model, data)
        if not isinstance(adjusted, nn.Module):
            raise TypeError(f"must return a Module, returns a {type(adjusted).__name__}")
        return adjusted


def build_trainer(
    keys: DictConfig,
    folder: RunFolder,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[lightning.Callback] = (),
    show_progress: bool = True,
) -> lightning.Trainer:
    """Return the Trainer that the config group ``trainer`` describes.

    Raises:
        ConfigError: A key cannot work here.
    """
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for text in SILENCED:
        warnings.filterwarnings("ignore", text)
    if variables := sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        raise ConfigError(
            f"trainer: unset {variables[0]}, which no record would show; write +trainer.key=value"
        )
    keep_last = ModelCheckpoint(
        folder.last_checkpoint.parent,
        filename=folder.last_checkpoint.stem,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    show_progress = show_progress and keys.enable_progress_bar
    bar = [Bar(refresh_rate=10)] if show_progress else []
    fixed: dict[str, Any] = {
        "default_root_dir": folder.path,
        "logger": list(loggers),
        "callbacks": [keep_last, *bar, *callbacks],
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "num_nodes": 1,
    }
    if taken := sorted(fixed.keys() & keys.keys()):
        raise ConfigError(f"trainer.{taken[0]}: cannot be set, a run has its own")
    fixed["enable_progress_bar"] = show_progress
    part = {**part_of(OmegaConf.create({"trainer": keys}), "trainer"), **fixed}
    trainer: lightning.Trainer = build_part(part, "trainer", lightning.Trainer)
    return trainer


def build_loggers(config: DictConfig, folder: RunFolder, epochs_done: int) -> dict[str, Logger]:
    """Return a run's loggers by name.

    Each is given, by a parameter's name, ``save_dir``, the run folder; the run's ``name`` or
    ``run_name``; and, where it is ``???``, ``purge_step``, the epochs that were logged before. A
    resumed run goes on in the same run of MLflow or W&B, by ``run_id`` or ``id``.

    Raises:
        ConfigError: One cannot be made with these values.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seconds, not minutes
    os.environ.setdefault("WANDB_SILENT", "true")
    root = Path(config.runs_dir).absolute()
    below = folder.path.relative_to(root) if folder.path.is_relative_to(root) else folder.path
    known = {"save_dir": str(folder.path), "name": str(below), "run_name": str(below)}
    known["purge_step"] = epochs_done
    kept = json.loads(folder.ids_file.read_text()) if folder.ids_file.exists() else {}
    return {
        name: build_part(
            part_of(
                config,
                f"logger.{name}",
                known | {"run_id": kept.get(name), "id": kept.get(name)},
            ),
            f"logger.{name}",
            Logger,
        )
        for name in config.get("logger") or {}
    }


def assemble(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Run:
    """Build data and all parts of a run once; nothing below sees the config.

    Raises:
        ConfigError: A part cannot be made with these values.
    """
    parts = build_parts(config)
    record = fields_of(config, hydra)
    origin = Origin(parts.data.sha256, code())
    parent = finished_parent(config.runs_dir, record["config"], origin) if parts.posthoc else None
    epochs_done = 0 if parent else folder.epochs_done()
    keeps = not config.trainer.get("fast_dev_run")
    loggers = build_loggers(config, folder, epochs_done) if keeps else {}
    own = {
        name: build_part(part, f"callbacks.{name}", lightning.Callback)
        for name, part in parts_of(config, "callbacks", {"dirpath": folder.last_checkpoint.parent}).items()
    }
    max_time: Any = OmegaConf.to_container(config.trainer, resolve=True).get("max_time")
    with naming("trainer.max_time"):
        timer = Timer(max_time, interval="epoch")  # a run resumes after whole epochs only
    callbacks = [timer, SeedEveryEpoch(config.seed), origin, *own.values()]
    trainer = build_trainer(
        config.trainer, folder, list(loggers.values()), callbacks, show_progress
    )
    if epochs_done and stopped_early(folder.last_checkpoint):
        trainer.fit_loop.max_epochs = epochs_done
    return Run(
        **vars(parts),
        folder=folder,
        trainer=trainer,
        timer=timer,
        loggers=loggers,
        record=record,
        parent=parent,
        epochs_done=epochs_done,
        keeps=keeps,
    )


def fields_of(
    config: DictConfig, hydra: HydraConf, compose: Callable[..., DictConfig] = compose_with
) -> dict[str, Any]:
    """Return the fields of a run's record that are known before training; see `condition_of`."""
    values, choices = determining(config), hydra.runtime.choices
    return {
        "config_hash": hash_config(values),
        "condition": condition_of(values, choices, compose),
        **{group: choices[group] for group in CHOICES},
        "seed": config.seed,
        "data_seed": config.data.seed,
        "threads": config.threads,
        "config": values,
    }


def finished_parent(runs_dir: str, values: Mapping[str, Any], origin: Origin) -> RunFolder | None:
    """Return a finished run of the same data and code that differs in ``posthoc`` alone, if any."""

    def training(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if not key.startswith("posthoc.")}

    for file in sorted(Path(runs_dir).rglob("result.json")):
        with suppress(ConfigError):  # damaged ones are no concern of this run
            result = read_record(file.parent)
            if not result or training(result.config) != training(values):
                continue
            made_with = {"data": result.data_sha256, "code": result.versions.get("code")}
            if made_with == origin.checksums:
                read_checkpoint(RunFolder(file.parent).last_checkpoint)
                return RunFolder(file.parent)
    return None


def stopped_early(checkpoint: Path) -> bool:
    """Return whether a callback such as EarlyStopping ended the training of a checkpoint."""
    states = read_checkpoint(checkpoint)["callbacks"].values()
    return any(isinstance(state, dict) and state.get("stopped_epoch") for state in states)


def fit_run(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Result:
    """Train, validate and test as the config says, or resume the run that the folder holds.

    Args:
        config: Composed from ``conf/train.yaml``.
        hydra: Hydra's part of the composition, for the choices and overrides.
        folder: Of the run; a finished run of the same config is only read.
        show_progress: Show a bar while training, if the config wants one too.

    Raises:
        ConfigError: A value cannot work, the folder holds another run or a damaged one, or the
            loss diverges.
    """
    check_run(config, hydra)
    with folder.lock(), wandb_closed():
        if result := folder.result_of(config):
            check_images(config, folder, result)
            return result
        run = assemble(config, hydra, folder, show_progress)
        if not run.keeps:
            return train(run)
        folder.begin(config, hydra)
        try:
            return train(run)
        except Exception:
            folder.discard()
            raise


def check_run(config: DictConfig, hydra: HydraConf) -> None:
    """Check a run's values, and that one choice was made in each group that takes one.

    Raises:
        ConfigError: A value cannot work, or there are several choices or none.
    """
    check(config)
    for group in (*CHOICES, "scheduler", "mix", "posthoc"):
        if not isinstance(hydra.runtime.choices.get(group), str):
            raise ConfigError(f"{group}: must be one choice, {group}=name")


def check_images(config: DictConfig, folder: RunFolder, result: Result) -> None:
    """Refuse a finished run of other images: ``data.dir`` is no part of a run's identity.

    Raises:
        ConfigError: ``data.dir`` holds other images than the run was trained on.
    """
    if folder.config_file.exists() and folder.config().data.dir == config.data.dir:
        return
    if result.data_sha256 not in (None, build_data(config).sha256):
        raise ConfigError(
            f"data.dir: {folder.path} holds a finished run of other images; choose another "
            "runs_dir for these"
        )


@contextmanager
def wandb_closed() -> Iterator[None]:
    """End the process's run of Weights & Biases with the block, or the next run would join it."""
    try:
        yield
    finally:
        if wandb := sys.modules.get("wandb"):
            wandb.finish(exit_code=int(sys.exception() is not None))


def train(run: Run) -> Result:
    """Train or resume, validate, adjust, test, and keep the record."""
    classifier, data, trainer = run.classifier, run.data, run.trainer
    steps = load_finished(run) if run.parent else fit(run)
    trainer.loggers = []  # their curves show training
    if trainer.progress_bar_callback:
        trainer.progress_bar_callback.disable()
    trainer.validate(classifier, datamodule=data, verbose=False)
    classifier.close_history()
    seconds = run.timer.time_elapsed("train")
    if run.posthoc:
        begun = time.monotonic()
        classifier.model = adjust(classifier.model, data, run.posthoc)
        seconds += time.monotonic() - begun
        print(f"posthoc: {getattr(classifier.model, 'summary', 'done')}")
        trainer.validate(classifier, datamodule=data, verbose=False)
    trainer.test(classifier, datamodule=data, verbose=False)
    took = Seconds(fit=seconds, test=run.timer.time_elapsed("test"))
    device = describe(trainer.strategy.root_device)
    result = make_result(run.record, data, classifier, steps, took, device)
    if run.keeps:
        log_result(run.loggers.values(), result, data)
        if run.parent:
            write_whole(run.folder.last_checkpoint, run.parent.last_checkpoint.read_bytes())
        write_record(run.folder.path, result, classifier.history, classifier.predictions)
    return result


def fit(run: Run) -> int:
    """Train or resume; return the optimizer steps.

    Raises:
        ConfigError: ``trainer.max_time`` was over before the end.
    """
    trainer, history = run.trainer, run.classifier.history
    checkpoint = run.folder.last_checkpoint if run.epochs_done else None
    start_loggers(run, checkpoint)
    trainer.fit(run.classifier, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    print(trainer.profiler.summary(), end="")  # empty without a profiler
    steps = trainer.global_step
    whole = trainer.current_epoch == trainer.max_epochs or steps == trainer.max_steps
    in_time = (run.timer.time_remaining() or 1) > 0
    if not whole and not (trainer.should_stop and in_time):
        raise ConfigError(
            f"trainer: stopped after {len(history['train'])} of {trainer.max_epochs} epochs, so "
            "there is no result yet; run it again without trainer.max_time to resume"
        )
    return steps


def load_finished(run: Run) -> int:
    """Give a classifier the weights and history of the parent; return its optimizer steps."""
    assert run.parent
    print(f"training taken from {run.parent.path}", flush=True)
    start_loggers(run, run.parent.last_checkpoint)
    state = read_checkpoint(run.parent.last_checkpoint)
    run.classifier.load_state_dict(state["state_dict"])
    run.classifier.on_load_checkpoint(state)
    result = run.parent.result()
    assert result
    return result.steps


def start_loggers(run: Run, checkpoint: Path | None) -> None:
    """Keep the loggers' own run ids, and log the epochs before a checkpoint where they are lost."""
    if not run.loggers:
        return
    with FileLock(run.folder.ids_file.with_suffix(".lock")):
        for logger in run.loggers.values():
            logger.experiment  # noqa: B018  # which has an id from here on
    ids = {name: str(logger.version) for name, logger in run.loggers.items()}
    write_whole(run.folder.ids_file, json.dumps(ids))
    lost = [
        logger
        for logger in run.loggers.values()
        if run.parent or isinstance(logger, CSVLogger)  # which starts an empty file
    ]
    if checkpoint and lost:
        history = read_checkpoint(checkpoint)["history"]
        log_epochs(
            lost,
            {
                split: {epoch: Scores(**scores) for epoch, scores in epochs.items()}
                for split, epochs in history.items()
            },
            run.data.groups,
        )


def log_epochs(
    loggers: Iterable[Logger], history: Mapping[str, Mapping[int, Scores]], groups: Groups
) -> None:
    """Log the scores of past epochs."""
    for split, epochs in history.items():
        for epoch, scores in epochs.items():
            for logger in loggers:
                logger.log_metrics(to_metrics(split, scores, groups), step=epoch)


def log_result(loggers: Iterable[Logger], result: Result, data: MNISTData) -> None:
    """Log the test scores and what was chosen."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            show_in_tensorboard(logger, result, data)
        else:
            named = {name: getattr(result, name) for name in ("condition", *CHOICES)}
            logger.log_hyperparams(named | result.config)
            logger.log_metrics(to_metrics("test", result.test, result.groups), step=result.epochs)
            logger.finalize("success")


def make_result(
    record: Mapping[str, Any],
    data: MNISTData,
    classifier: Classifier,
    steps: int,
    seconds: Seconds,
    device: str,
) -> Result:
    """Return the result of a run that has been trained and tested, see `fields_of`."""
    return Result(
        **record,
        epochs=max(classifier.history["train"]) + 1,
        steps=steps,
        train_counts=data.class_counts,
        groups=data.groups,
        data_sha256=data.sha256,
        **{split: classifier.scores[split] for split in ("train", "val", "test")},
        seconds=seconds,
        device=device,
        versions=versions(),
    )


@dataclass(frozen=True)
class TrainedRun:
    """A run that was read back from its folder.

    Attributes:
        config: As it was composed.
        data: Set up, on the CPU.
        classifier: With the weights of the last checkpoint, after ``posthoc``, in evaluation mode;
            it maps images (N, C, H, W) in [0, 1] to logits (N, K).
        result: None if the run is not complete.
    """

    config: DictConfig
    data: MNISTData
    classifier: Classifier
    result: Result | None


def load_run(folder: str | Path) -> TrainedRun:
    """Read the run that a folder holds; ``data.dir`` is relative to the working folder.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    run = RunFolder(Path(folder))
    for file in (run.config_file, run.last_checkpoint):
        if not file.exists():
            raise ConfigError(f"{folder}: no run folder with a checkpoint, {file} is missing")
    try:
        config = to_current(run.config())
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{folder}: its config cannot be read ({error})") from error
    if "minority" not in config.data:
        raise ConfigError(f"{folder}: written by an earlier version, whose config lacks data.minority")
    checkpoint = read_checkpoint(run.last_checkpoint)
    parts = build_parts(config)
    try:
        parts.classifier.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ConfigError(f"{folder}: its checkpoint does not fit its config") from error
    if parts.posthoc:
        parts.classifier.model = adjust(parts.classifier.model, parts.data, parts.posthoc)
    return TrainedRun(config, parts.data, parts.classifier.eval(), run.result())
