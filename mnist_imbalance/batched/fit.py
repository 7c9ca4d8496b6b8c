"""Several runs as one training: side by side in one program, each in a run folder of its own."""

import contextlib
import copy
import gc
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_imbalance.batched.stacked import Stacked
from mnist_imbalance.callbacks import EpochBar, Origin
from mnist_imbalance.checkpoints import AtomicCheckpointIO, epochs_done
from mnist_imbalance.classifier import Classifier, Staged, tally, to_metrics
from mnist_imbalance.config import compose_with
from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.module import Slices
from mnist_imbalance.data.sources import Batch
from mnist_imbalance.errors import ConfigError, explain
from mnist_imbalance.files import remove_if_empty, write_whole
from mnist_imbalance.fit import (
    build_parts,
    check_images,
    check_run,
    check_whole,
    end_history,
    fit_and_score,
    make_result,
    make_trainer,
)
from mnist_imbalance.provenance import describe
from mnist_imbalance.runs import Result, RunFolder, Seconds, determining, hash_config
from mnist_imbalance.tensorboard import make_logger, show_in_tensorboard

SHARED = ".batched"  # below the root of the run folders: what programs need while they train
OVERRIDES = "overrides.json"  # of the runs of a program
BY_PARAMETER_GROUP = ("lr", "weight_decay")  # what an optimizer may treat each run to


class CannotShareError(Exception):
    """These runs cannot be one program, each alone can."""


@dataclass(frozen=True)
class Run:
    """A run before its training: its config, Hydra's part of it, and its folder."""

    config: DictConfig
    hydra: HydraConf
    folder: RunFolder

    @cached_property
    def config_hash(self) -> str:
        """What the run is known by."""
        return hash_config(determining(self.config))

    @property
    def is_finished(self) -> bool:
        """Return whether it has a result."""
        return self.folder.result() is not None

    @property
    def is_begun_alone(self) -> bool:
        """Return whether it has a checkpoint of its own to go on from."""
        return self.folder.last_checkpoint.exists()

    @property
    def optimizer_keys(self) -> dict[str, float]:
        """What the optimizer treats this run to."""
        keys = self.config.optimizer
        return {key: keys[key] for key in BY_PARAMETER_GROUP if key in keys}


Outcomes = dict[Path, Result | str]  # by run folder a run's result, or why it has none
Parts = tuple[MNISTData, Classifier]


class StackedData(lightning.LightningDataModule):
    """The data of R runs: a batch is images (R, N, C, H, W) in [0, 1] and labels (R, N).

    Args:
        parts: The data of each, set up; of equal size.
    """

    def __init__(self, parts: Sequence[MNISTData]) -> None:
        super().__init__()
        self.parts = parts

    def _loader(self, draw: Callable[[int], list[Batch]], images: int) -> DataLoader[Any]:
        if self.trainer:
            for part in self.parts:
                part.to(self.trainer.strategy.root_device)

        def stack(epoch: int) -> Batch:
            pixels, labels = zip(*draw(epoch), strict=True)
            return torch.stack(pixels), torch.stack(labels)

        return Slices(stack, images, self.parts[0].batch_size, dim=1).loader()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, every run in its own order."""
        images = len(self.parts[0].order(0))
        return self._loader(lambda epoch: [part.epoch(epoch) for part in self.parts], images)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches of every run's held-out images."""
        return self._loader(lambda _: [part.val for part in self.parts], len(self.parts[0].val[1]))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the test set, once a run."""
        return self._loader(
            lambda _: [part.test for part in self.parts], len(self.parts[0].test[1])
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pixels to [0, 1], on the device."""
        return self.parts[0].on_after_batch_transfer(batch, dataloader_idx)


