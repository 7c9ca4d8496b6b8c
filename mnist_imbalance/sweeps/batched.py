"""Similar runs of a sweep as one training: `similar` groups them, `fit_together` trains a group.

Runs share one Trainer and its steps if they differ in seeds, learning rate, weight decay, images or
the numbers of their loss. Each leaves the record, the log and the weights of a run by itself.
"""

import gc
import json
import shutil
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from inspect import isclass, signature
from itertools import groupby
from pathlib import Path
from pydoc import locate
from typing import Any

import lightning
import torch
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_imbalance.config import check, compose_with
from mnist_imbalance.data.module import MNISTData, Slices
from mnist_imbalance.errors import ConfigError, describe_failure
from mnist_imbalance.methods.losses import AdjustedCrossEntropy, GroupDRO
from mnist_imbalance.records.identity import SEEDS, determining, hash_config
from mnist_imbalance.records.result import Result, Seconds, write_record, write_whole
from mnist_imbalance.sweeps.stacked import Stacked
from mnist_imbalance.training import run as training
from mnist_imbalance.training.callbacks import AtomicCheckpointIO, Origin
from mnist_imbalance.training.classifier import Batch, Classifier, Staged, tally
from mnist_imbalance.training.folder import RunFolder, code, describe

SHARED, OVERRIDES = ".batched", "overrides.json"  # below runs_dir: a folder for each program
PARAMETER_GROUP = ("lr", "weight_decay")  # the optimizer's keys in which runs may differ
OWN = {*SEEDS, "data.copies", *(f"optimizer.{key}" for key in PARAMETER_GROUP)}
ELEMENTWISE = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "NAdam")}
SCHEDULERS = {  # they change the rate of each parameter group from that group's own, step by step
    f"torch.optim.lr_scheduler.{name}"
    for name in ("CosineAnnealingLR", "StepLR", "MultiStepLR", "ExponentialLR", "LinearLR")
}
TRAINER = {"_target_", "accelerator", "devices", "max_epochs", "max_steps", "deterministic"}
TRAINER |= {"enable_progress_bar", "limit_train_batches", "limit_val_batches", "limit_test_batches"}

Job = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """A run before its training; ``job`` is its command line, by which `similar` finds it again."""

    config: DictConfig
    hydra: HydraConf
    folder: RunFolder
    job: Job = ()


def program(config: DictConfig) -> str | None:
    """Return a name that runs share if they can be trained as one; None for a run by itself."""
    try:
        check(config)
        loss: Any = locate(config.loss._target_)
    except Exception:  # its own training names the mistake
        return None
    values = determining(config)
    mapped = (
        values["optimizer._target_"] in ELEMENTWISE
        and (not config.get("scheduler") or values.get("scheduler._target_") in SCHEDULERS)
        and not any(map(config.get, ("mix", "callbacks", "posthoc")))
        and set(config.get("logger") or ()) <= {"tensorboard"}
        and config.trainer.keys() <= TRAINER
        and loss is not GroupDRO  # whose weights change within a step
    )
    if not mapped:
        return None
    own, family = OWN, {}
    if getattr(loss, "__module__", "").startswith(
        "mnist_imbalance."
    ):  # another loss may keep numbers as numbers
        if not isclass(loss) and signature(loss).return_annotation is AdjustedCrossEntropy:
            own = OWN | {key for key in values if key.startswith("loss.")} - {"loss.normalize"}
            family = {"loss": "AdjustedCrossEntropy", "loss.normalize": "count"}
        else:
            own = OWN | {"loss.minority_weight", "loss.weights"}
    shared = family | {key: value for key, value in values.items() if key not in own}
    copies = values.get("data.copies")
    shared["images"] = len(copies) if isinstance(copies, list) else 0
    rest = [OmegaConf.to_container(part) for part in (config.trainer, config.metrics)]
    return json.dumps([shared, config.data.dir, config.threads, rest], sort_keys=True, default=str)


