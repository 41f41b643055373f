"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from btp_reconcile.core.errors import UsageError

PRIVATE, PUBLIC = 0o600, 0o644


def check(file: str, option: str) -> None:
    """Find out before anything is asked whether a file can be where an option wants it."""
    path = Path(file)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"{option}: {file} is a folder; name a file in it"
            if path.is_dir()
            else f"{option}: there is no folder {path.parent}; make it first"
        )


def write(path: Path, text: str, mode: int = PRIVATE) -> None:
    """A whole file or none. A pipe or a device is written to, never replaced."""
    data = text.encode()
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(data)
        return
    real = path.resolve()  # a link stays a link
    descriptor, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(real)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
