"""Atomic writes, file locks, JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from lib import UserError


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it, on error remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp creates files that only the owner can read
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_lock(path: Path) -> FileLock:
    """A blocking flock on ``path``, for a ``with`` block; the file persists, and a kill releases the lock.

    Raises: OSError on a file system without flock; RuntimeError if this thread already holds the lock.
    """
    return FileLock(path, preserve_lock_file=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fitted(name: str, suffix: str = "") -> str:
    """A relative path plus ``suffix`` as file systems take it: a part over 255 bytes is cut, and ends in its digest."""

    def part(text: str, room: int) -> str:
        content = os.fsencode(text)
        if len(content) <= room:
            return text
        return f"{content[: room - 9].decode('utf-8', 'ignore')}-{hashlib.sha256(content).hexdigest()[:8]}"

    *folders, last = name.split("/")
    return "/".join([*(part(folder, 255) for folder in folders), part(last, 255 - len(suffix)) + suffix])


def write_json(path: Path | str, content: object) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=plain) + "\n", encoding="utf-8")


def read_facts(path: Path, *needed: str) -> dict:
    """A JSON object of `write_json` with the ``needed`` keys. Raises: UserError if it is missing or damaged."""
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it, and the next run recreates it") from error
    missing = [key for key in needed if key not in facts] if isinstance(facts, dict) else ["map"]
    if missing:
        raise UserError(f"{path}: cannot be read (no {', '.join(missing)}); delete it, and the next run recreates it")
    return facts


def plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
