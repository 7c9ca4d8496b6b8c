"""A run folder: its lock, config and checkpoint; and the code and machine that made it."""

import hashlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pydoc import locate
from typing import Any, cast

import lightning
import torch
import torchvision
from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

import mnist_imbalance
from mnist_imbalance.config import PACKAGE, targets_of
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records.identity import hash_config, result_config
from mnist_imbalance.records.result import Result, read_record, write_whole

CODE = ("data/", "models/", "methods/", "training/", "sweeps/batched.py", "sweeps/stacked.py")
INSTALLED = {"site-packages", "dist-packages"}  # where pip and Debian put what nobody edits


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which need not exist."""
    file = folder / ".lock"
    with naming("runs_dir"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file, timeout=0):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
    except Timeout as error:
        raise ConfigError(f"runs_dir: another process is at work in {folder}") from error


class RunFolder:
    """A folder with one run, finished or not; it need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        self.result_file = path / "result.json"
        self.config_file = path / ".hydra" / "config.yaml"

    def result(self) -> Result | None:
        """Read ``result.json``; None if the run is not complete."""
        return read_record(self.path)

    def result_of(self, config: DictConfig) -> Result | None:
        """Read the result of this config's run; refuse another config's run."""
        result = self.result()
        if not result and not self.config_file.exists():
            return None
        recorded = result.config if result else result_config(self.config())
        values = result_config(config)
        keys = sorted(values.keys() | recorded.keys())
        if differing := [key for key in keys if values.get(key) != recorded.get(key)]:
            other = f"{self.path} holds a run with other values of {', '.join(differing)}"
            raise ConfigError(f"runs_dir: {other}; delete it or choose another runs_dir")
        return result

    def config(self) -> DictConfig:
        """Read the config that the run was begun with."""
        return cast("DictConfig", OmegaConf.load(self.config_file))

    @contextmanager
    def begin(self, config: DictConfig, hydra: HydraConf) -> Iterator[None]:
        """Write ``.hydra/``; remove all new files if the run fails before its first checkpoint."""
        before = {*self.path.iterdir()}
        for name, values in (("hydra", hydra), ("overrides", hydra.overrides.task)):
            write_whole(self.config_file.with_name(f"{name}.yaml"), OmegaConf.to_yaml(values))
        write_whole(self.config_file, OmegaConf.to_yaml(config, resolve=True))
        try:
            yield
        except Exception:
            if not self.last_checkpoint.exists():
                for place in {*self.path.iterdir()} - before:
                    shutil.rmtree(place) if place.is_dir() else place.unlink()
            raise

    def checkpoint(self, name: str = "last") -> dict[str, Any]:
        """Read a checkpoint, on the CPU; training resumes from the last one, if it has "loops"."""
        file = self.last_checkpoint.with_stem(name)
        again = "delete the run's folder and train it again"
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load fails in many ways
            problem = "damaged" if file.exists() else "missing (best: callbacks=checkpoint_best)"
            raise ConfigError(f"runs_dir: {file} is {problem}; {again}") from error
        if "history" not in state:
            raise ConfigError(f"runs_dir: {file} is of another program; {again}")
        own = hash_config(result_config(self.config())) if self.config_file.exists() else None
        if own and state.get("config_hash", own) != own:
            raise ConfigError(f"runs_dir: {file} is of another run; {again}")
        return state

    def epochs_done(self) -> int:
        """Return the number of epochs from which training resumes; 0 without a checkpoint."""
        if not self.last_checkpoint.exists():
            return 0
        state = self.checkpoint()
        return int(state["epoch"]) + 1 if "loops" in state else 0  # none: trained side by side


def describe(device: torch.device) -> str:
    """Return a device's name for a record."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    info = Path("/proc/cpuinfo")
    named = info.exists() and re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8"))
    processor = named[1] if named else platform.processor() or platform.machine()
    return f"{device.type}, {processor}, {torch.get_num_threads()} of its cores"


def code(config: DictConfig) -> str:
    """Return a checksum of the code that trains: this package's, and a user's own parts."""
    files = [f for f in PACKAGE.rglob("*.py") if str(f.relative_to(PACKAGE)).startswith(CODE)]
    own = set()
    training = OmegaConf.masked_copy(config, [str(key) for key in config if key != "posthoc"])
    for path in targets_of(OmegaConf.to_container(training, resolve=True)):
        module = sys.modules.get(getattr(locate(path), "__module__", ""))
        file = Path(getattr(module, "__file__", None) or PACKAGE)
        if PACKAGE not in (file, *file.parents) and INSTALLED.isdisjoint(file.parts):
            own.add(file)
    digest = hashlib.sha256()
    for file in (*sorted(files), *sorted(own)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def commit() -> str:
    """Return the git commit of the code, with "+" if files were changed since; "" without git."""
    if not (PACKAGE.parent / ".git").exists() or not shutil.which("git"):
        return ""  # installed, perhaps below another repository
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--abbrev=40"]
    command += ["--exclude=*", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def versions(config: DictConfig) -> dict[str, str]:
    """Return the versions that a run's numbers depend on, by name."""
    libraries = (torch, torchvision, lightning, mnist_imbalance)
    known = {library.__name__: library.__version__ for library in libraries}
    known |= {"python": platform.python_version(), "code": code(config)}
    return known | ({"git": commit()} if commit() else {})
