"""One-line error messages for a full disk, with the remedy."""

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
    errno.EIO: ("the disk fails to read or write", "check it (dmesg)"),
}
"""Problem and remedy by error number."""
FULL = 1 << 20
"""Free bytes below which any failure counts as a lack of space."""


def fault(error: Exception | str, folder: Path) -> str:
    """The message for a disk fault in ``folder``, or "" for any other ``error`` (an exception or its message)."""
    number, where = getattr(error, "errno", None), getattr(error, "filename", None) or folder
    if number not in FAULTS:
        number = next((known for known in FAULTS if os.strerror(known) in str(error)), None)
        where = folder
    if number is None and _free(folder) < FULL:
        number = errno.ENOSPC
    if number is None:
        return ""
    what, remedy = FAULTS[number]
    return f"{where}: {what}: {remedy}, then the same call resumes from the last checkpoint"


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
