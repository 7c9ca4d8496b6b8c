"""One config → one run folder: assemble the parts, train, score, keep the record."""

import copy
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from filelock import FileLock
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils import deterministic

from mnist_imbalance.config import build, build_part, check, compose_with, part_of, parts_of
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records import identity
from mnist_imbalance.records.result import (
    Groups,
    Result,
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
from mnist_imbalance.training.classifier import Batch, Classifier, History, to_metrics
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
torch.backends.cudnn.allow_tf32 = False  # float32 means the same on every device
deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # 5 % of a step


@dataclass(frozen=True)
class Parts:
    """Data that is set up, a classifier and the step after training."""

    data: MNISTData
    classifier: Classifier
    posthoc: Posthoc | None


@dataclass(frozen=True)
class LoadedRun(Parts):
    """A run that was read back: its trained classifier, after ``posthoc``, in evaluation mode."""

    config: DictConfig
    result: Result | None  # None if the run is not complete


@dataclass(frozen=True)
class Run(Parts):
    """A run before its training."""

    folder: RunFolder
    trainer: lightning.Trainer  # with all callbacks and loggers
    timer: Timer
    loggers: list[Logger] | None  # None where nothing is kept, for ``trainer.fast_dev_run``
    record: dict[str, Any]  # see `fields_of`
    parent: RunFolder | None  # a finished run that differs in ``posthoc`` alone
    resumed: Path | None  # the checkpoint that training resumes from


def build_data(config: DictConfig) -> MNISTData:
    """Return a run's data, set up."""
    torch.set_num_threads(config.threads)
    data: MNISTData = build(config, "data", kind=MNISTData)
    data.setup()
    return data


def build_parts(config: DictConfig, data: MNISTData | None = None) -> Parts:
    """Return a run's parts, with the initial weights of its seed; each is tried out once."""
    data = data or build_data(config)
    lightning.seed_everything(config.seed, verbose=False)
    names = ("num_classes", "image_shape", "class_counts", "minority")
    known = {name: getattr(data, name) for name in names} | {"head": None}
    known |= {key: config.model[key] for key in ("head", "scale") if key in config.model}
    groups = ("model", "loss", "optimizer", "scheduler", "mix")
    parts = {group: part_of(config, group, known) for group in groups if config.get(group)}
    metrics = parts_of(config, "metrics", known)
    classifier = Classifier(**parts, metrics=metrics, groups=data.groups)
    classifier.try_out(data.image_shape)
    posthoc = None
    if config.get("posthoc"):
        posthoc = build(config, "posthoc", {"seed": config.seed}, Callable)
        few = copy.copy(data)
        few.train, few.val = (one_of_each_label(split) for split in (data.train, data.val))
        few.transforms = ()  # tried out in setup, and slow in a second stage
        adjust(classifier.model, few, posthoc)
    return Parts(data, classifier, posthoc)


def one_of_each_label(batch: Batch) -> Batch:
    """Return one image of each label that occurs, and the labels."""
    images, labels = batch
    present = labels.unique()
    return torch.stack([images[labels == label][0] for label in present]), present


def check_parts(configs: Iterable[DictConfig]) -> None:
    """Try out the parts of runs to come, with equal data built once."""
    known: dict[str, MNISTData] = {}
    for config in configs:
        check(config)
        key = OmegaConf.to_yaml(config.data, resolve=True)
        known[key] = build_parts(config, known.get(key)).data


def adjust(model: nn.Module, data: MNISTData, posthoc: Posthoc) -> nn.Module:
    """Return a trained model after ``posthoc``, on the CPU."""
    data.to(torch.device("cpu"))
    with naming("posthoc"):
        adjusted = posthoc(model, data)
        if not isinstance(adjusted, nn.Module):
            raise TypeError(f"must return a Module, returns a {type(adjusted).__name__}")
        return adjusted


def build_trainer(
    config: DictConfig,
    folder: RunFolder,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[lightning.Callback] = (),
    show_progress: bool = True,
) -> lightning.Trainer:
    """Return the Trainer, which keeps the last checkpoint in the folder."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for text in SILENCED:
        warnings.filterwarnings("ignore", text)
    keep_last = ModelCheckpoint(
        folder.last_checkpoint.parent,
        filename=folder.last_checkpoint.stem,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    if variables := sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        raise ConfigError(f"trainer: unset {variables[0]}, which no record would hold")
    keys = part_of(config, "trainer")
    show_progress = keys.pop("enable_progress_bar") and show_progress
    bar = [Bar(refresh_rate=50)] if show_progress else []
    fixed = {
        "default_root_dir": folder.path,
        "logger": list(loggers),
        "callbacks": [keep_last, *bar, *callbacks],
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "enable_progress_bar": show_progress,
        "num_sanity_val_steps": 0,
        "num_nodes": 1,
    }
    if taken := sorted(fixed.keys() & keys.keys()):
        raise ConfigError(f"trainer.{taken[0]}: cannot be set, a run has its own")
    trainer: lightning.Trainer = build_part(keys, "trainer", lightning.Trainer, **fixed)
    return trainer


def build_loggers(config: DictConfig, folder: RunFolder, epochs_done: int) -> list[Logger]:
    """Return a run's loggers, which get the run folder and the run's name by parameters' names."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seconds, not minutes
    os.environ.setdefault("WANDB_SILENT", "true")
    root = Path(config.runs_dir).absolute()
    name = str(folder.path.relative_to(root) if folder.path.is_relative_to(root) else folder.path)
    known = {"save_dir": str(folder.path), "name": name, "run_name": name}
    parts = parts_of(config, "logger", known | {"purge_step": epochs_done})
    loggers = {key: build_part(part, f"logger.{key}", Logger) for key, part in parts.items()}
    if "mlflow" in loggers:  # two processes would make its store's tables
        with FileLock(root / ".mlflow.lock"), naming("logger.mlflow"):
            loggers["mlflow"].experiment  # noqa: B018
    return list(loggers.values())


def assemble(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Run:
    """Build data and all parts of a run once; nothing below sees the config."""
    parts = build_parts(config)
    record = fields_of(config, hydra)
    origin = Origin(parts.data.sha256, code())
    parent = finished_parent(config.runs_dir, record["config"], origin) if parts.posthoc else None
    epochs_done = 0 if parent else folder.epochs_done()
    keeps = not config.trainer.get("fast_dev_run")
    loggers = build_loggers(config, folder, epochs_done) if keeps else None
    with naming("trainer.max_time"):  # a run resumes after whole epochs only
        timer = Timer(part_of(config, "trainer").get("max_time"), interval="epoch")
    own = parts_of(config, "callbacks", {"dirpath": folder.last_checkpoint.parent})
    chosen = [build_part(own[name], f"callbacks.{name}", lightning.Callback) for name in own]
    callbacks = [timer, SeedEveryEpoch(config.seed), origin, *chosen]
    trainer = build_trainer(config, folder, loggers or [], callbacks, show_progress)
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
        resumed=folder.last_checkpoint if epochs_done else None,
    )


def fields_of(
    config: DictConfig, hydra: HydraConf, compose: Callable[..., DictConfig] = compose_with
) -> dict[str, Any]:
    """Return the fields of a run's record that are known before training."""
    values, choices = identity.determining(config), hydra.runtime.choices
    return {
        "config_hash": identity.hash_config(values),
        "condition": identity.condition_of(values, choices, compose),
        **{group: choices[group] for group in identity.CHOICES},
        "seed": config.seed,
        "data_seed": config.data.seed,
        "threads": config.threads,
        "config": values,
    }


def finished_parent(runs_dir: str, values: Mapping[str, Any], origin: Origin) -> RunFolder | None:
    """Return a finished run of the same data and code that differs in ``posthoc`` alone."""

    def training(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if not key.startswith("posthoc.")}

    for file in sorted(Path(runs_dir).rglob("result.json")):
        with suppress(ConfigError):  # damaged ones are no concern of this run
            result = read_record(file.parent)
            if not result or training(result.config) != training(values):
                continue
            if origin.checksums == {"data": result.data_sha256, "code": result.versions["code"]}:
                read_checkpoint(RunFolder(file.parent).last_checkpoint)
                return RunFolder(file.parent)
    return None


def stopped_early(checkpoint: Path) -> bool:
    """Return whether a callback such as EarlyStopping ended the training of a checkpoint."""
    states = read_checkpoint(checkpoint)["callbacks"].values()
    return any(isinstance(state, dict) and state.get("stopped_epoch") for state in states)


def check_run(config: DictConfig, hydra: HydraConf) -> None:
    """Check a run's values, and that one choice was made in each group that takes one."""
    check(config)
    for group in (*identity.CHOICES, "scheduler", "mix", "posthoc"):
        if not isinstance(hydra.runtime.choices.get(group), str):
            raise ConfigError(f"{group}: must be one choice, {group}=name")


def fit_run(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Result:
    """Train, score and keep a run, or resume it; a finished one is only read."""
    check_run(config, hydra)
    with folder.lock(), wandb_closed():
        if result := folder.result_of(config):
            check_images(config, folder, result)
            return result
        run = assemble(config, hydra, folder, show_progress)
        if run.loggers is None:
            return train(run)
        with folder.begin(config, hydra):
            return train(run)


def check_images(config: DictConfig, folder: RunFolder, result: Result) -> None:
    """Refuse a finished run of other images: ``data.dir`` is no part of a run's identity."""
    moved = folder.config_file.exists() and folder.config().data.dir != config.data.dir
    if moved and result.data_sha256 not in (None, build_data(config).sha256):
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
    steps = load_finished(run, run.parent) if run.parent else fit(run)
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
    took = {"fit": seconds, "test": run.timer.time_elapsed("test")}
    device = describe(trainer.strategy.root_device)
    result = make_result(run.record, run, steps, took, device)
    if run.loggers is not None:
        log_result(run.loggers, result, data)
        if run.parent:
            write_whole(run.folder.last_checkpoint, run.parent.last_checkpoint.read_bytes())
        write_record(run.folder.path, result, classifier.history, classifier.predictions)
    return result


def fit(run: Run) -> int:
    """Train or resume; return the optimizer steps."""
    trainer, classifier = run.trainer, run.classifier
    if run.resumed:  # TensorBoard keeps its epochs; the others begin anew
        classifier.on_load_checkpoint(read_checkpoint(run.resumed))
        loggers = [it for it in run.loggers or [] if not isinstance(it, TensorBoardLogger)]
        log_epochs(loggers, classifier.history, run.data.groups)
    trainer.fit(classifier, datamodule=run.data, ckpt_path=run.resumed, weights_only=True)
    print(trainer.profiler.summary(), end="")  # type: ignore[attr-defined]  # empty without one
    steps = trainer.global_step
    whole = trainer.current_epoch == trainer.max_epochs or steps == trainer.max_steps
    left = run.timer.time_remaining()
    if not whole and not (trainer.should_stop and (left is None or left > 0)):
        raise ConfigError(
            f"trainer: stopped after {len(classifier.history['train'])} of {trainer.max_epochs} "
            "epochs, so there is no result yet; run it again without trainer.max_time to resume"
        )
    return steps


def load_finished(run: Run, parent: RunFolder) -> int:
    """Take over the weights and history of a finished run; return its optimizer steps."""
    print(f"training taken from {parent.path}", flush=True)
    state, result = read_checkpoint(parent.last_checkpoint), parent.result()
    run.classifier.load_state_dict(state["state_dict"])
    run.classifier.on_load_checkpoint(state)
    log_epochs(run.loggers or [], run.classifier.history, run.data.groups)
    return result.steps if result else 0


def log_epochs(loggers: Iterable[Logger], history: History, groups: Groups) -> None:
    """Log the scores of past epochs."""
    for logger in loggers:
        for split, epochs in history.items():
            for epoch, scores in epochs.items():
                logger.log_metrics(to_metrics(split, scores, groups), step=epoch)


def log_result(loggers: Iterable[Logger], result: Result, data: MNISTData) -> None:
    """Log the test scores and the values of the config."""
    chosen = {name: getattr(result, name) for name in ("condition", *identity.CHOICES)}
    for logger in loggers:
        logger.log_metrics(to_metrics("test", result.test, result.groups), step=result.epochs)
        if isinstance(logger, TensorBoardLogger):
            show_in_tensorboard(logger, result, data)
        else:
            logger.log_hyperparams(chosen | result.config)
        logger.finalize("success")


def make_result(
    record: Mapping[str, Any], parts: Parts, steps: int, seconds: dict[str, float], device: str
) -> Result:
    """Return the result of a run that has been trained and tested, see `fields_of`."""
    data, classifier = parts.data, parts.classifier
    return Result(
        **record,
        epochs=max(classifier.history["train"]) + 1,
        steps=steps,
        train_counts=data.class_counts,
        groups=data.groups,
        data_sha256=data.sha256,
        train=classifier.scores["train"],
        val=classifier.scores["val"],
        test=classifier.scores["test"],
        seconds=seconds,
        device=device,
        versions=versions(),
    )


def load_run(folder: str | Path) -> LoadedRun:
    """Read the run that a folder holds; ``data.dir`` is relative to the working folder."""
    run = RunFolder(Path(folder))
    for file in (run.config_file, run.last_checkpoint):
        if not file.exists():
            raise ConfigError(f"{folder}: no run folder with a checkpoint, {file} is missing")
    config = identity.to_current(run.config())
    check(config)
    if "minority" not in config.data:
        raise ConfigError(f"{folder}: an earlier version's, whose config has no data.minority")
    parts = build_parts(config)
    with naming(str(run.last_checkpoint)):
        parts.classifier.load_state_dict(read_checkpoint(run.last_checkpoint)["state_dict"])
    if parts.posthoc:
        parts.classifier.model = adjust(parts.classifier.model, parts.data, parts.posthoc)
    parts.classifier.eval()
    return LoadedRun(**vars(parts), config=config, result=run.result())
