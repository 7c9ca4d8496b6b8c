"""One config → one run folder: build the parts, train, score, keep the record."""

import copy
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy
import torch
from filelock import FileLock
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import ModelCheckpoint, Timer, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torchmetrics.utilities.plot import plot_confusion_matrix

from mnist_imbalance.config import build, build_part, check, compose_with, part_of, parts_of
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records import identity
from mnist_imbalance.records.result import Groups, History, Result, write_record
from mnist_imbalance.training.callbacks import AtomicCheckpointIO, Origin, SeedEveryEpoch
from mnist_imbalance.training.classifier import Classifier, to_metrics
from mnist_imbalance.training.folder import RunFolder, code, describe, lock, versions

Posthoc = Callable[[nn.Module, MNISTData], nn.Module]
SILENCED = (  # warnings of Lightning that no user can act on
    "The number of training batches",  # nothing is logged by step
    ".*does not have many workers",  # slices need none
    "Checkpoint directory",  # not empty when a run resumes
    "Experiment logs directory",  # of CSVLogger, likewise
    "The `srun` command",  # where Slurm is installed but not used
    ".*LeafSpec",  # is deprecated, of Lightning's own code
)


@dataclass(frozen=True)
class Parts:
    """The parts of a run; those of `load_run` are trained, and in evaluation mode."""

    config: DictConfig
    data: MNISTData  # set up
    classifier: Classifier
    posthoc: Posthoc | None  # the step after training
    result: Result | None = None  # of a complete run that was loaded


