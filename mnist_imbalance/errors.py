"""What a user can mend, told in one line."""


class ConfigError(ValueError):
    """A value that cannot work; the text is one line that names the config key."""
