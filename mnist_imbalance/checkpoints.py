"""Checkpoints: written whole, read only if whole."""

import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_imbalance.errors import ConfigError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then puts it there in one step.

    Lightning's own writing passes through the system's temporary folder, from where a move to
    another file system is not one step.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write the checkpoint whole or not at all."""
        part = f"{os.fspath(path)}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        with ZipFile(checkpoint) as archive:  # torch.load reads past a wrong checksum
            if damaged := archive.testzip():
                raise BadZipFile(damaged)
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        missing = {"epoch", "state_dict", "history"} - state.keys()
    except Exception as error:  # torch.load fails in many ways
        raise ConfigError(
            f"runs_dir: {checkpoint} is damaged; delete it and start the run again"
        ) from error
    if missing:
        raise ConfigError(f"runs_dir: {checkpoint} is no checkpoint of a training; delete it")
    return dict(state)


def epochs_done(checkpoint: Path) -> int:
    """Return how many epochs a checkpoint comes after, the last perhaps in part; 0 without one.

    Raises:
        ConfigError: The file is damaged, or nothing that training can go on from.
    """
    if not checkpoint.exists():
        return 0
    state = read_checkpoint(checkpoint)
    if not (state.get("optimizer_states") and state.get("loops")):
        raise ConfigError(f"runs_dir: {checkpoint} is no checkpoint of a training; delete it")
    return int(state["epoch"]) + 1
