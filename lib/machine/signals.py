"""SIGTERM and SIGUSR1 as a wish to stop, as schedulers send them before they end a job.

Within `deferred` a signal is noted, and whoever works there asks `wanted` between two steps; outside, it raises.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """Work was ended by a signal; the message is one line that says what is kept."""


_noted: list[str] = []
_deferring: list[bool] = []


def listen() -> None:
    """Take `SIGNALS` from now on; without this call nothing here changes what they do."""
    for number in SIGNALS:
        signal.signal(number, _note)


def stop_requested() -> str:
    """The name of the first signal that came, or ""."""
    return _noted[0] if _noted else ""


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, signals are noted only."""
    _deferring.append(True)
    try:
        yield
    finally:
        _deferring.pop()


def _note(number: int, frame: object) -> None:
    _noted.append(signal.Signals(number).name)
    if not _deferring:
        raise Stopped(f"stopped by {_noted[0]} outside of training: the same call starts there again")
