"""A user's mistakes, each in one line that names the config key."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

STOPPED = "stopped; run the same command again to resume from the last finished epoch"
SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # as the user set it: we set it, too


class ConfigError(ValueError):
    """A value that cannot work; the text is one line that names the config key."""


class OutOfTimeError(ConfigError):
    """A run that a limit of time has stopped, as it should."""


def as_config_error(error: ValidationError, prefix: str = "") -> ConfigError:
    """Return an error that names the key, the expectation and the value of every mistake."""
    lines = []
    for mistake in error.errors():
        first, *parts = map(str, mistake["loc"])  # pydantic adds the members of a union
        key = ".".join([prefix + first, *(part for part in parts if "-" not in part)])
        got = "" if mistake["type"].startswith("missing") else f", got {mistake['input']!r}"
        lines.append(f"{key}: {mistake['msg']}{got}")
    return ConfigError("; ".join(lines))


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Turn any error of a part into a ConfigError that names the part's key."""
    try:
        yield
    except ConfigError:
        raise
    except ValidationError as error:
        raise as_config_error(error, prefix=f"{key}.") from error
    except Exception as error:  # a user's own part can fail in any way
        text = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename:
            text = one_line(error)
        elif not text or not isinstance(error, ValueError | TypeError | ImportError | RuntimeError):
            text = f"{type(error).__name__}: {text}"
        raise ConfigError(f"{key}: {text}") from error


EXPECTED = (ConfigError, HydraException, OmegaConfBaseException, OSError)
LIBRARIES = {"hydra", "omegaconf", "yaml", "antlr4", "joblib", "lightning", "ray", "submitit"}


def raising_package(error: BaseException) -> str:
    """Return the name of the package whose code raised an error."""
    modules = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(modules[-1]).partition(".")[0] if modules else ""


def is_user_error(error: BaseException) -> bool:
    """Return whether a config, an override or the machine caused an error, not a bug of ours."""
    return isinstance(error, EXPECTED) or raising_package(error) in LIBRARIES


def one_line(error: BaseException) -> str:
    """Return a user error in one line."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        text = f"{group}: no choice {choice}; there are {', '.join(error.options)}"
    elif isinstance(error, OverrideParseException):
        text = f"{error.override}: {text}"
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif not isinstance(error, EXPECTED):
        keys = {"lightning": "trainer, callbacks: ", "submitit": "hydra.launcher: "}
        text = f"{keys.get(raising_package(error), '')}{type(error).__name__}: {text}"
    return " ".join(text.partition("object_type=")[0].split())


def describe_failure(error: Exception) -> str:
    """Return why a job failed, in one line; print the traceback of what is no user error."""
    if not is_user_error(error):
        traceback.print_exception(error)
    return one_line(error)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line and code 1 on a user error, unless HYDRA_FULL_ERROR=1."""
    try:
        yield
    except OutOfTimeError as stop:
        print(stop)
        sys.exit()
    except Exception as error:
        if SHOW_TRACEBACKS or not is_user_error(error):
            raise
        hint = "" if isinstance(error, EXPECTED) else " (HYDRA_FULL_ERROR=1 shows the traceback)"
        sys.exit(f"error: {one_line(error)}{hint}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
