"""What the command lines share: help texts, a user's mistake in one line, and their end."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mnist_imbalance import config as configs
from mnist_imbalance.config import check_installed, compose_with
from mnist_imbalance.errors import STOPPED, ConfigError, can_be_mended, one_line

SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def program() -> str | None:
    """Return how the command was called, ``python -m package.module``; None where by its file."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None


def overrides_from_arguments(description: str | None, name: str = "train") -> list[str]:
    """Read a command line that takes overrides of ``conf/<name>.yaml`` and nothing else."""
    parser = argparse.ArgumentParser(
        prog=program(),
        description=description,
        epilog=f"keys and their defaults:\n\n{OmegaConf.to_yaml(compose_with([], name=name))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change these keys")
    parser.add_argument("--config-dir", type=Path, help="one more folder like conf/")
    given = parser.parse_args()
    if not given.config_dir:
        return list(given.overrides)
    return [f"hydra.searchpath=['file://{given.config_dir.absolute()}']", *given.overrides]


def hush_libraries() -> None:
    """Silence what no user can act on, here and in the jobs of a parallel sweep."""
    # Lightning 2.6 with torch >= 2.13
    tree = "lightning.pytorch.utilities._pytree"
    warnings.filterwarnings("ignore", module=tree)
    in_jobs = f"ignore::UserWarning:multiprocessing.process,ignore:::{tree}"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors on to us instead of printing them
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), in_jobs]))


def check_choices(arguments: Iterable[str]) -> None:
    """Refuse what names no choice, behind a config group's name.

    Raises:
        ConfigError: An argument does.
    """
    given = [each for each in arguments if "=" in each and not each.startswith("-")]
    for override in OverridesParser.create().parse_overrides(given):
        group = override.key_or_group
        if not (configs.CONF / group).is_dir() or override.is_sweep_override():
            continue
        value = override.value()
        names: list[Any] = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{override.input_line}: must be the name of a choice, or [a,b]")
        for name in names if group == "hydra/launcher" else ():
            check_installed(name)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's mistake into one line and exit code 1, unless HYDRA_FULL_ERROR=1."""
    try:
        yield
    except Exception as error:
        if SHOW_TRACEBACKS or not can_be_mended(error):
            raise
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def uses_ray() -> bool:
    """Tell whether this process has joined a cluster of Ray's."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@contextmanager
def leaving_ray() -> Iterator[None]:
    """End this process here if it uses Ray and its jobs have all ended.

    Ray's threads outlive Python, and now and then end the process by a segmentation fault, so that
    a shell takes a command that did all for one that failed. What Ray has started for this process
    alone ends with it, within seconds.
    """
    told: str | int | None = None
    try:
        yield
    except SystemExit as ended:
        if ended.code == STOPPED or not uses_ray():
            raise
        told = ended.code
    if uses_ray():
        if isinstance(told, str):
            print(told, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if told else 0)


def start(job: Callable[[], Any]) -> None:
    """Do the job that Hydra composes from the command line, whose mistakes are one line each."""
    hush_libraries()
    with leaving_ray(), one_line_errors():
        check_choices(sys.argv[1:])
        job()