def build_parts(config: DictConfig, data: MNISTData | None = None) -> Parts:
    """Return a run's parts, with the initial weights of its seed; each is tried out once."""
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means the same on every device
    # filling takes 5 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data = data or build(config, "data", kind=MNISTData)
    data.setup()
    lightning.seed_everything(config.seed, verbose=False)
    names = ("num_classes", "image_shape", "class_counts", "minority")
    known = {name: getattr(data, name) for name in names} | {"head": None}
    known |= {key: config.model[key] for key in ("head", "scale") if key in config.model}
    groups = ("model", "loss", "optimizer", "scheduler", "mix")
    parts = {group: part_of(config, group, known) for group in groups if config.get(group)}
    classifier = Classifier(**parts, metrics=parts_of(config, "metrics", known), groups=data.groups)
    classifier.try_out(data.image_shape)
    posthoc = None
    if config.get("posthoc"):
        posthoc = build(config, "posthoc", {"seed": config.seed}, Callable)
        few, (images, labels) = copy.copy(data), data.train
        _, first = numpy.unique(labels, return_index=True)  # an image of each label
        few.train = few.val = images[first], labels[first]
        few.augment, few.transforms = None, ()  # tried out in setup, slow in a second stage
        adjust(classifier.model, few, posthoc)
    return Parts(config, data, classifier, posthoc)


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
        adjusted = posthoc(copy.deepcopy(model).eval(), data)
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
    warnings.filterwarnings("ignore", "|".join(SILENCED))
    last = folder.last_checkpoint
    keep_last = ModelCheckpoint(
        last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    keys = part_of(config, "trainer")
    show_progress = keys.pop("enable_progress_bar", True) and show_progress
    bar = [TQDMProgressBar(refresh_rate=50)] if show_progress else []
    fixed = {
        "default_root_dir": folder.path,
        "logger": list(loggers),
        "callbacks": [*bar, *callbacks, keep_last],  # which keeps the states of the others
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "enable_progress_bar": show_progress,
        "num_sanity_val_steps": 0,
        "num_nodes": 1,
        "fast_dev_run": False,
    }
    if taken := sorted(fixed.keys() & keys.keys()):
        raise ConfigError(f"trainer.{taken[0]}: cannot be set, a run has its own")
    trainer: lightning.Trainer = build_part(keys, "trainer", lightning.Trainer, **fixed)
    return trainer


def build_loggers(config: DictConfig, folder: RunFolder, epochs_done: int) -> list[Logger]:
    """Return a run's loggers; its folder and name are injected by parameter name."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seconds, not minutes
    os.environ.setdefault("WANDB_SILENT", "true")
    name = os.path.relpath(folder.path, config.runs_dir)
    known = {"save_dir": str(folder.path), "name": name, "run_name": name}
    parts = parts_of(config, "logger", known | {"purge_step": epochs_done})
    loggers = {key: build_part(part, f"logger.{key}", Logger) for key, part in parts.items()}
    if "mlflow" in loggers:  # of two processes, one makes the store and the experiment
        with FileLock(Path(config.runs_dir, ".mlflow.lock")), naming("logger.mlflow"):
            loggers["mlflow"].experiment  # noqa: B018
    return list(loggers.values())


def fields_of(
    config: DictConfig, hydra: HydraConf, compose: Callable[..., DictConfig] = compose_with
) -> dict[str, Any]:
    """Return the fields of a run's record that are known before training."""
    values, choices = identity.result_config(config), hydra.runtime.choices
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
    """Return a finished run of the same data and code with the same values, but no ``posthoc``."""
    training = {key: value for key, value in values.items() if not key.startswith("posthoc.")}
    for file in sorted(Path(runs_dir).rglob("result.json")):
        folder = RunFolder(file.parent)
        with suppress(ConfigError):  # damaged ones are no concern of this run
            result = folder.result()
            made = result and (result.config, result.data_sha256, result.versions["code"])
            if made == (training, *origin.checksums.values()):
                folder.checkpoint()
                return folder
    return None


def check_run(config: DictConfig, hydra: HydraConf) -> None:
    """Check the values of a run, and that groups of a single choice have one."""
    check(config)
    for group in (*identity.CHOICES, "scheduler", "mix", "posthoc"):
        if not isinstance(hydra.runtime.choices.get(group), str):
            raise ConfigError(f"{group}: must be one choice, {group}=name")


def run_or_resume(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Result:
    """Train, score and keep a run, or resume it; a finished one is only read."""
    check_run(config, hydra)
    with lock(folder.path):
        if result := folder.result_of(config):  # whose identity does not hold data.dir
            moved = folder.config_file.exists() and folder.config().data.dir != config.data.dir
            if moved and result.data_sha256 != build_parts(config).data.sha256:
                raise ConfigError(f"data.dir: {folder.path} holds a finished run of other images")
            return result
        parts = build_parts(config)
        try:
            with folder.begin(config, hydra):
                return train_and_score(parts, folder, fields_of(config, hydra), show_progress)
        finally:
            if wandb := sys.modules.get("wandb"):  # or the next run would join this one's
                wandb.finish(exit_code=int(sys.exception() is not None))


def train_and_score(
    parts: Parts, folder: RunFolder, record: dict[str, Any], show_progress: bool
) -> Result:
    """Train or resume, validate, adjust, test, and keep the record, see `fields_of`."""
    config, data, classifier = parts.config, parts.data, parts.classifier
    origin = Origin(data.sha256, code())
    parent = finished_parent(config.runs_dir, record["config"], origin) if parts.posthoc else None
    epochs_done = 0 if parent else folder.epochs_done()
    loggers = build_loggers(config, folder, epochs_done)
    with naming("trainer.max_time"):  # a run resumes after whole epochs only
        timer = Timer(part_of(config, "trainer").get("max_time"), interval="epoch")
    own = parts_of(config, "callbacks", {"dirpath": folder.last_checkpoint.parent})
    chosen = [build_part(own[name], f"callbacks.{name}", lightning.Callback) for name in own]
    callbacks = [timer, SeedEveryEpoch(config.seed), origin, *chosen]
    trainer = build_trainer(config, folder, loggers, callbacks, show_progress)
    if parent:
        print(f"training taken from {parent.path}", flush=True)
        state = parent.checkpoint()
        classifier.load_state_dict(state["state_dict"])
        classifier.on_load_checkpoint(state)
        log_epochs(loggers, classifier.history, data.groups)
        AtomicCheckpointIO().save_checkpoint(state, folder.last_checkpoint)
        steps = state["global_step"]
    else:
        fit(parts, trainer, timer, folder if epochs_done else None)
        steps = trainer.global_step
    trainer.loggers = []  # their curves show training
    if trainer.progress_bar_callback:
        trainer.progress_bar_callback.disable()
    trainer.validate(classifier, datamodule=data, verbose=False)
    classifier.close_history()
    seconds = timer.time_elapsed("train")
    if parts.posthoc:
        begun = time.monotonic()
        classifier.model = adjust(classifier.model, data, parts.posthoc)
        seconds += time.monotonic() - begun
        print(f"posthoc: {getattr(classifier.model, 'summary', 'done')}")
        trainer.validate(classifier, datamodule=data, verbose=False)
    trainer.test(classifier, datamodule=data, verbose=False)
    took = {"fit": seconds, "test": timer.time_elapsed("test")}
    result = make_result(record, parts, steps, took, describe(trainer.strategy.root_device))
    log_result(loggers, result)
    write_record(folder.path, result, classifier.history, classifier.predictions)
    return result


def fit(parts: Parts, trainer: lightning.Trainer, timer: Timer, begun: RunFolder | None) -> None:
    """Train to the end, from the last checkpoint of a folder if the run was begun."""
    if begun:
        state = begun.checkpoint()
        if any(own.get("stopped_epoch") for own in state["callbacks"].values()):  # EarlyStopping's
            trainer.fit_loop.max_epochs = state["epoch"] + 1
    path = begun.last_checkpoint if begun else None
    trainer.fit(parts.classifier, datamodule=parts.data, ckpt_path=path, weights_only=True)
    print(trainer.profiler.summary(), end="")  # type: ignore[attr-defined]  # empty without one
    whole = trainer.current_epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps
    left = timer.time_remaining()
    out_of_time = left is not None and left <= 0
    if not whole and (out_of_time or not trainer.should_stop):
        done = f"{len(parts.classifier.history['train'])} of {trainer.max_epochs} epochs"
        raise ConfigError(f"trainer: stopped after {done}; it resumes without trainer.max_time")


def log_epochs(loggers: Iterable[Logger], history: History, groups: Groups) -> None:
    """Log the scores of past epochs."""
    for logger in loggers:
        for split, epochs in history.items():
            for epoch, scores in epochs.items():
                logger.log_metrics(to_metrics(split, scores, groups), step=epoch)


def log_result(loggers: Iterable[Logger], result: Result) -> None:
    """Log the last scores and the values of the config, in TensorBoard with a picture."""
    chosen = {name: getattr(result, name) for name in ("condition", *identity.CHOICES)}
    scores = to_metrics("val", result.val, result.groups)
    scores |= to_metrics("test", result.test, result.groups)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen | result.config, scores, result.epochs)
            figure = draw_confusion(result.test.confusion)
            logger.experiment.add_figure("test/confusion", figure, result.epochs)
        else:
            logger.log_hyperparams(chosen | result.config)
            logger.log_metrics(scores, result.epochs)
        logger.finalize("success")


def draw_confusion(confusion: list[list[int]]) -> Figure:
    """Draw the share, in %, of each true label's images (AI3607, Figures 1 and 2)."""
    counts = torch.tensor(confusion)
    shares = (100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).round()
    figure = Figure(figsize=(5, 5), layout="constrained")
    plot_confusion_matrix(shares.long(), figure.subplots(), len(counts) <= 20, cmap="Blues")
    return figure


def make_result(
    record: Mapping[str, Any], parts: Parts, steps: int, seconds: dict[str, float], device: str
) -> Result:
    """Return the result of a run that has been trained and tested, see `fields_of`."""
    data, classifier = parts.data, parts.classifier
    return Result(
        **{**record, **classifier.scores},  # of train, val and test
        epochs=max(classifier.history["train"]) + 1,
        steps=steps,
        train_counts=data.class_counts,
        groups=data.groups,
        data_sha256=data.sha256,
        seconds=seconds,
        device=device,
        versions=versions(),
    )


def load_run(folder: str | Path) -> Parts:
    """Read the run that a folder holds; ``data.dir`` is relative to the working folder."""
    run = RunFolder(Path(folder))
    parts = build_parts(identity.to_current(run.config()))
    with naming(str(run.last_checkpoint)):
        parts.classifier.load_state_dict(run.checkpoint()["state_dict"])
    if parts.posthoc:
        parts.classifier.model = adjust(parts.classifier.model, parts.data, parts.posthoc)
    parts.classifier.eval()
    return replace(parts, result=run.result())
