"""SIGTERM and SIGUSR1, which schedulers send before they end a job, as stop requests.

Within `deferred` a signal is only recorded, and training polls `stop_requested` between two steps; outside, it raises.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """A signal ended the work; the message says what is kept."""


_noted: list[str] = []
_deferring: list[bool] = []


def listen() -> None:
    """Install the handlers of `SIGNALS`."""
    for number in SIGNALS:
        signal.signal(number, _note)


def ignore() -> None:
    """Ignore `SIGNALS` from here on, in a process that is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop_requested() -> str:
    """The name of the first signal received, or ""."""
    return _noted[0] if _noted else ""


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Record signals instead of raising `Stopped`."""
    _deferring.append(True)
    try:
        yield
    finally:
        _deferring.pop()


def _note(number: int, frame: object) -> None:
    _noted.append(signal.Signals(number).name)
    if not _deferring:
        raise Stopped(f"stopped by {_noted[0]} outside of training: the same call resumes")
