"""The training loop's body: one step and one summary for training, validation and test."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import lightning
import numpy
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.mixes import Mix
from mnist_imbalance.scores import Groups, Scores

Batch = tuple[Tensor, Tensor]  # images and labels
Metric = Callable[[Tensor, Tensor], Any]  # logits (N, C) and labels (N,) of a whole set → a number


def to_metrics(stage: str, scores: Scores, groups: Groups) -> dict[str, float]:
    """Return the scores of a stage by the name that TensorBoard shows."""
    per_label = enumerate(scores.accuracy_per_label)
    return {
        **{f"{stage}/{name}": value for name, value in scores.named(groups).items()},
        **{f"{stage}_per_label/{label}": value for label, value in per_label},
    }


def finite(value: float) -> float | None:
    """Return a number that a record can hold, None for another."""
    return value if math.isfinite(value) else None


def tally(
    logits: Tensor, labels: Tensor, losses: Tensor, metrics: Sequence[Mapping[str, Metric]]
) -> tuple[list[Scores], numpy.ndarray]:
    """Score whole passes of several runs over a set, with few waits for the device.

    Args:
        logits: (R, N, C) of all images.
        labels: (R, N).
        losses: (R,).
        metrics: What else is to be told of each run, by name.

    Returns:
        The scores of each run, and the predicted labels (R, N) uint8.
    """
    runs, _, size = logits.shape
    # torchmetrics' confusion matrix takes 25 ms where algorithms must be deterministic
    rows = labels + size * torch.arange(runs, device=labels.device).unsqueeze(1)
    predicted = logits.argmax(dim=2)
    pairs = torch.bincount((rows * size + predicted).flatten(), minlength=runs * size**2)
    confusions = pairs.view(runs, size, size).tolist()
    above = logits > 0
    positive = above.sum(dim=1).tolist()
    own_is_above = above.gather(2, labels.unsqueeze(2)).squeeze(2)
    of_own = torch.bincount(rows[own_is_above], minlength=runs * size).view(runs, size).tolist()
    more = [
        {name: finite(float(metric(*of_run))) for name, metric in own.items()}
        for own, *of_run in zip(metrics, logits.cpu(), labels.cpu(), strict=True)  # any works there
    ]
    scores = [
        Scores(confusion=confusion, loss=loss, positive=of_any, positive_of_own=own, metrics=others)
        for confusion, loss, of_any, own, others in zip(
            confusions, losses.tolist(), positive, of_own, more, strict=True
        )
    ]
    return scores, predicted.to(torch.uint8).cpu().numpy()


SGD = partial(torch.optim.SGD, lr=0.001, momentum=0.9, weight_decay=0.0001)


class Staged(lightning.LightningModule, ABC):
    """The same step and the same summary in training, validation and test."""

    @abstractmethod
    def step(self, batch: Batch, stage: str) -> Tensor:
        """Return the loss of a batch of "train", "val" or "test"."""

    @abstractmethod
    def summarize(self, stage: str) -> None:
        """Score all batches since the last summary of this stage."""

    @abstractmethod
    def start_epoch(self) -> None:
        """Let the loss know how much of training is done, if it asks for it."""

    @property
    def fraction_done(self) -> float:
        """Return the fraction of training's optimizer steps that are done, in [0, 1)."""
        return self.trainer.global_step / self.trainer.estimated_stepping_batches

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return one batch's loss, to be minimized."""
        if batch_idx == 0:
            self.start_epoch()
        return self.step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch of held-out images."""
        self.step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch of test images."""
        self.step(batch, "test")

    def on_train_epoch_end(self) -> None:
        """Score the epoch's training batches."""
        self.summarize("train")

    def on_validation_epoch_end(self) -> None:
        """Score the held-out images."""
        self.summarize("val")

    def on_test_epoch_end(self) -> None:
        """Score the test set."""
        self.summarize("test")


