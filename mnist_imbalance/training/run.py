"""One config → one run folder: build the parts, train, score, keep the record."""

import copy
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy
import torch
from filelock import FileLock
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import ModelCheckpoint, Timer, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torchmetrics.utilities.plot import plot_confusion_matrix

from mnist_imbalance import config as configs
from mnist_imbalance.config import CHOICES, build, build_part, part_of, parts_of
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.errors import ConfigError, OutOfTimeError, naming
from mnist_imbalance.records import identity
from mnist_imbalance.records.result import Groups, History, Result, write_record
from mnist_imbalance.training.callbacks import AtomicCheckpointIO, Origin, SeedEveryEpoch
from mnist_imbalance.training.classifier import Classifier, to_metrics
from mnist_imbalance.training.folder import RunFolder, code, describe, lock, versions

Posthoc = Callable[[nn.Module, MNISTData], nn.Module]
SILENCED = (  # warnings of Lightning that no user can act on
    "The number of training batches",  # is below log_every_n_steps in a short run
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
    module: MNISTData
    classifier: Classifier
    posthoc: Posthoc | None  # the step after training
    result: Result | None = None  # of a complete run that was loaded

    @property
    def data(self) -> MNISTData:
        """The data, which is read when it is first asked for."""
        self.module.setup()
        return self.module


def build_parts(config: DictConfig, data: MNISTData | None = None) -> Parts:
    """Return a run's parts, with the initial weights of its seed; each is tried out once."""
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means the same on every device
    # filling takes 5 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data = data or build(config, "data", kind=MNISTData)
    data.setup()
    lightning.seed_everything(config.seed, verbose=False)
    names = "num_classes", "image_shape", "class_counts", "minority"
    known = {name: getattr(data, name) for name in names}
    parts = {"model": (model := part_of(config, "model", known))}
    known |= {"head": None} | {key: model[key] for key in ("head", "scale") if key in model}
    named = ("loss", "optimizer", "scheduler", "mix")
    parts |= {group: part_of(config, group, known) for group in named if config.get(group)}
    parts |= {"metrics": parts_of(config, "metrics", known), "groups": data.groups}
    classifier = Classifier(**parts, trust=None)
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


def check_parts(runs: Iterable[DictConfig]) -> dict[str, str]:
    """Try out the parts of runs to come; return the checksums of images, by `source_of`."""
    known, checksums = dict[str, MNISTData](), dict[str, str]()
    for config in runs:
        configs.check(config)
        key = OmegaConf.to_yaml(config.data, resolve=True)
        known[key] = build_parts(config, known.get(key)).data
        checksums[identity.source_of(identity.result_config(config))] = known[key].sha256
    return checksums


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
    del keys["test_with"]
    show_progress = keys.pop("enable_progress_bar", True) and show_progress
    bar = [TQDMProgressBar(refresh_rate=10)] if show_progress else []
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
        "overfit_batches": 0.0,  # debug=overfit trains on few images
    }
    if getattr(rank_zero_only, "rank", 0):  # Lightning would keep nothing
        raise ConfigError("LOCAL_RANK: a run is one process; unset it, and RANK")
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
    parts = parts_of(config, "logger", known | {"purge_step": epochs_done or None})
    loggers = {key: build_part(part, f"logger.{key}", Logger) for key, part in parts.items()}
    if "mlflow" in loggers:  # of two processes, one makes the store and the experiment
        with FileLock(Path(config.runs_dir, ".mlflow.lock")), naming("logger.mlflow"):
            loggers["mlflow"].experiment  # noqa: B018
    return list(loggers.values())


