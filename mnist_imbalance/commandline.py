"""What the command lines share: the place of the configs, and a user's mistake in one line."""

import argparse
import copy
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext
from errno import ENAMETOOLONG
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_imbalance.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"
EXPECTED = (ConfigError, HydraException, OmegaConfBaseException, OSError, BrokenExecutor)
STOPPED = "stopped; the same command goes on from the last whole epoch"
SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def one_line(error: BaseException) -> str:
    """Say in one line what the user can mend."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        message = f"{group}: no choice {choice}; there are {', '.join(error.options)}"
    elif isinstance(error, OverrideParseException):
        message = f"{error.override}: {message}"
    elif isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        message = f"{message} {error.__cause__}"
    elif isinstance(error, BrokenExecutor):
        message = "a job's process was killed, perhaps for memory; the same command does the rest"
    elif isinstance(error, OSError) and error.errno == ENAMETOOLONG:
        message = "a value is too long to name the run's folder; put it into a file below conf/"
    elif isinstance(error, OSError) and error.filename:
        message = f"runs_dir: {error.filename}: {error.strerror}"
    elif not isinstance(error, EXPECTED):
        message = f"{type(error).__name__}: {message}"
    return " ".join(message.partition("object_type=")[0].split())


def explain(error: Exception) -> str:
    """Say in one line why a job failed, under the traceback if that is no user's mistake."""
    if not isinstance(error, EXPECTED):
        traceback.print_exception(error)
    return one_line(error)


def compose_with(
    overrides: Sequence[str], *, name: str = "train", with_hydra: bool = False
) -> DictConfig:
    """Compose ``conf/<name>.yaml`` as a command line would, with Hydra's own part or not."""
    in_hydra = GlobalHydra.instance().is_initialized()  # in a job, whose conf/ is the same
    with nullcontext() if in_hydra else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=with_hydra)


def take_apart(config: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Split a config that was composed with Hydra's part as Hydra does before it calls a job.

    Returns:
        The job's config, and Hydra's own, which from now on is the process's.
    """
    HydraConfig.instance().set_config(config)
    task = copy.deepcopy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task, HydraConfig.get()


def overrides_from_arguments(description: str | None, name: str = "train") -> list[str]:
    """Read a command line that takes overrides of ``conf/<name>.yaml`` and nothing else."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"keys and their defaults:\n\n{OmegaConf.to_yaml(compose_with([], name=name))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change these keys")
    overrides: list[str] = parser.parse_args().overrides
    return overrides


def hush_libraries() -> None:
    """Silence what no user can act on, here and in the jobs of a parallel sweep."""
    # conf/hydra/launcher/joblib.yaml shares the name of its plugin's own config on purpose
    same_name = r"\s*'hydra/launcher/joblib' is validated against ConfigStore schema"
    warnings.filterwarnings("ignore", same_name)
    # Lightning 2.6 with torch >= 2.13
    tree = "lightning.pytorch.utilities._pytree"
    warnings.filterwarnings("ignore", module=tree)
    in_jobs = f"ignore::UserWarning:multiprocessing.process,ignore:::{tree}"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors on to us instead of printing them
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), in_jobs]))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's mistake into one line and exit code 1, unless HYDRA_FULL_ERROR=1."""
    try:
        yield
    except EXPECTED as error:
        if SHOW_TRACEBACKS:
            raise
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
