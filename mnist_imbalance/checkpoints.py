"""Checkpoints: written whole, read only if whole."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.runs import RunFolder, determining, find_records, hash_config


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then puts it there in one step.

    Lightning's own writing passes through the system's temporary folder, from where a move to
    another file system is not one step. A checkpoint of a whole epoch is read as one that the next
    epoch follows: with ``max_steps``, Lightning would do the rest of an epoch that has none.
    """

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint to go on from."""
        checkpoint: dict[str, Any] = super().load_checkpoint(*args, **kwargs)
        loop = checkpoint["loops"]["fit_loop"]
        batches, epochs = loop["epoch_loop.batch_progress"], loop["epoch_progress"]
        if batches["is_last_batch"]:
            batches["is_last_batch"] = False
            batches["current"] = dict.fromkeys(batches["current"], 0)
            for progress in epochs.values():
                progress["completed"] = progress["processed"]
        return checkpoint

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


def stopped_by_callback(checkpoint: Path) -> bool:
    """Tell whether a callback such as EarlyStopping ended the training that left a checkpoint."""
    states = read_checkpoint(checkpoint)["callbacks"].values()
    return any(isinstance(state, dict) and state.get("stopped_epoch") for state in states)


def shorter_run(config: DictConfig, folder: RunFolder, origin: Mapping[str, str]) -> Path | None:
    """Return the last checkpoint of a finished run of fewer epochs that is this one so far, if any.

    It lies where the same command with fewer epochs, or the default's, has its folder. A run with
    a scheduler or callbacks, which may depend on the length of the training, begins anew.

    Args:
        config: Of the run.
        folder: Of the run, whose name tells its epochs.
        origin: Checksums of the data and the code, which must be the same.
    """
    ours = determining(config)
    name = f"trainer.max_epochs={config.trainer.max_epochs}"
    parts = folder.path.parts
    if name not in parts or config.scheduler or config.callbacks:
        return None
    before, behind = Path(*parts[: parts.index(name)]), parts[parts.index(name) + 1 :]
    found: dict[int, Path] = {}
    for place in (before, *before.glob("trainer.max_epochs=*")):
        run = RunFolder(place.joinpath(*behind))
        try:
            result = run.result()
            if not result or result.epochs >= config.trainer.max_epochs:
                continue
            if result.config != {**ours, "trainer.max_epochs": result.epochs}:
                continue
            state = read_checkpoint(run.last_checkpoint)
        except ConfigError:
            continue
        if state.get("loops") and origin in state["callbacks"].values():
            found[result.epochs] = run.last_checkpoint
    return found[max(found)] if found else None


def trained_before(config: DictConfig, origin: Mapping[str, str]) -> RunFolder | None:
    """Return a finished run below ``runs_dir`` that differs in ``posthoc`` alone, if any.

    Args:
        config: Of the run; if nothing is to be done after training, none is looked for.
        origin: Checksums of the data and the code, which must be the same.
    """

    def of_training(values: Mapping[str, Any]) -> str:
        return hash_config(
            {key: value for key, value in values.items() if not key.startswith("posthoc.")}
        )

    if not config.get("posthoc"):
        return None
    ours = of_training(determining(config))
    records = find_records([config.runs_dir])
    for each, folder in records.folders.items():
        result = records.results[each]
        theirs = {"data": result.data_sha256, "code": result.versions.get("code")}
        if theirs != origin or of_training(result.config) != ours:
            continue
        run = RunFolder(folder)
        try:
            read_checkpoint(run.last_checkpoint)
        except ConfigError:
            continue
        return run
    return None


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
