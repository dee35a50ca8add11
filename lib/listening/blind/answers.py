"""Answers of participants on disk before the next page: a file of JSON lines each, and nothing else to keep in step."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lib import UserError
from lib.store.files import file_lock

CODE = re.compile(r"[A-Z0-9_-]{2,64}")
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
Check = Callable[[list[dict]], object]


class Refused(Exception):
    """What a participant sent is not taken; the text is a key of ``words.json``."""


class Answers:
    """The events of one participant: ``FOLDER/CODE.jsonl``, a JSON object a line, each with ``time`` and ``kind``.

    `append` writes one whole line under a lock and flushes it to disk before it returns; readers drop a line that a
    power failure cut. Raises: Refused if the code is not 2 to 64 letters, digits, "-" and "_".
    """

    def __init__(self, folder: Path, code: str):
        self.code = code.strip().upper()
        if not CODE.fullmatch(self.code):
            raise Refused("no code")
        self.folder, self.path = folder, folder / f"{self.code}.jsonl"

    @classmethod
    def of_new(cls, folder: Path) -> Answers:
        """Answers under a random code that nobody has."""
        while (answers := cls(folder, "".join(secrets.choice(ALPHABET) for _ in range(5)))).path.exists():
            continue
        return answers

    def append(self, kind: str, check: Check = lambda events: {}, **facts: object) -> None:
        """Append an event, with what ``check`` returns on the events so far, which it may refuse.

        Raises: what ``check`` raises; OSError if the disk does not take it: then the file is as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / "lock"):
            facts |= check(self.events()) or {}
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"time": now, "kind": kind, **facts}, ensure_ascii=False).encode() + b"\n"
            with open(self.path, "a+b", buffering=0) as file:
                whole = _whole(self.path)
                file.truncate(whole)
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(whole)
                    raise
            if not whole:
                _flush_folder(self.folder)

    def events(self) -> list[dict]:
        """All events in order; none if there is no file. Raises: UserError if the file is damaged."""
        return read(self.path) if self.path.exists() else []


def read(path: Path) -> list[dict]:
    """The events of a file. Raises: UserError if it does not hold any, naming the line."""
    events = []
    for number, line in enumerate(path.read_bytes()[: _whole(path)].splitlines(), 1):
        try:
            event = json.loads(line)
            events.append({"kind": event["kind"], **event})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(f"{path}: line {number} is no event of a listening test: repair or remove it") from None
    return events


def rarest_part(folder: Path, parts: int) -> int:
    """The part of a test that the fewest participants have."""
    taken = [part_of(events) for path in folder.glob("*.jsonl") if (events := read(path))]
    return min(range(parts), key=taken.count)


def part_of(events: Sequence[dict]) -> int:
    """The part of the test that a participant has. Raises: LookupError if they have not begun."""
    return next(iter(events[:1]), {})["part"]


def _whole(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def _flush_folder(folder: Path) -> None:
    """So that a new file is found after a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
