"""What a training does beside its steps: a bar, a seed for each epoch, a look at its origin."""

import sys
from math import ceil
from pathlib import Path
from typing import Any

import lightning
import torch
from tqdm import tqdm

from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.seeds import derive
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import as_seen_from_here
from mnist_imbalance.provenance import code, describe


def epochs_to_come(trainer: lightning.Trainer) -> int:
    """Return how many epochs a training has, the last perhaps in part."""
    ends = [trainer.max_epochs or -1, ceil(trainer.max_steps / trainer.num_training_batches)]
    return min(end for end in ends if end > 0)


class EpochBar(lightning.Callback):
    """Says what is trained, then advances once an epoch, so that it costs the steps nothing.

    Args:
        trained: What is, in words.
        folder: Where its files are, if that is told as well.
    """

    def __init__(self, trained: str, folder: Path | None) -> None:
        self.trained = trained
        self.folder = folder

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the bar where training starts or goes on."""
        epochs = epochs_to_come(trainer)
        device = describe(trainer.strategy.root_device, trainer.world_size)
        plural = "" if epochs == 1 else "s"
        print(f"{self.trained}, {epochs} epoch{plural}, {device}", file=sys.stderr)
        if self.folder:
            print(f"run folder: {as_seen_from_here(self.folder)}", file=sys.stderr)
        self._bar = tqdm(
            total=epochs,
            initial=trainer.current_epoch,
            bar_format="{n}/{total} epochs {bar} {elapsed}<{remaining}{postfix}",
            dynamic_ncols=True,
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Advance, and show how well the epoch went."""
        shown = {
            name.replace("/", " "): f"{trainer.callback_metrics[name]:.3f}"
            for name in ("val/loss", "val/accuracy")
            if name in trainer.callback_metrics  # not every epoch need be validated
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, *_: Any) -> None:
        """Leave the full bar standing."""
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Leave the bar where it stopped, if it was there."""
        if hasattr(self, "_bar"):
            self._bar.close()


class Origin(lightning.Callback):
    """Keeps in the checkpoint what the run began with, and lets it go on with nothing else.

    Args:
        data: Of the run; set up when training begins.
    """

    def __init__(self, data: MNISTData) -> None:
        self.data = data

    def state_dict(self) -> dict[str, str]:
        """Return the checksums that a checkpoint holds."""
        return {"data": self.data.sha256, "code": code()}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Compare with what the checkpoint holds.

        Raises:
            ConfigError: The run began with other data or other code.
        """
        for what, checksum in self.state_dict().items():
            if state_dict[what] != checksum:
                raise ConfigError(
                    f"runs_dir: this run was begun with other {what}; delete its folder, or choose "
                    "another runs_dir, and start it again"
                )


class SeedEveryEpoch(lightning.Callback):
    """Makes an epoch's random numbers depend on seed and epoch, so that a resumed run ends alike.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Seed what layers such as dropout draw from, before an epoch's first batch."""
        if batch_idx == 0:  # Lightning resumes past on_train_epoch_start
            torch.manual_seed(derive("epoch", self.seed, trainer.current_epoch))
