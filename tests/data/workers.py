"""What worker processes are given in tests: a module of its own that imports nothing, so that they start at once."""

import os
import signal
import time
from pathlib import Path


def crash_on_1000(root, cache, rules, hop_seconds, path):
    """`lib.data.collection.look` with a decoder that crashes on one file."""
    from lib.data.collection import look

    if path.endswith("001000.mp3"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return look(root, cache, rules, hop_seconds, path)


def act(item):
    """(what to do, a value) -> the value and the process that had it, if it lives."""
    what, value = item
    if what == "crash" or (what == "crash once" and not Path(value).exists()):
        if what == "crash once":
            Path(value).touch()
        os.kill(os.getpid(), signal.SIGABRT)
    if what == "exit":
        os._exit(value)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError(value)
    return value, os.getpid()
