from functools import partial

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_imbalance.training.classifier import Classifier

IMAGES = torch.eye(10).repeat(3, 1)[:25].reshape(25, 1, 1, 10)
LABELS = torch.arange(25) % 10
FROZEN = partial(torch.optim.SGD, lr=0)


def linear(scale: float) -> nn.Module:
    """Logits that are the pixels times scale: always right where it is positive."""
    layer = nn.Linear(10, 10)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.eye(10))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def fitted(classifier: Classifier, *callbacks: lightning.Callback, max_epochs: int = 1) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    batches = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)
    trainer.fit(classifier, batches, batches)
    trainer.test(classifier, batches, verbose=False)


def test_all_stages_are_scored_over_all_their_images_and_logged() -> None:
    names: set[str] = set()

    class Names(lightning.Callback):
        def on_train_end(self, trainer: lightning.Trainer, *_: object) -> None:
            names.update(trainer.callback_metrics)

    groups = {"0-4": range(5), "5-9": range(5, 10), "all": range(10)}
    metrics = {"always_half": lambda logits, labels: 0.5}
    classifier = Classifier(linear(2.0), optimizer=FROZEN, groups=groups, metrics=metrics)
    fitted(classifier, Names())
    loss = nn.functional.cross_entropy(2 * IMAGES.flatten(1), LABELS).item()
    for stage in ("train", "val", "test"):
        scores = classifier.scores[stage]
        assert scores.confusion == torch.diag(LABELS.bincount()).tolist()
        assert scores.positive == LABELS.bincount().tolist()  # no pixel is negative, the bias is 0
        assert scores.loss == pytest.approx(loss)  # over 25 images, not the mean of 4 batches'
        assert scores.metrics == {"always_half": 0.5}
    own = ("/loss", "/accuracy", "/accuracy_0_4", "/accuracy_5_9", "/always_half")
    logged = {*own, *(f"_per_label/{label}" for label in range(10))}
    assert names == {"step"} | {f"{stage}{name}" for stage in ("train", "val") for name in logged}


class Epochs(nn.CrossEntropyLoss):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[float] = []

    def start_epoch(self, done: float) -> None:
        self.heard.append(done)


def test_a_loss_hears_what_fraction_of_training_is_done() -> None:
    loss = Epochs()
    fitted(Classifier(linear(1.0), loss, FROZEN), max_epochs=4)
    assert loss.heard == [0, 0.25, 0.5, 0.75]