class StackedClassifier(Staged):
    """R classifiers trained as one; each keeps its own scores and history.

    Args:
        classifiers: One a run, with its initial weights.
        optimizer_keys: What the optimizer treats each to; equal ones stand side by side.

    Attributes:
        failures: The runs, by number, whose loss is not finite, and why.
    """

    def __init__(
        self, classifiers: Sequence[Classifier], optimizer_keys: Sequence[dict[str, float]]
    ) -> None:
        super().__init__()
        self.classifiers = list(classifiers)
        self.failures: dict[int, str] = {}
        self.treated = [(keys, len(list(runs))) for keys, runs in groupby(optimizer_keys)]
        sizes = [size for _, size in self.treated]
        self.model = Stacked([each.model for each in classifiers], sizes)
        self.loss = Stacked([each.loss for each in classifiers], sizes)
        self._seen: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    def configure_optimizers(self) -> Any:
        """Return one elementwise optimizer with a parameter group for all runs treated alike.

        A scheduler, if there is one, changes the rate of each group from that group's own.
        """
        groups: Any = [
            {"params": [*model.parameters(), *loss.parameters()], **keys}
            for model, loss, (keys, _) in zip(
                self.model.parts, self.loss.parts, self.treated, strict=True
            )
        ]
        return self.classifiers[0].optimized(groups, self)

    def step(self, batch: Batch, stage: str) -> Tensor:
        """Return the sum of the runs' losses: the gradient of each is its own."""
        images, labels = batch
        logits = self.model(images)
        self._seen[stage].append((logits.detach(), labels))
        losses: Tensor = self.loss(logits, labels)
        return losses.sum()

    def start_epoch(self) -> None:
        """Let every run's loss know how much of training is done, if it asks for it."""
        parts = zip(self.loss.parts, self.treated, strict=True)
        places = [(part, place) for part, (_, size) in parts for place in range(size)]
        for each, (part, place) in zip(self.classifiers, places, strict=True):
            hook: Any = getattr(each.loss, "start_epoch", None)
            if hook:
                own, stacked = dict(each.loss.named_buffers()), dict(part.named_buffers())
                for name, buffer in own.items():
                    buffer.copy_(stacked[name][place])
                hook(self.fraction_done)
                for name, buffer in own.items():
                    stacked[name][place].copy_(buffer)

    def summarize(self, stage: str) -> None:
        """Score every run's batches; of those whose loss is not finite, note why."""
        logits, labels = (torch.cat(parts, dim=1) for parts in zip(*self._seen[stage], strict=True))
        self._seen[stage].clear()
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        sound = []
        metrics = [each.metrics for each in self.classifiers]
        tallied = zip(*tally(logits, labels, self.loss(logits, labels), metrics), strict=True)
        for number, (scores, predicted) in enumerate(tallied):
            try:
                self.classifiers[number].keep(
                    stage, scores, predicted, self.current_epoch, in_history=fitting
                )
                sound.append(scores)
            except ConfigError as error:
                self.failures.setdefault(number, str(error))
        if not sound:
            raise ConfigError(self.failures[0])
        if fitting and stage == "val":
            self.log("val/accuracy", sum(each.accuracy for each in sound) / len(sound))
            self.log("val/loss", sum(each.loss for each in sound) / len(sound))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep every run's history."""
        checkpoint["history"] = [each.dump_history() for each in self.classifiers]
        checkpoint["failures"] = self.failures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        self.failures = checkpoint["failures"]
        for classifier, history in zip(self.classifiers, checkpoint["history"], strict=True):
            classifier.on_load_checkpoint({"history": history})

    def state_of(self, number: int) -> dict[str, Tensor]:
        """Return a run's tensors as its own classifier's state."""
        return {
            f"{name}.{key}": tensor[number].cpu().clone()
            for name, stacked in (("model", self.model), ("loss", self.loss))
            for key, tensor in stacked.tensors().items()
        }


def rehearse(
    classifier: StackedClassifier, image_shape: Sequence[int], device: torch.device
) -> None:
    """Take a step on copies of the modules, on the device that they are to be trained on.

    Raises:
        CannotShareError: ``torch.vmap`` cannot map the model or the loss, as with dropout.
    """
    if next(classifier.model.buffers(), None) is not None:
        raise CannotShareError("the model has buffers, which training may change")
    runs = len(classifier.classifiers)
    images = torch.zeros(runs, 2, *image_shape, device=device)
    labels = torch.zeros(runs, 2, dtype=torch.long, device=device)
    model, loss = (copy.deepcopy(each).to(device) for each in (classifier.model, classifier.loss))
    try:
        loss(model(images), labels).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, each run alone shows it or has none
        raise CannotShareError(next(iter(str(error).splitlines()), "")) from error


