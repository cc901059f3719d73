"""One writer for a workdir: a lock that ends with its process, however that ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from experiments.config.errors import ConfigError


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Holds `workdir` for this process; a second one is refused at once."""
    try:
        import fcntl
    except ImportError as error:  # no such locks on Windows
        raise ConfigError("training needs a POSIX system (Linux or macOS).") from error
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise ConfigError(
            f"workdir {str(workdir)!r} cannot be written ({error.strerror}); "
            "give another with --workdir."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ConfigError(
                f"workdir {str(workdir)!r} is in use by another process (pid {owner}); "
                "wait for it, or give another with --workdir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
