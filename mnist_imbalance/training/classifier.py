"""The LightningModule: one step and one scoring for training, validation and test."""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning
import numpy
import torch
import torchmetrics
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_imbalance.config import build_part, inject, refuse_strangers
from mnist_imbalance.data.sources import Batch
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records.result import Groups, Scores

Metric = Callable[[Tensor, Tensor], Any]  # logits (N, K) and labels (N,) of a split → a number
Part = Mapping[str, Any]  # a class or function by ``_target_``, with arguments, as in conf/
SGD = partial(torch.optim.SGD, lr=0.001, momentum=0.9, weight_decay=0.0001)  # AI3607's


def to_metrics(split: str, scores: Scores, groups: Groups) -> dict[str, float]:
    """Return scores by the names that loggers show, ``val/loss`` or ``val_per_label/3``."""
    named = {f"{split}/{name}": value for name, value in scores.named(groups).items()}
    per_label = enumerate(scores.accuracy_per_label)
    return named | {f"{split}_per_label/{label}": value for label, value in per_label}


def tally(
    logits: Tensor, labels: Tensor, losses: Tensor, metrics: Sequence[Mapping[str, Metric]]
) -> tuple[list[Scores], numpy.ndarray]:
    """Score whole passes of several runs over a split, with few waits for the device.

    Logits (R, N, C), labels (R, N), losses (R,) and more metrics of each run by name give the
    scores of each run, and the predicted labels (R, N), uint8 for up to 256 labels.
    """
    runs, _, size = logits.shape
    # torchmetrics' confusion matrix takes 25 ms where algorithms must be deterministic
    rows = labels + size * torch.arange(runs, device=labels.device).unsqueeze(1)
    predicted = logits.argmax(dim=2)
    pairs = torch.bincount((rows * size + predicted).flatten(), minlength=runs * size**2)
    positive = logits > 0
    own = rows[positive.gather(2, labels.unsqueeze(2)).squeeze(2)]
    fields: dict[str, list[Any]] = {
        "confusion": pairs.view(runs, size, size).tolist(),
        "loss": losses.tolist(),
        "positive": positive.sum(dim=1).tolist(),
        "positive_of_own": torch.bincount(own, minlength=runs * size).view(runs, size).tolist(),
        "metrics": [
            {name: score(metric, *outputs) for name, metric in named.items()}
            for named, *outputs in zip(metrics, logits.cpu(), labels.cpu(), strict=True)
        ],  # on the CPU, where any metric works
    }
    by_run = zip(*fields.values(), strict=True)
    scores = [Scores(**dict(zip(fields, values, strict=True))) for values in by_run]
    return scores, predicted.cpu().numpy().astype(numpy.min_scalar_type(size - 1))


def score(metric: Metric, logits: Tensor, labels: Tensor) -> float | None:
    """Return a metric of a whole split; None where it is not finite."""
    value = float(metric(logits, labels))
    if isinstance(metric, torchmetrics.Metric):
        metric.reset()  # or it would add up the epochs
    return value if math.isfinite(value) else None