def similar(
    jobs: Sequence[Job], compose: Callable[[Job], DictConfig], runs_dir: Path, at_most: int | None
) -> list[list[Job]]:
    """Group jobs that can be trained as one, at most so many; those begun together stay together.

    Args:
        jobs: The overrides of each run.
        compose: Job → its config; jobs that differ in seeds only are composed once.
        runs_dir: Root of the run folders.
        at_most: Runs of a group; None is all.
    """
    left, groups = dict.fromkeys(jobs), []
    for file in sorted((runs_dir / SHARED).glob(f"*/{OVERRIDES}")):
        begun = [tuple(job) for job in json.loads(file.read_text(encoding="utf-8"))]
        if RunFolder(file.parent).last_checkpoint.exists() and left.keys() >= set(begun):
            groups.append(begun)
            left = {job: None for job in left if job not in begun}
    names: dict[Job, str | None] = {}
    programs: dict[Any, list[Job]] = defaultdict(list)
    for job in left:
        unseeded = tuple(override for override in job if override.split("=")[0] not in SEEDS)
        if unseeded not in names:
            names[unseeded] = program(compose(job))
        programs[names[unseeded] or job].append(job)
    size = at_most or len(jobs)
    for members in programs.values():
        groups += [members[first : first + size] for first in range(0, len(members), size)]
    return groups


def loader(
    datas: Sequence[MNISTData], draw: Callable[[MNISTData, int], Batch], images: int
) -> DataLoader[Any]:
    """Return batches of R runs, images (R, N, C, H, W) and labels (R, N).

    ``draw`` maps a run's data and the epoch to its images and labels, so many, in order.
    """

    def stack(epoch: int) -> Batch:
        pixels, labels = zip(*(draw(data, epoch) for data in datas), strict=True)
        return torch.stack(pixels), torch.stack(labels)

    return Slices(stack, images, datas[0].batch_size, dim=1).loader()


