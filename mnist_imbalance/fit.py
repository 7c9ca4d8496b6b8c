"""One config → one run folder: builds the parts, trains, scores, keeps the record."""

import copy
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import ENOSPC
from math import ceil
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.conf import HydraConf
from hydra.types import RunMode
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import deterministic

from mnist_imbalance.callbacks import EpochBar, Origin, SeedEveryEpoch
from mnist_imbalance.checkpoints import (
    AtomicCheckpointIO,
    epochs_done,
    read_checkpoint,
    shorter_run,
    stopped_by_callback,
    trained_before,
)
from mnist_imbalance.classifier import Batch, Classifier, to_metrics
from mnist_imbalance.conditions import CHOICES, changes, name_condition, named_choices
from mnist_imbalance.config import build, build_each, check, compose_with
from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.imbalance import first_of_each
from mnist_imbalance.devices import check_model, in_processes, rank
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.files import write_whole
from mnist_imbalance.methods.posthoc import adjusted, told_of
from mnist_imbalance.provenance import describe, versions
from mnist_imbalance.runs import (
    Result,
    RunFolder,
    Seconds,
    determining,
    hash_config,
    is_cut_short,
)
from mnist_imbalance.scores import Scores
from mnist_imbalance.tensorboard import show_in_tensorboard
from mnist_imbalance.trackers import leaving_trackers


def make_trainer(
    config: DictConfig,
    folder: RunFolder,
    logger: Sequence[Logger] | None,
    callbacks: Sequence[lightning.Callback],
) -> lightning.Trainer:
    """Return the Trainer that keeps its checkpoint in a folder.

    Raises:
        ConfigError: A key of the trainer cannot work here.
    """
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The number of training batches")  # nothing is logged by step
    warnings.filterwarnings("ignore", ".*does not have many workers")  # slices need none
    warnings.filterwarnings("ignore", "The dirpath has changed")  # a shorter run's was another
    warnings.filterwarnings("ignore", "Checkpoint directory")  # not empty when a run goes on
    warnings.filterwarnings("ignore", "Experiment logs directory")  # of CSVLogger, likewise
    warnings.filterwarnings("ignore", ".*sync_dist=True")  # the processes log the same numbers
    warnings.filterwarnings("ignore", "The `srun` command")  # where Slurm is but is not asked for
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
        "logger": list(logger or []),
        "callbacks": [keep_last, *callbacks],
        "plugins": [AtomicCheckpointIO()],
        "use_distributed_sampler": False,  # the processes are given the same batches
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "num_nodes": 1,
    }
    if config.trainer.devices > 1:
        ours["plugins"].append(LightningEnvironment())  # whatever a cluster says of itself
    if taken := sorted(ours.keys() & config.trainer.keys()):
        raise ConfigError(f"trainer.{taken[0]}: cannot be set, a run has its own")
    trainer: lightning.Trainer = build(
        config, "trainer", kind=lightning.Trainer, **ours, enable_progress_bar=False
    )
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
    check_run(config, hydra)
    with folder.lock():
        result = folder.result_of(config)
        if result:
            check_images(config, folder, result)
        try:
            devices, given = config.trainer.devices, (config, hydra, folder, show_progress)
            if result or devices == 1:
                return result or fit_and_score(*given)
            return in_processes(devices, fit_and_score, *given)
        except OSError as error:
            if error.errno != ENOSPC:
                raise
            places = (folder.path, Path(tempfile.gettempdir()))  # checkpoints pass through both
            full = min(places, key=lambda place: shutil.disk_usage(place).free)
            raise ConfigError(f"runs_dir: the disk of {full} is full") from error


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
    """Refuse to take a finished run of other images for this config's.

    The images' folder is not part of a run's identity, so that data may move.

    Raises:
        ConfigError: ``data.dir`` holds others than the run was trained on.
    """
    if not result.data_sha256 or not folder.config_file.exists():
        return
    moved = folder.config().data.dir != config.data.dir
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
    data: MNISTData = build(config, "data", kind=MNISTData)
    data.setup()
    check_limits(config, data)
    return data


def check_limits(config: DictConfig, data: MNISTData) -> None:
    """Refuse a fraction of a split that holds no batch.

    Raises:
        ConfigError: One does.
    """
    images = {"train": len(data.order(0)), "val": len(data.val[1]), "test": len(data.test[1])}
    for split, number in images.items():
        limit = config.trainer.get(f"limit_{split}_batches", 1.0)
        batches = ceil(number / data.batch_size)
        if isinstance(limit, float) and int(batches * limit) < 1:
            raise ConfigError(
                f"trainer.limit_{split}_batches: {limit} of {batches} batches is none"
            )


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
    known |= {key: config.model[key] for key in ("head", "scale") if key in config.model}
    known.setdefault("head", None)

    def make_scheduler(optimizer: Optimizer, steps: int) -> LRScheduler:
        with naming("scheduler"):
            known = {"T_max": steps, "total_steps": steps}
            made = build(config, "scheduler", known, Callable)(optimizer)
            if not isinstance(made, LRScheduler):
                raise TypeError(f"must be a LRScheduler, is {type(made).__name__}")
            return made

    classifier = Classifier(
        build(config, "model", known, nn.Module),
        build(config, "loss", known, nn.Module),
        build(config, "optimizer", kind=Callable),
        data.groups,
        build_each(config, "metrics", known, Callable),
        make_scheduler if config.get("scheduler") else None,
        build(config, "mix", known, Callable) if config.get("mix") else None,
        config.trainer.devices,
    )
    rehearse(classifier, data.image_shape)
    with naming("optimizer"):
        optimizer = classifier.make_optimizer(classifier.parameters())
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"must make an Optimizer, makes {type(optimizer).__name__}")
    if classifier.make_scheduler:
        classifier.make_scheduler(optimizer, 1)
    return classifier


