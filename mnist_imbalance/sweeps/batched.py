"""Similar runs of a sweep, stacked into one training: `similar` groups them by `stacking_key`.

Runs share one Trainer and its steps if they differ in seeds, learning rate, weight decay or the
numbers of their loss. Each leaves the record, the log and the weights of a run by itself.
`fit_runs` trains all runs of a group: `fit_stacked` those that it can, `run_or_resume` the others.
"""

import gc
import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from inspect import isclass
from itertools import groupby
from pathlib import Path
from pydoc import locate
from typing import Any

import lightning
import torch
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_imbalance.config import check, compose_with
from mnist_imbalance.data.module import Slices
from mnist_imbalance.data.sources import Batch
from mnist_imbalance.errors import ConfigError, describe_failure
from mnist_imbalance.methods.losses import AdjustedCrossEntropy
from mnist_imbalance.records.identity import SEEDS, hash_config, result_config
from mnist_imbalance.records.result import Result, write_record
from mnist_imbalance.sweeps.stacked import Stacked
from mnist_imbalance.training import run as training
from mnist_imbalance.training.callbacks import AtomicCheckpointIO, Origin
from mnist_imbalance.training.classifier import Classifier, tally
from mnist_imbalance.training.folder import RunFolder, code, describe, lock

PARAMETER_GROUP = ("lr", "weight_decay")  # the optimizer's keys in which runs may differ
OWN = {*SEEDS, *(f"optimizer.{key}" for key in PARAMETER_GROUP)}
ELEMENTWISE = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "NAdam")}
SCHEDULERS = {  # they change the rate of each parameter group from that group's own, step by step
    f"torch.optim.lr_scheduler.{name}"
    for name in ("CosineAnnealingLR", "StepLR", "MultiStepLR", "ExponentialLR", "LinearLR")
}
TRAINER = {"_target_", "accelerator", "devices", "max_epochs", "max_steps", "deterministic"}
TRAINER |= {"test_with", "log_every_n_steps", "enable_progress_bar"}
TRAINER |= {"limit_train_batches", "limit_val_batches", "limit_test_batches"}
Job = tuple[str, ...]  # a training command line


@dataclass(frozen=True, eq=False)
class Run:
    """A run before its training."""

    config: DictConfig
    hydra: HydraConf
    folder: RunFolder


def stacking_key(config: DictConfig) -> str | None:
    """Return a key that runs share if they can be stacked; None for a run by itself."""
    try:
        check(config)
        loss: Any = locate(config.loss._target_)
    except Exception:  # its own training names the mistake
        return None
    values = result_config(config)
    mapped = (
        values["optimizer._target_"] in ELEMENTWISE
        and (not config.get("scheduler") or values.get("scheduler._target_") in SCHEDULERS)
        and not any(map(config.get, ("mix", "callbacks", "posthoc")))
        and set(config.get("logger") or ()) <= {"tensorboard"}
        and config.trainer.keys() <= TRAINER
    )
    if not mapped:
        return None
    own, family = OWN, {}
    # losses of other modules may keep their numbers as numbers
    if getattr(loss, "__module__", "") == AdjustedCrossEntropy.__module__:
        own = OWN | {"loss.minority_weight", "loss.weights"}
        if not isclass(loss):  # functions that return an AdjustedCrossEntropy
            own |= {key for key in values if key.startswith("loss.")} - {"loss.normalize"}
            family = {"loss": "AdjustedCrossEntropy", "loss.normalize": "count"}
    shared = family | {key: value for key, value in values.items() if key not in own}
    rest = [OmegaConf.to_container(part) for part in (config.trainer, config.metrics)]
    return json.dumps([shared, config.data.dir, config.threads, rest], sort_keys=True, default=str)


def similar(
    jobs: Sequence[Job], compose: Callable[[Job], DictConfig], at_most: int | None
) -> list[list[Job]]:
    """Group jobs that can be stacked, at most so many; `compose` maps one to its config."""
    key_of = cache(lambda unseeded: stacking_key(compose(unseeded)))
    groups: dict[Any, list[Job]] = defaultdict(list)
    for job in dict.fromkeys(jobs):
        unseeded = tuple(override for override in job if override.split("=")[0] not in SEEDS)
        groups[key_of(unseeded) or job].append(job)
    size = at_most or len(jobs)
    return [
        members[first : first + size]
        for members in groups.values()
        for first in range(0, len(members), size)
    ]


