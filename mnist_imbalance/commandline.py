"""What the command lines share: the place of the configs, and a user's mistake in one line."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from mnist_imbalance.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"
EXPECTED = (ConfigError, HydraException, OmegaConfBaseException, OSError)


def one_line(error: BaseException) -> str:
    """Say in one line what the user can mend."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: no choice {choice}; there are {', '.join(error.options)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        lines = [*str(error).splitlines(), *str(cause).splitlines()]
        return " ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if isinstance(error, OSError):
        return f"runs_dir: cannot write {error.filename} ({error.strerror})"
    return f"{type(error).__name__}: {error}"


def hush_libraries() -> None:
    """Silence two warnings that no user can act on, here and in the jobs of a parallel sweep."""
    # conf/hydra/launcher/joblib.yaml shares the name of its plugin's own config on purpose
    same_name = r"\s*'hydra/launcher/joblib' is validated against ConfigStore schema"
    warnings.filterwarnings("ignore", same_name)
    # Lightning 2.6 with torch >= 2.13
    tree = "lightning.pytorch.utilities._pytree"
    warnings.filterwarnings("ignore", module=tree)
    in_jobs = f"ignore::UserWarning:multiprocessing.process,ignore:::{tree}"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), in_jobs]))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's mistake into one line and exit code 1; HYDRA_FULL_ERROR=1 shows all."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand errors on instead of printing them
    try:
        yield
    except EXPECTED as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last whole epoch")