class StackedClassifier(Staged):
    """R classifiers trained as one; each keeps its own scores and history.

    Args:
        classifiers: One a run, with its initial weights.
        groups: The optimizer's keys for each run; equal ones stand side by side.

    Attributes:
        failures: Why a run's loss is not finite, by the run's number.
    """

    def __init__(
        self, classifiers: Sequence[Classifier], groups: Sequence[dict[str, float]]
    ) -> None:
        super().__init__()
        self.classifiers = list(classifiers)
        self.failures: dict[int, str] = {}
        grouped = [(keys, len(list(runs))) for keys, runs in groupby(groups)]
        self.groups = [keys for keys, _ in grouped]
        sizes = [size for _, size in grouped]
        self.places = [(part, at) for part, size in enumerate(sizes) for at in range(size)]
        self.model = Stacked([classifier.model for classifier in classifiers], sizes)
        self.loss = Stacked([classifier.loss for classifier in classifiers], sizes)
        self._batches: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    def configure_optimizers(self) -> Any:
        """Return one elementwise optimizer with a parameter group for runs of equal keys."""
        parts = zip(self.model.parts, self.loss.parts, self.groups, strict=True)
        parameters: Any = [
            {"params": [*model.parameters(), *loss.parameters()], **keys}
            for model, loss, keys in parts
        ]
        return self.classifiers[0].optimized(parameters, self.trainer)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pixels to [0, 1], on the device."""
        images, labels = batch
        return images / 255, labels

    def step(self, batch: Batch, split: str) -> Tensor:
        """Return the sum of the runs' losses: each run's gradient is its own."""
        images, labels = batch
        logits = self.model(images)
        self._batches[split].append((logits.detach(), labels))
        losses: Tensor = self.loss(logits, labels)
        return losses.sum()

    def start_epoch(self) -> None:
        """Pass the fraction of training that is done to losses that have ``start_epoch``."""
        for classifier, (part, at) in zip(self.classifiers, self.places, strict=True):
            if hook := getattr(classifier.loss, "start_epoch", None):
                stacked = dict(self.loss.parts[part].named_buffers())
                pairs = [(own, stacked[name][at]) for name, own in classifier.loss.named_buffers()]
                for own, in_stack in pairs:
                    own.copy_(in_stack)
                hook(self.fraction_done)
                for own, in_stack in pairs:
                    in_stack.copy_(own)

    def summarize(self, split: str) -> None:
        """Score each run's batches; note why a loss is not finite."""
        logits, labels = (
            torch.cat(tensors, dim=1) for tensors in zip(*self._batches[split], strict=True)
        )
        self._batches[split].clear()
        metrics = [classifier.metrics for classifier in self.classifiers]
        finite = []
        scored = zip(*tally(logits, labels, self.loss(logits, labels), metrics), strict=True)
        for number, (scores, predicted) in enumerate(scored):
            try:
                self.classifiers[number].keep(split, scores, predicted, self.trainer)
                finite.append(scores)
            except ConfigError as error:
                self.failures.setdefault(number, str(error))
        if not finite:
            raise ConfigError(self.failures[0])
        if split == "val" and self.trainer.state.fn == TrainerFn.FITTING:
            for name in ("accuracy", "loss"):
                mean = sum(getattr(scores, name) for scores in finite) / len(finite)
                self.log(f"val/{name}", mean, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep each run's history."""
        checkpoint["history"] = [history_of(classifier) for classifier in self.classifiers]
        checkpoint["failures"] = self.failures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore each run's history."""
        self.failures = checkpoint["failures"]
        for classifier, history in zip(self.classifiers, checkpoint["history"], strict=True):
            classifier.on_load_checkpoint({"history": history})

    def state_of(self, number: int) -> dict[str, Tensor]:
        """Return a run's tensors as the state of its own classifier."""
        part, at = self.places[number]
        return {
            f"{name}.{key}": tensor[at].cpu().clone()
            for name, stack in (("model", self.model), ("loss", self.loss))
            for key, tensor in stack.parts[part].state_dict().items()
        }


def history_of(classifier: Classifier) -> Any:
    """Return the history as a checkpoint holds it."""
    checkpoint: dict[str, Any] = {}
    classifier.on_save_checkpoint(checkpoint)
    return checkpoint["history"]


def parameter_group(run: Run) -> dict[str, float]:
    """Return the optimizer's keys in which a run may differ from the others."""
    keys = run.config.optimizer
    return {key: keys[key] for key in PARAMETER_GROUP if key in keys}


def fit_program(
    runs: Sequence[Run], parts: Sequence[training.Parts], shared: RunFolder, show_progress: bool
) -> dict[Run, Result | str]:
    """Train, score and record runs as one, or resume from the checkpoint in the shared folder."""
    datas = [part.data for part in parts]
    config, images = runs[0].config, len(datas[0].order(0))
    if any(len(data.order(0)) != images for data in datas):
        raise ValueError("their epochs have different numbers of images")
    if any(True for _ in parts[0].classifier.model.buffers()):
        raise ValueError("the model has buffers, which training may change")
    if show_progress:
        print(f"{len(runs)} runs side by side, {images:,} images each", file=sys.stderr)
    callbacks = [timer := Timer(), Origin(datas[0].sha256, code())]
    trainer = training.build_trainer(config, shared, [], callbacks, show_progress)
    warnings.filterwarnings("ignore", "The AccumulateGrad node")  # of the inputs of a CUDA graph
    classifiers = [part.classifier for part in parts]
    stacked = StackedClassifier(classifiers, [parameter_group(run) for run in runs])
    for data in datas:
        data.to(trainer.strategy.root_device)
    train = loader(datas, MNISTData.epoch, images)
    val = loader(datas, lambda data, _: data.val, len(datas[0].val[1]))
    test = loader(datas, lambda data, _: data.test, len(datas[0].test[1]))
    write_whole(shared.path / OVERRIDES, json.dumps([run.job for run in runs]))
    checkpoint = shared.last_checkpoint if shared.epochs_done() else None
    trainer.fit(stacked, train, val, ckpt_path=checkpoint, weights_only=True)
    steps = trainer.global_step
    if trainer.progress_bar_callback:
        trainer.progress_bar_callback.disable()
    trainer.validate(stacked, val, verbose=False)
    trainer.test(stacked, test, verbose=False)

    fit, tested = (timer.time_elapsed(stage) / len(runs) for stage in ("train", "test"))
    device = f"{describe(trainer.strategy.root_device)}, {len(runs)} runs side by side"
    compose = cache(compose_with)
    outcomes: dict[Run, Result | str] = {}
    for number, (run, data, classifier) in enumerate(zip(runs, datas, classifiers, strict=True)):
        if number in stacked.failures:
            outcomes[run] = stacked.failures[number]
            continue
        classifier.close_history()
        fields = training.fields_of(run.config, run.hydra, compose)
        seconds = Seconds(fit=fit, test=tested)
        result = training.make_result(fields, parts[number], steps, seconds, device)
        outcomes[run] = record(run, result, data, classifier, stacked.state_of(number))
    return outcomes


def record(
    run: Run, result: Result, data: MNISTData, classifier: Classifier, state: dict[str, Tensor]
) -> Result:
    """Write the files of a run, its last checkpoint without the state of the optimizer."""
    folder = run.folder
    known = folder.result()
    if not known:
        with folder.begin(run.config, run.hydra):
            loggers = training.build_loggers(run.config, folder, 0)
            training.log_epochs(loggers, classifier.history, data.groups)
            training.log_result(loggers, result, data)
            write_record(folder.path, result, classifier.history, classifier.predictions)
    if not folder.last_checkpoint.exists():  # last: before the record it would mean a run alone
        folder.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = {
            "epoch": result.epochs - 1,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": state,
            "hyper_parameters": dict(classifier.hparams),
            "history": history_of(classifier),
        }
        AtomicCheckpointIO().save_checkpoint(checkpoint, folder.last_checkpoint)
    return known or result


def shared_folder(runs: Sequence[Run]) -> RunFolder:
    """Return the folder of the runs' checkpoint while they are trained."""
    names = sorted(f"{run.folder.path}{hash_config(determining(run.config))}" for run in runs)
    root = Path(runs[0].config.runs_dir).absolute()
    return RunFolder(root / SHARED / sha256("".join(names).encode()).hexdigest()[:16])


def fit_stacked(
    runs: Sequence[Run], parts: Sequence[training.Parts], show_progress: bool
) -> dict[Run, Result | str]:
    """Train runs in locked folders as one; return nothing if they must be trained one by one."""
    shared = shared_folder(runs)
    outcomes: dict[Run, Result | str] = {}
    try:
        outcomes = fit_program(runs, parts, shared, show_progress)
    except torch.OutOfMemoryError:
        fewer = f"choose fewer, hydra.launcher.side_by_side={len(runs) // 2}"
        failure = f"{len(runs)} runs side by side do not fit into memory; {fewer}"
        outcomes = dict.fromkeys(runs, failure)
    except Exception as error:
        if shared.last_checkpoint.exists():  # the same runs resume from it
            return dict.fromkeys(runs, describe_failure(error))
        reason = str(error).partition("\n")[0]
        print(f"{len(runs)} runs are trained one by one: {reason}", flush=True)
    shutil.rmtree(shared.path, ignore_errors=True)
    with suppress(OSError):  # other groups have a folder there
        shared.path.parent.rmdir()
    return outcomes


def fit_together(runs: Sequence[Run], show_progress: bool = True) -> list[Result | str]:
    """Train runs, as one where that is possible, and return each one's result or why it has none.

    Finished runs, those with a checkpoint of their own, wrong values and models that cannot be
    stacked are left to `fit_run`, one by one.
    """
    gc.collect()  # cycles of an earlier Trainer hold its data
    outcomes: dict[Run, Result | str] = {}
    with ExitStack() as locks:
        parts: dict[Run, training.Parts] = {}
        ready = []
        for run in runs if len(runs) > 1 else ():
            with suppress(Exception):  # `fit_run` says what is wrong
                training.check_run(run.config, run.hydra)
                if not run.folder.result():
                    parts[run] = training.build_parts(run.config)
                locks.enter_context(run.folder.lock())
                run.folder.result_of(run.config)
                ready.append(run)
        ready.sort(key=lambda run: (sorted(parameter_group(run).items()), str(run.folder.path)))
        if not (ready and shared_folder(ready).last_checkpoint.exists()):
            begun = [run for run in ready if run.folder.last_checkpoint.exists()]
            ready = [run for run in ready if run in parts and run not in begun]
        if len(ready) > 1:
            built = [parts.get(run) or training.build_parts(run.config) for run in ready]
            outcomes = fit_stacked(ready, built, show_progress)
    for run in runs:
        if run not in outcomes:
            try:
                outcomes[run] = training.fit_run(run.config, run.hydra, run.folder, show_progress)
            except Exception as error:
                outcomes[run] = describe_failure(error)
    return [outcomes[run] for run in runs]