def build_parts(config: DictConfig) -> tuple[MNISTData, Classifier]:
    """Return a run's data, set up, and its classifier, see `build_classifier`."""
    data = build_data(config)
    classifier = build_classifier(config, data)
    few = copy.copy(data)  # an image of each label, to try what comes after training
    few.train, few.val = map(first_of_each_label, (data.train, data.val))
    few.transforms = ()  # tried before, and slow for a second stage
    adjusted(config, few, classifier.model)
    return data, classifier


def first_of_each_label(images_and_labels: Batch) -> Batch:
    """Return one image of each label that there is, and the labels."""
    images, labels = images_and_labels
    there = labels.unique()
    return images[first_of_each(labels, there.tolist())], there


def check_parts(configs: Iterable[DictConfig]) -> None:
    """Build the parts of runs to come, equal data once.

    Raises:
        ConfigError: A value cannot work.
    """
    known: dict[str, MNISTData] = {}  # by its part of the config
    for config in configs:
        check(config)
        of_data = OmegaConf.to_yaml(config.data, resolve=True)
        if of_data not in known:
            known[of_data] = build_data(config)
        build_classifier(config, known[of_data])


def rehearse(classifier: Classifier, image_shape: Sequence[int]) -> None:
    """Call model, loss, metrics and mix once, on two black images.

    Raises:
        ConfigError: One of them cannot be called, or the loss is no scalar.
    """
    images, labels = torch.zeros(2, *image_shape), torch.zeros(2, dtype=torch.long)
    classifier.eval()
    part = "model"
    try:
        with torch.inference_mode():
            logits = classifier(images)
            part = "loss"
            loss = classifier.loss(logits, labels)
            if loss.numel() != 1:
                raise ValueError(f"must give one number for a batch, gives {loss.numel()} for two")
            for name, metric in classifier.metrics.items():
                part = f"metrics.{name}"
                float(metric(logits, labels))
            if classifier.mix:
                part = "mix"
                images, *both, share = classifier.mix(images, labels)
                logits = classifier(images)
                first, second = (classifier.loss(logits, labels) for labels in both)
                float(share * first + (1 - share) * second)
    except Exception as error:  # a part of the user's own can fail in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{part}: {reason}") from error
    classifier.train()