class Classifier(Staged):
    """Any model with any loss: images (N, C, H, W) → logits (N, K) → loss.

    Args:
        model: Maps images to logits.
        loss: Maps logits and labels (N,) to a scalar; None is cross-entropy. Its method
            ``start_epoch``, if it has one, is given the fraction of training that is done, in
            [0, 1), when an epoch starts; what it changes must be in buffers.
        make_optimizer: Maps the parameters to an optimizer; None is AI3607's SGD.
        groups: The labels of each group that accuracies are given for.
        metrics: More scores, each from a set's logits (N, K) and labels (N,), by name.
        make_scheduler: Maps the optimizer and the number of all its steps to what changes its rate
            after every step; None leaves it as it is.
        mix: Maps a training batch, images in [0, 1] and labels, to mixed images, their first and
            second labels and λ, see `mnist_imbalance.methods.mixes`; the loss is then λ times that of the
            first and 1 − λ times that of the second labels. None mixes nothing.
        processes: How many are given the same batches, each to compute its part of the logits.

    Attributes:
        scores: The last whole pass over "train", "val" and "test". An epoch's training batches
            are scored each as it was when it was trained on, mixed ones by their first labels.
        predictions: The labels predicted in that pass, (N,) uint8.
        history: While training, the scores of "train" and "val" by epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module | None = None,
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        groups: Groups | None = None,
        metrics: Mapping[str, Metric] | None = None,
        make_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        mix: Mix | None = None,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or nn.CrossEntropyLoss()
        self.make_optimizer = make_optimizer or SGD
        self.groups = groups or {}
        self.metrics = metrics or {}
        self.make_scheduler = make_scheduler
        self.mix = mix
        self.processes = processes
        self.scores: dict[str, Scores] = {}
        self.predictions: dict[str, numpy.ndarray] = {}
        self.history: dict[str, dict[int, Scores]] = defaultdict(dict)
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": [], "test": []}

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.model(images)
        return logits

    @classmethod
    def load_from_checkpoint(cls, *_: Any, **__: Any) -> NoReturn:
        """Say what gives a run's model; a checkpoint does not know the parts it is of.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("use mnist_imbalance.load.load_run(folder), folder being the run folder")

    def configure_optimizers(self) -> Any:
        """Return the optimizer of all parameters, with its scheduler if there is one."""
        return self.optimized(self.parameters(), self)

    def optimized(self, parameters: Iterable[Any], trained: lightning.LightningModule) -> Any:
        """Return what Lightning asks ``configure_optimizers`` for.

        Args:
            parameters: What is to be optimized, or groups of it.
            trained: Its trainer knows how many steps a scheduler has.
        """
        optimizer = self.make_optimizer(parameters)
        if not self.make_scheduler:
            return optimizer
        scheduler = self.make_scheduler(optimizer, int(trained.trainer.estimated_stepping_batches))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def start_epoch(self) -> None:
        """Let the loss know how much of training is done, if it asks for it."""
        hook: Any = getattr(self.loss, "start_epoch", None)
        if hook:
            hook(self.fraction_done)

    def step(self, batch: Batch, stage: str) -> Tensor:
        """Return the loss of a batch, and keep its logits for the summary."""
        images, labels = batch
        others, share = None, 1.0
        if self.mix and stage == "train":
            images, labels, others, share = self.mix(images, labels)
        logits = self(images) if self.processes == 1 else self.compute_with_others(images)
        self._seen[stage].append((logits.detach(), labels))
        loss: Tensor = self.loss(logits, labels)
        if others is not None:
            loss = share * loss + (1 - share) * self.loss(logits, others)
        return loss if self.processes == 1 else loss * self.processes  # gradients are averaged

    def compute_with_others(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images of which each process computes a part.

        Whatever the loss, its gradient by the process's own part, the only one that has one, is
        the process's part of the whole batch's.
        """
        part = -(-len(images) // self.processes)
        first = self.global_rank * part
        own = torch.arange(first, first + part) % len(images)  # parts of one size, to be gathered
        logits: Tensor = self(images[own.to(images.device)])
        parts = [torch.empty_like(logits) for _ in range(self.processes)]
        torch.distributed.all_gather(parts, logits.detach().contiguous())
        parts[self.global_rank] = logits
        return torch.cat(parts)[: len(images)]

    def summarize(self, stage: str) -> None:
        """Score the stage's batches and log the scores."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._seen[stage], strict=True))
        self._seen[stage].clear()
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        loss = self.loss(logits, labels)
        [scores], [predicted] = tally(
            logits.unsqueeze(0), labels.unsqueeze(0), loss.unsqueeze(0), [self.metrics]
        )
        self.keep(stage, scores, predicted, self.current_epoch, in_history=fitting)
        self.log_dict(to_metrics(stage, scores, self.groups))
        if fitting:
            self.log("step", float(self.current_epoch))  # of the x-axis

    def keep(
        self, stage: str, scores: Scores, predicted: numpy.ndarray, epoch: int, in_history: bool
    ) -> None:
        """Keep the scores and predictions of a whole pass over "train", "val" or "test".

        Raises:
            ConfigError: The loss is not finite.
        """
        if not math.isfinite(scores.loss):
            raise ConfigError(
                f"optimizer.lr: the {stage} loss is {scores.loss} in epoch {epoch}; "
                "a smaller rate, or smaller loss weights, may keep it finite"
            )
        self.scores[stage] = scores
        self.predictions[stage] = predicted
        if in_history:
            self.history[stage][epoch] = scores

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, so that a resumed run has all of it."""
        checkpoint["history"] = self.dump_history()

    def dump_history(self) -> dict[str, dict[int, dict[str, Any]]]:
        """Return the history as a checkpoint holds it."""
        return {
            stage: {epoch: scores.model_dump(round_trip=True) for epoch, scores in epochs.items()}
            for stage, epochs in self.history.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history up again."""
        for stage, epochs in checkpoint["history"].items():
            self.history[stage] = {epoch: Scores(**scores) for epoch, scores in epochs.items()}
            self.scores[stage] = self.history[stage][max(epochs)]
