"""Callbacks and the checkpoint format of a run."""

import os
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_imbalance.data.seeds import derive
from mnist_imbalance.errors import ConfigError


class Origin(lightning.Callback):
    """Keeps whose a checkpoint is; refuses to resume where data or code differ."""

    def __init__(self, data: str, code: str, config_hash: str) -> None:
        self.checksums, self.config_hash = {"data": data, "code": code}, config_hash

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the run's hash, which a run folder compares."""
        checkpoint["config_hash"] = self.config_hash

    def state_dict(self) -> dict[str, str]:
        """Return the checksums that a checkpoint holds."""
        return self.checksums

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Compare them with those of a checkpoint."""
        for name, checksum in self.checksums.items():
            if state_dict[name] != checksum:
                raise ConfigError(f"runs_dir: this run was begun with other {name}; choose another")


class SeedEveryEpoch(lightning.Callback):
    """Seeds PyTorch by seed and epoch, so that a resumed run ends with the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Seed before the first batch of an epoch."""
        if batch_idx == 0:  # Lightning resumes past on_train_epoch_start
            torch.manual_seed(derive("epoch", self.seed, trainer.current_epoch))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all; Lightning may copy it from another file system."""

    def save_checkpoint(self, checkpoint: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        """Write a file beside the path, then rename it."""
        super().save_checkpoint(checkpoint, f"{path}.part", *args, **kwargs)
        os.replace(f"{path}.part", path)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint of a whole epoch as one that the next epoch follows (Lightning 2.6)."""
        checkpoint: dict[str, Any] = super().load_checkpoint(*args, **kwargs)
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]
        if batches["is_last_batch"]:  # with max_steps, Lightning would train the rest of the epoch
            batches["is_last_batch"] = False
            batches["current"] = dict.fromkeys(batches["current"], 0)
            for progress in loop["epoch_progress"].values():
                progress["completed"] = progress["processed"]
        return checkpoint
