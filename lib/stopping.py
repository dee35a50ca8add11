"""SIGTERM and SIGUSR1 as a wish to stop, as schedulers send them before they end a job.

Within `deferred` a signal is noted, and whoever works there asks `wanted` between two steps; outside, it raises.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """Work was ended by a signal; the message is one line that says what is kept."""


_noted: list[str] = []
_deferring: list[bool] = []


def listen() -> None:
    """Take `SIGNALS` from now on; without this call nothing here changes what they do."""
    for number in SIGNALS:
        signal.signal(number, _note)


def wanted() -> str:
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


def heed_parent_alone(worker: int = 0) -> None:
    """Have this process, a worker of a data loader, end by its parent's SIGTERM and by no one else's.

    Schedulers signal whole groups of processes: the workers are still needed for the step that is under way.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def watch() -> None:
        while True:
            came = signal.sigwaitinfo(SIGNALS)
            if came.si_signo == signal.SIGTERM and came.si_pid == os.getppid():
                os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def end_with_parent() -> None:
    """Let this process end when the one that started it is gone, even by a kill, and by no Ctrl-C of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and says so once

    def watch() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