def fields_of(
    config: DictConfig, hydra: HydraConf, compose: Callable[..., DictConfig] = configs.compose_with
) -> dict[str, Any]:
    """Return the fields of a run's record that are known before training."""
    values, choices = identity.result_config(config), hydra.runtime.choices
    return {
        "config_hash": identity.hash_config(values),
        "condition": identity.condition_of(values, choices, compose),
        **{group: choices[group] for group in CHOICES},
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


def run_or_resume(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool = True
) -> Result:
    """Train, score and keep a run, or resume it; a finished one is only read."""
    configs.check(config, hydra.runtime.choices)
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
    origin = Origin(data.sha256, code(config), record["config_hash"])
    parent = finished_parent(config.runs_dir, record["config"], origin) if parts.posthoc else None
    epochs_done = 0 if parent else folder.epochs_done()
    if epochs_done:
        print(f"resumes after epoch {epochs_done}", flush=True)
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
        state["config_hash"] = record["config_hash"]
        AtomicCheckpointIO().save_checkpoint(state, folder.last_checkpoint)
        steps = state["global_step"]
    else:
        fit(parts, trainer, timer, folder if epochs_done else None)
        steps = trainer.global_step
    if config.trainer.test_with == "best":
        classifier.load_state_dict((parent or folder).checkpoint("best")["state_dict"])
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
        raise OutOfTimeError(f"trainer.max_time: stopped after {done}; without it the run resumes")


def log_epochs(loggers: Iterable[Logger], history: History, groups: Groups) -> None:
    """Log the scores of past epochs."""
    for logger in loggers:
        for split, epochs in history.items():
            for epoch, scores in epochs.items():
                logger.log_metrics(to_metrics(split, scores, groups), step=epoch)


def log_result(loggers: Iterable[Logger], result: Result) -> None:
    """Log the last scores and the values of the config, in TensorBoard with a picture."""
    chosen = {name: getattr(result, name) for name in ("condition", *CHOICES)}
    scores = to_metrics("val", result.val, result.groups)
    scores |= to_metrics("test", result.test, result.groups)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen | result.config, scores, result.epochs)
            figure = draw_confusion(result.test.confusion, result.class_names)
            logger.experiment.add_figure("test/confusion", figure, result.epochs)
        else:
            logger.log_hyperparams(chosen | result.config)
            logger.log_metrics(scores, result.epochs)
        logger.finalize("success")


def draw_confusion(confusion: list[list[int]], names: Sequence[str] = ()) -> Figure:
    """Draw the share, in %, of each true label's images (AI3607, Figures 1 and 2)."""
    counts = torch.tensor(confusion)
    shares = (100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).round().long()
    figure = Figure(figsize=(5, 5), layout="constrained")
    plot_confusion_matrix(shares, figure.subplots(), len(counts) <= 20, [*names] or None, "Blues")
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
        class_names=data.class_names,
        data_sha256=data.sha256,
        seconds=seconds,
        device=device,
        versions=versions(parts.config),
    )


def load_run(folder: str | Path, checkpoint: str | None = None, trust: Sequence[str] = ()) -> Parts:
    """Read a finished run, from the checkpoint "last" or "best"; by default the tested one.

    ``data.dir`` is relative to the working folder. Only a ``posthoc`` needs it: it is done again.
    Only parts of a run are built, of this package, of PyTorch's and of those named in ``trust``.
    """
    place = RunFolder(Path(folder))
    if not (result := place.result()):
        raise ConfigError(f"run: {folder} is no folder of a finished run, with a result.json")
    config = identity.to_current(place.config())
    state = place.checkpoint(checkpoint or config.trainer.get("test_with", "last"))
    parts = identity.rename(state["hyper_parameters"], identity.TODAY)
    configs.refuse_strangers(OmegaConf.to_container(config, resolve=True), trust)
    with naming(f"run: {folder}"):
        classifier = Classifier(**parts, trust=trust)
        classifier.load_state_dict(state["state_dict"])
    posthoc = build(config, "posthoc", {"seed": config.seed}, Callable) if config.posthoc else None
    run = Parts(config, build(config, "data", kind=MNISTData), classifier, posthoc, result)
    if posthoc:
        torch.set_num_threads(config.threads)
        classifier.model = adjust(classifier.model, run.data, posthoc)
    classifier.eval()
    return run
