from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mnist_imbalance.callbacks import EpochBar, epochs_to_come


def test_the_bar_goes_on_where_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"val/loss": torch.tensor(0.25), "val/accuracy": torch.tensor(0.5)}
    trainer = SimpleNamespace(
        max_epochs=10,
        max_steps=-1,
        num_training_batches=3,
        current_epoch=4,
        world_size=1,
        callback_metrics=metrics,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    bar = EpochBar("300 images", Path.cwd() / "runs" / "seed=0")
    bar.on_exception()  # before there is a bar
    bar.on_train_start(trainer)  # type: ignore[arg-type]
    bar.on_train_epoch_end(trainer)  # type: ignore[arg-type]
    bar.on_train_end()
    shown = capsys.readouterr().err
    opening, folder, bars = shown.split("\n", 2)
    assert opening.startswith("300 images, 10 epochs, cpu, ")
    assert folder == "run folder: runs/seed=0"
    assert "4/10 epochs" in bars
    assert "5/10 epochs" in bars
    assert "val loss=0.250, val accuracy=0.500" in shown


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "epochs"), [(10, -1, 10), (-1, 7, 3), (10, 6, 2), (2, 100, 2)]
)
def test_the_end_that_comes_first_counts(max_epochs: int, max_steps: int, epochs: int) -> None:
    trainer = SimpleNamespace(max_epochs=max_epochs, max_steps=max_steps, num_training_batches=3)
    assert epochs_to_come(trainer) == epochs  # type: ignore[arg-type]
