"""The one error that answers a value that no run can have."""


class ConfigError(ValueError):
    """A value that cannot be run, with what to do about it."""