def stack(loaders: Sequence[DataLoader[Any]]) -> DataLoader[Any]:
    """Return batches of R runs, images (R, N, C, H, W) and labels (R, N), from each one's own."""
    own: Any = [loader.sampler for loader in loaders]

    def draw(epoch: int) -> Batch:
        pixels, labels = zip(*(slices.draw(epoch) for slices in own), strict=True)
        return torch.stack(pixels), torch.stack(labels)

    return Slices(draw, own[0].images, own[0].size, dim=1).loader()


class StackedClassifier(Classifier):
    """R classifiers trained as one; each keeps its own scores and history."""

    model: Stacked
    loss: Stacked

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        configs = [classifier.hparams["optimizer"] for classifier in classifiers]
        own = [{key: keys[key] for key in PARAMETER_GROUP if key in keys} for keys in configs]
        # a part of the stack for equal keys
        keys, sizes = zip(*((keys, len([*runs])) for keys, runs in groupby(own)), strict=True)
        model = Stacked([classifier.model for classifier in classifiers], sizes)
        loss = Stacked([classifier.loss for classifier in classifiers], sizes)
        super().__init__(model, loss, classifiers[0].make_optimizer, classifiers[0].scheduler_part)
        self.classifiers, self.keys = list(classifiers), keys
        self.failures: dict[int, str] = {}  # why a run's loss is not finite, by the run's number

    def configure_optimizers(self) -> Any:
        """Return one elementwise optimizer with a parameter group for runs of equal keys."""
        parts = zip(self.model.parts, self.loss.parts, self.keys, strict=True)
        parameters: Any = [
            {"params": [*model.parameters(), *loss.parameters()], **keys}
            for model, loss, keys in parts
        ]
        return self.build_optimizer(parameters, self.trainer)

    def step(self, batch: Batch, split: str) -> Tensor:
        """Return the sum of the runs' losses for images in [0, 255]: each gradient is its own."""
        images, labels = batch
        return super().step((images / 255, labels), split).sum()

    def start_epoch(self, done: float) -> None:
        """Pass the fraction of training that is done to losses that have ``start_epoch``."""
        for number, classifier in enumerate(self.classifiers):
            if hook := getattr(classifier.loss, "start_epoch", None):
                in_stack = self.loss.tensors(number)
                classifier.loss.load_state_dict(in_stack)
                hook(done)
                for name, tensor in classifier.loss.state_dict().items():
                    in_stack[name].copy_(tensor)

    def summarize(self, split: str) -> None:
        """Score each run's batches; note why a loss is not finite."""
        logits, labels = (
            torch.cat(tensors, dim=1) for tensors in zip(*self._batches[split], strict=True)
        )
        self._batches[split].clear()
        metrics = [classifier.metrics for classifier in self.classifiers]
        scored = zip(*tally(logits, labels, self.loss(logits, labels), metrics), strict=True)
        for number, (scores, predicted) in enumerate(scored):
            try:
                self.classifiers[number].keep(split, scores, predicted, self.trainer)
            except ConfigError as error:
                self.failures.setdefault(number, str(error))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep each run's history."""
        checkpoint["history"] = [{} for _ in self.classifiers]
        for classifier, own in zip(self.classifiers, checkpoint["history"], strict=True):
            classifier.on_save_checkpoint(own)
        checkpoint["failures"] = self.failures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore each run's history."""
        self.failures = checkpoint["failures"]
        for classifier, own in zip(self.classifiers, checkpoint["history"], strict=True):
            classifier.on_load_checkpoint(own)


