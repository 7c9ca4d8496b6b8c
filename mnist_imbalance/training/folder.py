"""A run folder: its lock, config and checkpoint; and the code and machine that made it."""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

import lightning
import torch
import torchvision
from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

import mnist_imbalance
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import determining
from mnist_imbalance.records.result import Result, read_record, write_whole
from mnist_imbalance.training.callbacks import read_checkpoint

PACKAGE = Path(mnist_imbalance.__file__).parent
TRAINS = ("data", "models", "methods", "training")  # folders with the code that trains


class RunFolder:
    """A folder with one run, finished or not; it need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        self.result_file = path / "result.json"
        self.config_file = path / ".hydra" / "config.yaml"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(f"runs_dir: another process is at work in {self.path}") from error
        try:
            yield
        finally:
            (self.path / ".lock").unlink(missing_ok=True)
            lock.release()

    def result(self) -> Result | None:
        """Read ``result.json``; None if the run is not complete."""
        return read_record(self.path)

    def result_of(self, config: DictConfig) -> Result | None:
        """Read the result of this config's run; refuse another config's run."""
        result = self.result()
        if not result and not self.config_file.exists():
            return None
        recorded = result.config if result else determining(self.config())
        values = determining(config)
        differing = sorted(
            key
            for key in values.keys() | recorded.keys()
            if json.dumps(values.get(key)) != json.dumps(recorded.get(key))  # 1 and 1.0 differ
        )
        if differing:
            raise ConfigError(
                f"runs_dir: {self.path} holds a run with other values of {', '.join(differing)}; "
                "delete that folder or choose another runs_dir"
            )
        return result

    def config(self) -> DictConfig:
        """Read the config that the run was begun with."""
        return cast("DictConfig", OmegaConf.load(self.config_file))

    @contextmanager
    def begin(self, config: DictConfig, hydra: HydraConf) -> Iterator[None]:
        """Write ``.hydra/``; remove all new files if the run fails before its first checkpoint."""
        before = set(self.path.iterdir())
        for name, values in (("hydra", hydra), ("overrides", hydra.overrides.task)):
            write_whole(self.config_file.with_name(f"{name}.yaml"), OmegaConf.to_yaml(values))
        write_whole(self.config_file, OmegaConf.to_yaml(config))
        try:
            yield
        except Exception:
            new = () if self.last_checkpoint.exists() else set(self.path.iterdir()) - before
            for place in new:
                shutil.rmtree(place) if place.is_dir() else place.unlink()
            raise

    def epochs_done(self) -> int:
        """Return the number of epochs before the last checkpoint; 0 without one."""
        if not self.last_checkpoint.exists():
            return 0
        state = read_checkpoint(self.last_checkpoint)
        if not state.get("optimizer_states"):
            raise ConfigError(f"runs_dir: no training can resume from {self.last_checkpoint}")
        return int(state["epoch"]) + 1


def describe(device: torch.device) -> str:
    """Return a device's name for a record."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(named, platform.processor() or platform.machine())
    return f"{device.type}, {processor}, {torch.get_num_threads()} of its cores"


@cache
def code() -> str:
    """Return a checksum of the code that trains."""
    digest = hashlib.sha256()
    for file in sorted(file for part in TRAINS for file in (PACKAGE / part).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def commit() -> str:
    """Return the git commit of the code, with "+" if it was changed since; "" without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", f"{PACKAGE.name}/__init__.py"):
            return ""
        changed = git("status", "--porcelain", "--", PACKAGE.name, "conf", "hydra_plugins")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on, by name."""
    known = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
        "mnist_imbalance": mnist_imbalance.__version__,
        "code": code(),
    }
    return known | ({"git": commit()} if commit() else {})
