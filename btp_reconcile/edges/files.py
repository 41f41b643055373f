"""Files that others name, read whole: regular ones only, and none that is larger than anything this program reads."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 256 * 1024 * 1024
"""Bytes, of what has no limit of its own. The plan of 20,000 things is some 20 MB, and reading takes a multiple of that."""

_PART = 1024 * 1024


def whole(path: str | Path, most: int = LARGEST) -> bytes:
    """What stands in a file. A device, a pipe or a folder is refused: what they hold may have no end.

    Raises OSError, in words, also for what is larger than `most`; and ValueError for what is no file name at all.
    """
    # Without waiting: to open a pipe that nobody writes to would never end.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        parts, left = [], most + 1
        while left and (part := stream.read(min(left, _PART))):  # room is made for as much as is asked for
            parts.append(part)
            left -= len(part)
        raw = b"".join(parts)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 1_000_000} MB", str(path))
    return raw