@leaving_trackers()
def fit_and_score(
    config: DictConfig, hydra: HydraConf, folder: RunFolder, show_progress: bool
) -> Result:
    """Do what `fit_run` promises in a folder that is ours and not finished.

    Where there is a process for each device, all do the same, and the first writes.
    """
    data, classifier = build_parts(config)
    if config.trainer.devices > 1:
        check_model(classifier.model)
    origin = Origin(data)
    trained = trained_before(config, origin.state_dict())
    done = 0 if trained else epochs_done(folder.last_checkpoint)
    checkpoint = folder.last_checkpoint if done else None
    if trained:
        checkpoint = trained.last_checkpoint
    elif not done and not hasattr(classifier.loss, "start_epoch"):
        checkpoint = shorter_run(config, folder, origin.state_dict())
    on_trial = bool(config.trainer.get("fast_dev_run"))
    keeps = not on_trial and rank() == 0
    loggers = make_loggers(config, folder, done) if keeps else []
    own_callbacks = build_each(config, "callbacks", {}, lightning.Callback)
    max_time: Any = OmegaConf.to_container(config.trainer, resolve=True).get("max_time")  # type: ignore[union-attr]
    try:
        timer = Timer(max_time, interval="epoch")  # within an epoch, nothing could go on from there
    except Exception as error:
        raise ConfigError(f"trainer.max_time: {error}") from error
    show_progress = show_progress and config.trainer.enable_progress_bar and rank() == 0
    callbacks = [timer, SeedEveryEpoch(config.seed), origin, *own_callbacks.values()]
    if show_progress:
        alone = folder.path if hydra.mode == RunMode.RUN else None
        callbacks.append(EpochBar(f"{len(data.order(0)):,} images", alone))
    trainer = make_trainer(config, folder, loggers, callbacks)
    if done and stopped_by_callback(folder.last_checkpoint):
        trainer.fit_loop.max_epochs = done
    fresh = folder.is_fresh()
    if keeps:
        folder.begin(config, hydra)
    if checkpoint and not done:
        print(f"goes on from {checkpoint}", flush=True)
    # CSVLogger deletes what it was told before
    unknowing = [each for each in loggers if not done or isinstance(each, CSVLogger)]
    if checkpoint and unknowing:
        log_before(checkpoint, unknowing, data)
    if trained:
        steps = take_up(trained, classifier)
    else:
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except Exception:
            if fresh and keeps and not folder.last_checkpoint.exists():
                folder.discard()
            raise
        print(trainer.profiler.summary(), end="")  # type: ignore[attr-defined]  # empty without one
        steps = trainer.global_step
        whole = trainer.current_epoch == trainer.max_epochs or steps == trainer.max_steps
        if not whole and not (own_callbacks and trainer.should_stop and has_time(timer)):
            raise ConfigError(
                f"trainer: training was ended after {len(classifier.history['train'])} of "
                f"{config.trainer.max_epochs} epochs; only a whole training has a result; the same "
                "command without trainer.max_time goes on from there"
            )
    trainer.loggers = []  # their curves are those of training
    trainer.validate(classifier, datamodule=data, verbose=False)
    end_history(classifier)
    seconds = timer.time_elapsed("train")
    if config.get("posthoc"):
        begun = time.monotonic()
        classifier.model = adjusted(config, data, classifier.model)
        seconds += time.monotonic() - begun
        print(f"posthoc={hydra.runtime.choices['posthoc']}: {told_of(classifier.model)}")
        trainer.validate(classifier, datamodule=data, verbose=False)
    trainer.test(classifier, datamodule=data, verbose=False)

    check_whole(config, data, classifier)
    result = make_result(
        config,
        hydra,
        data,
        classifier,
        steps,
        Seconds(fit=seconds, test=timer.time_elapsed("test")),
        describe(trainer.strategy.root_device, config.trainer.devices),
    )
    if not keeps:
        return result
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            show_in_tensorboard(logger, result, data)
        else:
            named = {name: getattr(result, name) for name in ("condition", *CHOICES)}
            logger.log_hyperparams(named | result.config)
            logger.log_metrics(to_metrics("test", result.test, result.groups), step=result.epochs)
            logger.finalize("success")
    if trained:
        write_whole(folder.last_checkpoint, trained.last_checkpoint.read_bytes())
    folder.finish(result, classifier.history, classifier.predictions)
    return result


def take_up(trained: RunFolder, classifier: Classifier) -> int:
    """Give a classifier the weights and the history of a finished run; return its steps."""
    state = read_checkpoint(trained.last_checkpoint)
    classifier.load_state_dict(state["state_dict"])
    classifier.on_load_checkpoint(state)
    result = trained.result()
    assert result
    return result.steps


def make_loggers(config: DictConfig, folder: RunFolder, done: int) -> list[Logger]:
    """Return a run's loggers.

    Args:
        config: Of the run.
        folder: That they may ask for, as ``folder`` or, its path, as ``save_dir`` or, below
            ``runs_dir``, which they may ask for, too, as ``run_name``.
        done: Whole epochs that were logged before, which they may ask for.

    Raises:
        ConfigError: One cannot be made with these values.
    """
    root = Path(config.runs_dir).absolute()
    below = folder.path.relative_to(root) if folder.path.is_relative_to(root) else folder.path
    known = {
        "folder": folder,
        "save_dir": folder.path,
        "runs_dir": root,
        "run_name": str(below),
        "done": done,
    }
    return list(build_each(config, "logger", known, Logger).values())


def log_before(checkpoint: Path, loggers: Sequence[Logger], data: MNISTData) -> None:
    """Log the epochs before a checkpoint."""
    for stage, epochs in read_checkpoint(checkpoint)["history"].items():
        for epoch, scores in epochs.items():
            for logger in loggers:
                logger.log_metrics(to_metrics(stage, Scores(**scores), data.groups), step=epoch)


def has_time(timer: Timer) -> bool:
    """Tell whether it was not the time that ended a training."""
    left = timer.time_remaining()
    return left is None or left > 0


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


def condition_of(
    values: Mapping[str, Any], choices: Mapping[str, str], compose: Callable[..., DictConfig]
) -> str:
    """Return a run's condition as it would be called on the command line.

    Args:
        values: All that determines the run.
        choices: The name chosen in each config group, those below ``data`` among them.
        compose: `compose_with`, or one that remembers.
    """
    usual = compose((f"data={choices['data']}",), with_hydra=True).hydra.runtime.choices
    named = named_choices(choices, usual)
    plain = determining(compose(tuple(f"{group}={choice}" for group, choice in named.items())))
    return name_condition(named, changes(values, plain))


def make_result(
    config: DictConfig,
    hydra: HydraConf,
    data: MNISTData,
    classifier: Classifier,
    steps: int,
    seconds: Seconds,
    device: str,
    compose: Callable[..., DictConfig] = compose_with,
) -> Result:
    """Put together what ``result.json`` holds of a run that has been trained and tested."""
    values = determining(config)
    choices = {group: hydra.runtime.choices[group] for group in CHOICES}
    return Result(
        config_hash=hash_config(values),
        condition=condition_of(values, hydra.runtime.choices, compose),
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
