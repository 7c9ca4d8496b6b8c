"""What a user can mend, told in one line."""

from pydantic import ValidationError


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
