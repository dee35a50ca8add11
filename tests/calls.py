"""Long calls of the project's commands, whose hangs can be read: what hangs says where before it is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from lib import ROOT


def finished(call: Sequence[str], log: Path, seconds: float, environment: dict[str, str] | None = None) -> str:
    """Make a call from the project's folder and return what it said, which goes to ``log``.

    Raises: AssertionError if it fails, or has not ended after so many seconds: all its processes, kernels in sessions
    of their own among them, then print their stacks and are killed.
    """
    variables = os.environ | {"PYTHONFAULTHANDLER": "1"} | (environment or {})
    with open(log, "w") as file:
        process = psutil.Popen(
            call, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        status = process.wait(seconds)
    except psutil.TimeoutExpired:
        status = f"no end within {seconds:.0f} s"
    finally:  # the test's own time may be over, too
        if process.is_running():
            _end([process, *process.children(recursive=True)])
    said = log.read_text("utf-8", "replace")
    assert status == 0, f"{' '.join(call)}: {status}\n{said[-12_000:]}"
    return said


def _end(processes: list[psutil.Process]) -> None:
    for number in (signal.SIGABRT, signal.SIGKILL):
        for process in processes:
            if process.is_running():
                process.send_signal(number)
        time.sleep(2)
