"""Faults of a disk, in one line, whatever exception they came in: libraries tell of them in words of their own."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

FAULTS = {
    errno.ENOSPC: ("no space left", "free some"),
    errno.EDQUOT: ("the disk quota is used up", "free some"),
    errno.EFBIG: ("the limit of a file's size is reached", "raise it (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EIO: ("the disk fails to read or write", "look after it"),
}
"""What is wrong, and what to do, by error number."""
FULL = 1 << 20
"""Free bytes below which whatever failed is said to have failed for lack of space."""


def fault(error: Exception | str, folder: Path) -> str:
    """The line that tells of a fault of the disk that ``folder`` lies on, or "" if the error comes from something else.

    ``error`` is an exception or its message.
    """
    number, where = getattr(error, "errno", None), getattr(error, "filename", None) or folder
    if number not in FAULTS:
        told = (known for known in FAULTS if os.strerror(known) in str(error))
        number, where = next(told, None), folder
    if number is None and _free(folder) < FULL:
        number = errno.ENOSPC
    if number is None:
        return ""
    what, remedy = FAULTS[number]
    return f"{where}: {what}: {remedy}, then the same call goes on from the last checkpoint"


def _free(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
