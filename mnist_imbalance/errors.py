"""What a user can mend, told in one line."""

import re
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from errno import ENAMETOOLONG

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

STOPPED = "stopped; the same command goes on from the last whole epoch"


class ConfigError(ValueError):
    """A value that cannot work; the text is one line that names the config key."""


def no_such_key(key: str | int) -> str:
    """Say that there is no such key at the top of a config, and what to write instead, if known."""
    instead = {
        "ckpt_path": "; the same command goes on from the last checkpoint in the run's folder",
    }
    return f"{key}: there is no such key{instead.get(str(key), '')}"


def as_config_error(error: ValidationError, prefix: str = "") -> ConfigError:
    """Return an error that names, for every mistake, the key, what would be right and the value."""
    return ConfigError(
        "; ".join(
            no_such_key(f"{prefix}{mistake['loc'][0]}")
            if mistake["type"] == "extra_forbidden" and len(mistake["loc"]) == 1
            else f"{prefix}{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}"
            + ("" if mistake["type"] == "missing" else f", got {mistake['input']!r}")
            for mistake in error.errors()
        )
    )


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Turn what a part of the config is refused for into one line that names its key.

    Raises:
        ConfigError: The block raises what a wrong value gives.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValidationError as error:
        raise as_config_error(error, prefix=f"{key}.") from error
    except Exception as error:  # a part of the user's own can fail in any way
        told = " ".join(str(error).split())
        if not told or not isinstance(error, ValueError | TypeError | ImportError):
            told = f"{type(error).__name__}: {told}"
        raise ConfigError(f"{key}: {told}") from error


EXPECTED = (ConfigError, HydraException, OmegaConfBaseException, OSError, BrokenExecutor)


def raised_in(error: BaseException) -> str:
    """Return the name of the package whose code raised an error."""
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    return str(last.tb_frame.f_globals["__name__"]).partition(".")[0] if last else ""


def can_be_mended(error: BaseException) -> bool:
    """Tell whether it was the user's config that could not be composed or cannot work.

    What Hydra, its libraries and Lightning raise themselves comes of an override or a file in
    conf/; joblib passes on what was raised in its processes, Ray tells why it did not start, and
    submitit what Slurm refused.
    """
    theirs = {"hydra", "omegaconf", "yaml", "antlr4", "joblib", "lightning", "ray", "submitit"}
    return isinstance(error, EXPECTED) or raised_in(error) in theirs


def one_line(error: BaseException) -> str:
    """Return in one line what the user can mend."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        message = f"{group}: no choice {choice}; there are {', '.join(error.options)}"
    elif isinstance(error, OverrideParseException):
        message = f"{error.override}: {message}"
    elif at_the_top := re.match(r"Could not override '(\w+)'", message):
        message = no_such_key(at_the_top[1])
    elif isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        message = f"{message} {error.__cause__}"
    elif isinstance(error, BrokenExecutor):
        message = "a job's process was killed, perhaps for memory; the same command does the rest"
    elif isinstance(error, OSError) and error.errno == ENAMETOOLONG:
        message = "a value is too long to name the run's folder; put it into a file below conf/"
    elif isinstance(error, OSError) and error.filename:
        message = f"runs_dir: {error.filename}: {error.strerror}"
    elif not isinstance(error, EXPECTED):
        keys = {"lightning": "trainer, callbacks: ", "submitit": "hydra.launcher: "}.get(
            raised_in(error), ""
        )
        message = f"{keys}{type(error).__name__}: {message}"
    return " ".join(message.partition("object_type=")[0].split())


def explain(error: Exception) -> str:
    """Return in one line why a job failed; print the traceback of what is no user's mistake."""
    if not can_be_mended(error):
        traceback.print_exception(error)
    return one_line(error)