def folder_of(runs: Sequence[Run]) -> RunFolder:
    """Return the place of what these runs share while they are trained."""
    named = "".join(sorted(f"{run.folder.path}{run.config_hash}" for run in runs))
    root = Path(runs[0].config.runs_dir).absolute()
    return RunFolder(root / SHARED / sha256(named.encode()).hexdigest()[:16])


def begun_together(root: Path) -> list[list[list[str]]]:
    """Return the overrides of the runs of each program that was begun and can go on.

    Args:
        root: Of the run folders.
    """
    files = sorted((root / SHARED).glob(f"*/{OVERRIDES}"))
    return [
        json.loads(file.read_text(encoding="utf-8"))
        for file in files
        if RunFolder(file.parent).last_checkpoint.exists()
    ]


def fit_program(
    runs: Sequence[Run], parts: Sequence[Parts], shared: RunFolder, show_progress: bool
) -> Outcomes:
    """Train, score and keep runs that can share a program, or go on from where they are.

    Args:
        runs: Those with equal optimizer keys stand side by side.
        parts: Data and classifier of each.
        shared: Holds the checkpoint until all are finished.
        show_progress: Show a bar, if the config wants one too.

    Returns:
        As `fit_side_by_side`.

    Raises:
        CannotShareError: They cannot share a program after all.
        ConfigError: None of them can be trained.
    """
    first = runs[0].config
    datas, classifiers = zip(*parts, strict=True)
    if not all(isinstance(data, MNISTData) for data in datas):
        raise CannotShareError("their data is no MNISTData")
    if len({len(data.order(0)) for data in datas}) > 1:
        raise CannotShareError("their epochs have different numbers of images")
    try:
        classifier = StackedClassifier(classifiers, [run.optimizer_keys for run in runs])
    except NotImplementedError as error:  # an LSTM that cannot be mapped
        raise CannotShareError(str(error)) from error
    timer = Timer()
    show_progress = show_progress and first.trainer.enable_progress_bar
    callbacks = [timer, Origin(datas[0])]
    if show_progress:
        each = f"{len(datas[0].order(0)):,} images each"
        callbacks.append(EpochBar(f"{len(runs)} runs side by side, {each}", None))
    trainer = make_trainer(first, shared, None, callbacks)
    warnings.filterwarnings("ignore", "The AccumulateGrad node")  # of what a recorded LSTM is given
    rehearse(classifier, datas[0].image_shape, trainer.strategy.root_device)
    data = StackedData(datas)
    overrides = [list(run.hydra.overrides.task) for run in runs]
    write_whole(shared.path / OVERRIDES, json.dumps(overrides))
    fresh = [run for run in runs if run.folder.is_fresh()]
    for run in runs:
        run.folder.begin(run.config, run.hydra)
    try:
        checkpoint = shared.last_checkpoint if epochs_done(shared.last_checkpoint) else None
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        steps = trainer.global_step
        trainer.validate(classifier, datamodule=data, verbose=False)
        trainer.test(classifier, datamodule=data, verbose=False)
    except Exception:
        if not shared.last_checkpoint.exists():
            (shared.path / OVERRIDES).unlink()
            for run in fresh:
                run.folder.discard()
        raise

    device = f"{describe(trainer.strategy.root_device)}, {len(runs)} runs side by side"
    share = Seconds(
        fit=timer.time_elapsed("train") / len(runs), test=timer.time_elapsed("test") / len(runs)
    )
    compose = cache(compose_with)
    outcomes: Outcomes = {}
    for number, (run, part, each) in enumerate(zip(runs, datas, classifiers, strict=True)):
        try:
            if why := classifier.failures.get(number):
                raise ConfigError(why)
            check_whole(run.config, part, each)
        except ConfigError as error:
            run.folder.discard()
            outcomes[run.folder.path] = str(error)
            continue
        end_history(each)
        result = run.folder.result()
        if not result:
            result = make_result(run.config, run.hydra, part, each, steps, share, device, compose)
            finish(run.folder, result, part, each)
        if not run.folder.last_checkpoint.exists():  # without a result, it would seem begun alone
            save_state(run.folder, each, classifier.state_of(number))
        outcomes[run.folder.path] = result
    return outcomes