class Classifier(lightning.LightningModule):
    """Any model with any loss: images (N, C, H, W) → logits (N, K) → loss.

    A part is an object, or its config with ``_target_``, which is saved as a hyperparameter.

    Args:
        model: Maps images to logits.
        loss: Maps logits and labels (N,) to a scalar; None is cross-entropy.
        optimizer: Maps the parameters to an optimizer; None is AI3607's SGD.
        scheduler: Maps the optimizer to a scheduler of steps; a config gets ``T_max`` of all steps.
        mix: Maps a training batch to a mixed one, see `methods.mixes`.
        metrics: More scores, each from a split's logits (N, K) and labels (N,), by name.
        groups: The labels of each group whose accuracy is logged.
        trust: Packages, beside this one and PyTorch's, that configs may call; None is all.

    Attributes:
        scores, predictions: Of the last whole pass over "train" (before each step), "val", "test".
        history: While training, the scores of "train" and "val" by epoch.
    """

    def __init__(
        self,
        model: nn.Module | Part,
        loss: nn.Module | Part | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | Part | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | Part | None = None,
        mix: Callable[..., Any] | Part | None = None,
        metrics: Mapping[str, Metric | Part] | None = None,
        groups: Groups | None = None,
        trust: Sequence[str] | None = (),
    ) -> None:
        super().__init__()
        for name in metrics or ():
            if re.fullmatch("epoch|stage|loss|accuracy(_.*)?", name):
                raise ConfigError(f"metrics.{name}: is a record's own name; choose another")
        parts: dict[str, Any] = {"model": model, "loss": loss, "optimizer": optimizer}
        parts |= {"scheduler": scheduler, "mix": mix}
        configs = {name: part for name, part in parts.items() if isinstance(part, Mapping)}
        self.groups: Groups = {name: list(labels) for name, labels in (groups or {}).items()}
        if all(isinstance(metric, Mapping) for metric in (metrics or {}).values()):
            configs["metrics"] = dict(metrics or {})
        if trust is not None:  # as a checkpoint's would be
            refuse_strangers(configs, trust)
        self.save_hyperparameters(configs | {"groups": self.groups}, logger=False)
        self.model: nn.Module = build_part(model, "model", nn.Module)
        self.loss: nn.Module = build_part(loss or nn.CrossEntropyLoss(), "loss", nn.Module)
        self.make_optimizer = build_part(optimizer or SGD, "optimizer", Callable)
        self.scheduler_part = scheduler
        self.metrics: dict[str, Metric] = {
            name: build_part(metric, f"metrics.{name}", Callable)
            for name, metric in (metrics or {}).items()
        }
        self.mix = build_part(mix, "mix", Callable) if mix else None
        self.scores: dict[str, Scores] = {}
        self.predictions: dict[str, numpy.ndarray] = {}
        self.history: dict[str, dict[int, Scores]] = defaultdict(dict)
        self._clock = time.monotonic()
        self._batches: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.model(images)
        return logits

    def configure_optimizers(self) -> Any:
        """Return the optimizer of all parameters, with its scheduler if there is one."""
        return self.build_optimizer(self.parameters(), self.trainer)

    def build_optimizer(self, parameters: Iterable[Any], trainer: lightning.Trainer | None) -> Any:
        """Return an optimizer of parameters, or groups of them; without a trainer for one step."""
        with naming("optimizer"):
            optimizer = self.make_optimizer(parameters)
        if not self.scheduler_part:
            return optimizer
        steps = int(trainer.estimated_stepping_batches) if trainer else 2
        with naming("scheduler"):
            part = inject(self.scheduler_part, {"T_max": steps, "total_steps": steps})
            scheduler = build_part(part, "scheduler", Callable)(optimizer)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return one batch's loss, to be minimized."""
        if batch_idx == 0:
            self.start_epoch(self.trainer.global_step / self.trainer.estimated_stepping_batches)
        loss = self.step(batch, "train")
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0:
            begun, self._clock = self._clock, time.monotonic()
            speed = every * batch[1].shape[-1] / (self._clock - begun)
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log("by_step/loss", loss, prog_bar=True)
            self.log_dict({"by_step/rate": rate, "by_step/images_per_second": speed})
        return loss

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

    def start_epoch(self, done: float) -> None:
        """Pass the fraction of training that is done to a loss that has ``start_epoch``."""
        if hook := getattr(self.loss, "start_epoch", None):
            hook(done)

    def step(self, batch: Batch, split: str) -> Tensor:
        """Return the loss of a batch, and keep its logits for the scores."""
        images, labels = batch
        others, share = None, 1.0
        if self.mix and split == "train":
            images, labels, others, share = self.mix(images, labels)
        logits = self(images)
        self._batches[split].append((logits.detach(), labels))
        loss: Tensor = self.loss(logits, labels)
        if others is not None:
            loss = share * loss + (1 - share) * self.loss(logits, others)
        return loss

    def summarize(self, split: str) -> None:
        """Score the split's batches and log the scores."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._batches[split], strict=True))
        self._batches[split].clear()
        loss = self.loss(logits, labels)
        [scores], [predicted] = tally(logits[None], labels[None], loss[None], [self.metrics])
        self.keep(split, scores, predicted, self.trainer)
        for name, value in to_metrics(split, scores, self.groups).items():
            self.log(name, value, prog_bar=name in ("val/loss", "val/accuracy"))
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.log("step", float(self.current_epoch))  # of the x-axis

    def keep(
        self, split: str, scores: Scores, predicted: numpy.ndarray, trainer: lightning.Trainer
    ) -> None:
        """Keep the scores and predictions of a whole pass over a split; refuse an infinite loss."""
        epoch = trainer.current_epoch
        if not math.isfinite(scores.loss):
            infinite = f"the {split} loss is {scores.loss} in epoch {epoch}"
            raise ConfigError(f"optimizer.lr: {infinite}; try a smaller rate or smaller weights")
        self.scores[split] = scores
        self.predictions[split] = predicted
        if trainer.state.fn == TrainerFn.FITTING:
            self.history[split][epoch] = scores

    def close_history(self) -> None:
        """Add the last validation where training ended within an epoch."""
        self.history["val"].setdefault(max(self.history["train"]), self.scores["val"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, so that a resumed run has all of it."""
        checkpoint["history"] = {
            split: {epoch: scores.model_dump(round_trip=True) for epoch, scores in epochs.items()}
            for split, epochs in self.history.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history."""
        for split, epochs in checkpoint["history"].items():
            self.history[split] = {epoch: Scores(**scores) for epoch, scores in epochs.items()}
            self.scores[split] = self.history[split][max(epochs)]

    def try_out(self, image_shape: Sequence[int]) -> None:
        """Call all parts once, on two black images; refuse a loss that is no scalar."""
        images, labels = torch.zeros(2, *image_shape), torch.zeros(2, dtype=torch.long)
        self.eval()
        with torch.inference_mode():
            with naming("model"):
                logits = self(images)
            with naming("loss"):
                loss = self.loss(logits, labels)
                if loss.numel() != 1:
                    raise ValueError(f"must give one number for a batch, gives {loss.numel()}")
            for name, metric in self.metrics.items():
                with naming(f"metrics.{name}"):
                    score(metric, logits, labels)
            with naming("mix"):
                self.step((images, labels), "train")
        self._batches["train"].clear()
        self.train()
        built = self.build_optimizer(self.parameters(), None)
        if self.scheduler_part:
            [optimizer], [schedule] = built
            optimizer.step()  # changes nothing without gradients
            with naming("scheduler"):
                schedule["scheduler"].step()
