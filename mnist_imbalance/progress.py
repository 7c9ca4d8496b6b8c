"""One bar for a whole training, with the time left."""

from math import ceil
from typing import Any

import lightning
from tqdm import tqdm


def epochs_to_come(trainer: lightning.Trainer) -> int:
    """Return how many epochs a training has, the last perhaps in part."""
    ends = [trainer.max_epochs or -1, ceil(trainer.max_steps / trainer.num_training_batches)]
    return min(end for end in ends if end > 0)


class EpochBar(lightning.Callback):
    """Advances once an epoch, so that it costs the steps nothing."""

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the bar where training starts or goes on."""
        self._bar = tqdm(
            total=epochs_to_come(trainer),
            initial=trainer.current_epoch,
            desc="training",
            unit="epoch",
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
