"""What a user can mend, told in one line."""

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


def as_config_error(error: ValidationError, prefix: str = "") -> ConfigError:
    """Return an error that names, for every mistake, the key, what would be right and the value."""
    return ConfigError(
        "; ".join(
            f"{prefix}{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}, "
            f"got {mistake['input']!r}"
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
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


EXPECTED = (ConfigError, HydraException, OmegaConfBaseException, OSError, BrokenExecutor)


def one_line(error: BaseException) -> str:
    """Return in one line what the user can mend."""
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
    """Return in one line why a job failed; print the traceback of what is no user's mistake."""
    if not isinstance(error, EXPECTED):
        traceback.print_exception(error)
    return one_line(error)
