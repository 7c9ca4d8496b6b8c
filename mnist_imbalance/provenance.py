"""What a record says about the machine and the code that made it."""

import hashlib
import platform
import subprocess
from functools import cache
from pathlib import Path

import lightning
import torch
import torchvision

import mnist_imbalance


def processor() -> str:
    """Return the processor's name as its maker gives it, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def describe(device: torch.device, number: int = 1) -> str:
    """Return a device's name as a reader of the record would give it, and how many there are."""
    each = f", {number} processes" if number > 1 else ""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}{each}"
    return f"{device.type}, {processor()}, {torch.get_num_threads()} of its cores{each}"


@cache
def code() -> str:
    """Return a checksum of the code that trains: the package's, but for the report's."""
    package = Path(mnist_imbalance.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        if "report" not in file.relative_to(package).parts:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def commit() -> str | None:
    """Return the git commit that the code is at, "+" behind it where the code was changed since.

    None where the package does not lie in a git repository of its own.
    """
    package = Path(mnist_imbalance.__file__).parent
    git = ["git", "-C", str(package.parent)]

    def ask(*arguments: str) -> str:
        asked = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True)
        return asked.stdout.strip()

    try:
        if not ask("ls-files", "--", f"{package.name}/__init__.py"):
            return None
        changed = ask("status", "--porcelain", "--", package.name, "conf", "hydra_plugins")
        return ask("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of what a run's numbers depend on, by name."""
    known = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
        "mnist_imbalance": mnist_imbalance.__version__,
        "code": code(),
    }
    at = commit()
    return known | ({"git": at} if at else {})
