"""Worker processes: a pool that survives the death of one, and how workers end."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import NamedTuple

from pebble import ProcessExpired, ProcessPool

from lib import UserError
from lib.machine.signals import SIGNALS


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


def ended(code: int | None) -> str:
    """How a process ended, by its exit status, of which a signal is the negative."""
    if code is None or code >= 0:
        return f"ended with status {code}"
    return f"was ended by {signal.Signals(-code).name}" + ", most likely for lack of memory" * (code == -signal.SIGKILL)


ATTEMPTS, PATIENCE = 2, 600.0
"""How often an item may end the process that works on it, and seconds that it may take."""


class Crash(NamedTuple):
    """In place of a result: the item ended every process that was given it."""

    reason: str


def in_processes(function: Callable, items: Sequence, workers: int) -> Iterator[tuple[int, object]]:
    """(index, ``function(item)``) as they are done, in processes of their own; function and items must be picklable.

    An item whose process dies, or takes longer than `PATIENCE`, is tried `ATTEMPTS` times, then its result is a
    `Crash`: a fault in a decoder costs one file. Exceptions of ``function`` are raised here. Raises: UserError if a
    process ends before it takes an item.
    """
    todo, attempts, running = deque(range(len(items))), Counter(), {}
    workers = max(1, min(workers, len(items)))
    # spawned: forked copies of a process with threads may hang
    pool = ProcessPool(workers, initializer=_start_worker, context=multiprocessing.get_context("spawn"))
    try:
        while todo or running:
            while todo and len(running) < 2 * workers:
                index = todo.popleft()
                running[pool.schedule(function, [items[index]], timeout=PATIENCE)] = index
            for future in concurrent.futures.wait(running, return_when="FIRST_COMPLETED").done:
                index, result = running.pop(future), _result(future)
                attempts[index] += 1
                if isinstance(result, Crash) and attempts[index] < ATTEMPTS:
                    todo.appendleft(index)
                else:
                    yield index, result
    except RuntimeError as error:
        if pool.active:  # an error of the function's own
            raise
        raise UserError("a worker process ended before its first item: is memory short? Call again") from error
    finally:
        pool.stop()
        pool.join()


def _start_worker() -> None:
    end_with_parent()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders report every bad frame there, between the lines of the bar


def _result(future: concurrent.futures.Future) -> object:
    try:
        return future.result()
    except ProcessExpired as error:
        end = ended(error.exitcode)
    except TimeoutError:
        end = f"took longer than {PATIENCE:g} s"
    return Crash(f"the process that decoded it {end}, {ATTEMPTS} times")
