"""One training epoch: ours, a bare PyTorch loop and the usual template pipeline."""

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import MNIST
from torchvision.transforms import v2

from benchmarks.measure import DEVICE, Row, alternate, compare, synchronized
from mnist_imbalance.config import compose_with
from mnist_imbalance.training.folder import RunFolder
from mnist_imbalance.training.run import build_loggers, build_parts, build_trainer

EPOCHS = 3  # the first warms up, the last has no end


class EpochTimer(lightning.Callback):
    """Notes the time at which every epoch begins."""

    def __init__(self) -> None:
        self.begins: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Note the time."""
        self.begins.append(synchronized())


def ours(model: str) -> list[float]:
    """Time the training command's own parts, without validation."""
    keys = [f"trainer.max_epochs={EPOCHS}", "+trainer.limit_val_batches=0"]
    config = compose_with([f"model={model}", *keys])
    with tempfile.TemporaryDirectory() as root:
        folder, parts, timer = RunFolder(Path(root)), build_parts(config), EpochTimer()
        loggers = build_loggers(config, folder, 0)
        trainer = build_trainer(config, folder, loggers, [timer], show_progress=False)
        trainer.fit(parts.classifier, datamodule=parts.data)
    return [timer.begins[2] - timer.begins[1]]


def bare(model: str) -> list[float]:
    """Time as little as PyTorch needs, on the same tensors."""
    parts = build_parts(compose_with([f"model={model}"]))
    images, labels = (tensor.to(DEVICE) for tensor in parts.data.train)
    network = parts.classifier.model.to(DEVICE)
    optimizer = parts.classifier.build_optimizer(network.parameters(), None)
    size = parts.data.batch_size
    for _ in range(2):
        begin = synchronized()
        order = torch.randperm(len(labels)).to(DEVICE)
        for batch, target in zip(images[order].split(size), labels[order].split(size), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch / 255), target).backward()
            optimizer.step()
        seconds = synchronized() - begin
    return [seconds]


class Template(lightning.LightningModule):
    """A LightningModule as the common templates write it: a metric and logging every step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Train on one batch."""
        images, labels = batch
        logits = self.model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.accuracy(logits.argmax(dim=1), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the same as ours."""
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0001)


def template(model: str) -> list[float]:
    """Time the usual pipeline: images one by one through transforms, in a DataLoader."""
    parts, timer = build_parts(compose_with([f"model={model}"])), EpochTimer()
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = Subset(MNIST(parts.data.dir, transform=transform), range(len(parts.data.train[1])))
    loader = DataLoader(images, batch_size=parts.data.batch_size, shuffle=True)
    with tempfile.TemporaryDirectory() as root:
        trainer = lightning.Trainer(
            max_epochs=EPOCHS,
            default_root_dir=root,
            callbacks=[timer],
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(Template(parts.classifier.model), loader)
    return [timer.begins[2] - timer.begins[1]]


def measure(rounds: int) -> list[Row]:
    """Compare the three for both models, one CPU thread."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    pipelines = {"bare loop": bare, "ours": ours, "template": template}
    rows = []
    for model in ("lstm", "cnn"):
        variants = {name: partial(pipeline, model) for name, pipeline in pipelines.items()}
        measured = alternate(variants, rounds)
        rows += compare(model, "one epoch, 29,713 images", measured, "bare loop")
    return rows
