"""One training epoch: ours, a bare PyTorch loop and the usual template pipeline."""

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from mnist_imbalance.fit import build_parts, make_trainer
from mnist_imbalance.tensorboard import make_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import MNIST
from torchvision.transforms import v2

from benchmarks.device import DEVICE, synchronized
from benchmarks.measure import Row, alternate, compare
from mnist_imbalance.config import compose_with
from mnist_imbalance.training.folder import RunFolder


class EpochTimer(lightning.Callback):
    """Notes when every epoch begins, so that all that an epoch costs is between two notes."""

    def __init__(self) -> None:
        self.begins: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Note the time."""
        self.begins.append(synchronized())

    def seconds(self) -> list[float]:
        """Seconds of all epochs but the first, which warms up, and the last, which has no end."""
        pairs = zip(self.begins[1:], self.begins[2:], strict=False)
        return [after - before for before, after in pairs]


def ours(model: str, epochs: int) -> list[float]:
    """The training command's own parts, without validation."""
    overrides = [
        f"model={model}",
        f"trainer.max_epochs={epochs + 2}",
        "+trainer.limit_val_batches=0",
    ]
    config = compose_with(overrides)
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root))
        data, classifier = build_parts(config)
        timer = EpochTimer()
        trainer = make_trainer(config, folder, [make_logger(folder, done=0)], [timer])
        trainer.fit(classifier, datamodule=data)
    return timer.seconds()


def bare(model: str, epochs: int) -> list[float]:
    """As little as PyTorch needs, on the same tensors."""
    config = compose_with([f"model={model}"])
    data, classifier = build_parts(config)
    images, labels = (tensor.to(DEVICE) for tensor in data.train)
    network = classifier.model.to(DEVICE)
    optimizer = classifier.configure_optimizers()
    seconds = []
    for _ in range(epochs + 1):
        begin = synchronized()
        order = torch.randperm(len(labels)).to(DEVICE)
        size = data.batch_size
        for batch, target in zip(images[order].split(size), labels[order].split(size), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch / 255), target).backward()
            optimizer.step()
        seconds.append(synchronized() - begin)
    return seconds[1:]


class Template(lightning.LightningModule):
    """A LightningModule as the common templates write it: a metric and logging every step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One batch."""
        images, labels = batch
        logits = self.model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.accuracy(logits.argmax(dim=1), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The same as ours."""
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0001)


def template(model: str, epochs: int) -> list[float]:
    """The usual pipeline: images one by one through transforms, in a DataLoader."""
    config = compose_with([f"model={model}"])
    data, classifier = build_parts(config)
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = Subset(MNIST(data.dir, transform=transform), range(sum(data.counts["expanded"])))
    loader = DataLoader(images, batch_size=data.batch_size, shuffle=True)
    timer = EpochTimer()
    with tempfile.TemporaryDirectory() as root:
        trainer = lightning.Trainer(
            max_epochs=epochs + 2,
            default_root_dir=root,
            callbacks=[timer, ModelCheckpoint(root)],
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(Template(classifier.model), loader)
    return timer.seconds()


def measure(rounds: int) -> list[Row]:
    """Compare the three for both models, one CPU thread."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = []
    for model in ("lstm", "cnn"):
        variants = {
            "bare loop": partial(bare, model, 1),
            "ours": partial(ours, model, 1),
            "template": partial(template, model, 1),
        }
        measured = alternate(variants, rounds)
        rows += compare(model, "one epoch, 29,713 images", measured, "bare loop")
    return rows