def finish(folder: RunFolder, result: Result, data: MNISTData, classifier: Classifier) -> None:
    """Write the log and the record that a run trained alone would leave."""
    logger = make_logger(folder, done=0)
    for stage, epochs in classifier.history.items():
        for epoch, scores in epochs.items():
            logger.log_metrics(to_metrics(stage, scores, result.groups), step=epoch)
    show_in_tensorboard(logger, result, data)
    folder.finish(result, classifier.history, classifier.predictions)


def save_state(folder: RunFolder, classifier: Classifier, state: dict[str, Tensor]) -> None:
    """Write the last checkpoint that a run trained alone would leave, but no optimizer's state."""
    folder.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "epoch": max(classifier.history["train"]),
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "history": classifier.dump_history(),
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, folder.last_checkpoint)


def fit_side_by_side(runs: Sequence[Run], show_progress: bool) -> Outcomes:
    """Train runs that differ in seeds, weights, rate, decay and images as one program.

    Runs that turn out to need another program, or that were begun alone, are trained alone.
    Where the memory is too small, the halves are trained one after the other.

    Returns:
        By run folder each run's result, or why it has none.
    """
    outcomes: Outcomes = {}
    built: dict[Path, Parts] = {}
    with contextlib.ExitStack() as locks:
        sound = []
        for run in runs:
            try:
                check_run(run.config, run.hydra)
                if not run.is_finished:
                    built[run.folder.path] = build_parts(run.config)
                locks.enter_context(run.folder.lock())
                if result := run.folder.result_of(run.config):
                    check_images(run.config, run.folder, result)
                sound.append(run)
            except Exception as error:
                outcomes[run.folder.path] = explain(error)
        sound.sort(key=lambda run: sorted(run.optimizer_keys.items()))
        outcomes |= fit_or_split(sound, built, show_progress)
    return outcomes


def fit_or_split(runs: Sequence[Run], built: dict[Path, Parts], show_progress: bool) -> Outcomes:
    """Do what `fit_side_by_side` promises, in folders that are ours.

    Args:
        runs: Those with equal optimizer keys stand side by side.
        built: Parts that are made, by run folder; those that are used are taken out, since halves
            need the place of the whole.
        show_progress: Show a bar, if the config wants one too.
    """
    begun = bool(runs) and folder_of(runs).last_checkpoint.exists()
    together = [run for run in runs if begun or not (run.is_finished or run.is_begun_alone)]
    outcomes: Outcomes = {}
    halves: list[Sequence[Run]] = []
    if len(together) > 1:
        shared = folder_of(together)
        try:
            with shared.lock():
                try:
                    parts = [
                        built.pop(path) if path in built else build_parts(run.config)
                        for run, path in ((run, run.folder.path) for run in together)
                    ]
                    outcomes = fit_program(together, parts, shared, show_progress)
                except CannotShareError as error:
                    print(f"{len(together)} runs are trained one by one: {error}", flush=True)
                except torch.OutOfMemoryError:
                    print(f"{len(together)} runs do not fit into memory: in halves", flush=True)
                    middle = len(together) // 2
                    halves = [together[:middle], together[middle:]]
                shutil.rmtree(shared.path)
        except Exception as error:
            outcomes = dict.fromkeys((run.folder.path for run in together), explain(error))
        for folder in (shared.path, shared.path.parent):
            remove_if_empty(folder, top=folder.parent)
        gc.collect()  # Lightning's cycles hold the data, which the next program needs the place of
        torch.cuda.empty_cache()
    for half in halves:
        outcomes |= fit_or_split(half, built, show_progress)
    for run in runs:
        if run.folder.path not in outcomes:
            outcomes[run.folder.path] = fit_alone(run, show_progress)
    return outcomes


def fit_alone(run: Run, show_progress: bool) -> Result | str:
    """Do one run as the training command line would, unless it is finished."""
    try:
        return run.folder.result() or fit_and_score(
            run.config, run.hydra, run.folder, show_progress
        )
    except Exception as error:
        return explain(error)