def train_stacked(
    group: dict[Run, training.Parts], shared: RunFolder, show_progress: bool
) -> dict[Run, Result | str]:
    """Train, score and record a group, or resume from the checkpoint in the shared folder."""
    classifiers = [parts.classifier for parts in group.values()]
    datas = [parts.data for parts in group.values()]
    first = next(iter(group))
    origin = Origin(datas[0].sha256, code(first.config), shared.path.name)
    callbacks = [timer := Timer(), origin]
    trainer = training.build_trainer(first.config, shared, [], callbacks, show_progress)
    warnings.filterwarnings("ignore", "The AccumulateGrad node")  # of the inputs of a CUDA graph
    for data in datas:
        data.trainer = trainer  # whose device and limits its batches are for
    train = stack([data.train_dataloader() for data in datas])
    val = stack([data.val_dataloader() for data in datas])
    test = stack([data.test_dataloader() for data in datas])
    stacked = StackedClassifier(classifiers)
    checkpoint = shared.last_checkpoint if shared.epochs_done() else None
    trainer.fit(stacked, train, val, ckpt_path=checkpoint, weights_only=True)
    trainer.validate(stacked, val, verbose=False)
    trainer.test(stacked, test, verbose=False)

    fit, tested = (timer.time_elapsed(stage) / len(group) for stage in ("train", "test"))
    seconds = {"fit": fit, "test": tested}
    device = f"{describe(trainer.strategy.root_device)}, {len(group)} runs side by side"
    compose = cache(compose_with)
    outcomes: dict[Run, Result | str] = {}
    for number, (run, parts) in enumerate(group.items()):
        if failure := stacked.failures.get(number):
            outcomes[run] = failure
            continue
        parts.classifier.model.load_state_dict(stacked.model.tensors(number))
        parts.classifier.loss.load_state_dict(stacked.loss.tensors(number))
        parts.classifier.close_history()
        fields = training.fields_of(run.config, run.hydra, compose)
        result = training.make_result(fields, parts, trainer.global_step, seconds, device)
        record(run, result, parts.classifier)
        outcomes[run] = result
    return outcomes


def record(run: Run, result: Result, classifier: Classifier) -> None:
    """Write the files of a run; its checkpoint is to load, not to resume (it has no "loops")."""
    checkpoint = {
        "epoch": result.epochs - 1,
        "global_step": result.steps,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "config_hash": result.config_hash,
    }
    classifier.on_save_checkpoint(checkpoint)
    folder = run.folder
    with folder.begin(run.config, run.hydra):
        loggers = training.build_loggers(run.config, folder, 0)
        training.log_epochs(loggers, classifier.history, result.groups)
        training.log_result(loggers, result)
        AtomicCheckpointIO().save_checkpoint(checkpoint, folder.last_checkpoint)
        write_record(folder.path, result, classifier.history, classifier.predictions)


def fit_stacked(group: dict[Run, training.Parts], show_progress: bool) -> dict[Run, Result | str]:
    """Train runs in locked folders as one; return nothing if they must be trained one by one."""
    hashes = {str(run.folder.path): hash_config(result_config(run.config)) for run in group}
    shared = RunFolder(Path(min(hashes)) / f"side_by_side_{hash_config(hashes)[:16]}")
    outcomes: dict[Run, Result | str] = {}
    try:
        outcomes = train_stacked(group, shared, show_progress)
    except Exception as error:
        if shared.last_checkpoint.exists():  # the same runs resume from it
            return dict.fromkeys(group, describe_failure(error))
        reason = str(error).partition("\n")[0]
        print(f"{len(group)} runs are trained one by one: {reason}", flush=True)
    shutil.rmtree(shared.path, ignore_errors=True)
    return outcomes


def fit_runs(runs: Sequence[Run], show_progress: bool = True) -> list[Result | str]:
    """Train runs, as one if possible, and return the result of each or why it has none."""
    outcomes: dict[Run, Result | str] = {}
    in_order = sorted(runs, key=lambda run: f"{run.config.get('optimizer')} {run.folder.path}")
    with ExitStack() as locks:
        group: dict[Run, training.Parts] = {}
        for run in in_order if len(runs) > 1 else ():
            with suppress(Exception):  # `run_or_resume` says what is wrong
                check(run.config, run.hydra.runtime.choices)
                locks.enter_context(lock(run.folder.path))
                if not run.folder.result_of(run.config) and not run.folder.epochs_done():
                    group[run] = training.build_parts(run.config)
        if len(group) > 1:
            outcomes = fit_stacked(group, show_progress)
    gc.collect()  # cycles of a Trainer hold its data
    for run in [run for run in runs if run not in outcomes]:
        try:
            outcomes[run] = training.run_or_resume(run.config, run.hydra, run.folder, show_progress)
        except Exception as error:
            outcomes[run] = describe_failure(error)
    return [outcomes[run] for run in runs]
