"""One bar for a whole training, with the time left."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


class EpochBar(ProgressBar):
    """Advances once an epoch, so that it costs the steps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the bar where training starts or goes on."""
        self._bar = tqdm(
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            desc="training",
            unit="epoch",
            dynamic_ncols=True,
            disable=not self._enabled,
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Advance, and show how well the epoch went."""
        metrics = trainer.callback_metrics
        shown = {"val loss": "val/loss", "val accuracy": "val/accuracy"}
        self._bar.set_postfix(
            {name: f"{metrics[key]:.3f}" for name, key in shown.items() if key in metrics},
            refresh=False,
        )
        self._bar.update()

    def on_train_end(self, *_: Any) -> None:
        """Leave the full bar standing."""
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Leave the bar where it stopped."""
        if hasattr(self, "_bar"):
            self._bar.close()
