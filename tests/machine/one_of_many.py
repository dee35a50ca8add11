"""`lib.pipeline.train` as torchrun or srun starts it, with what tests ask for by environment variables.

``FAULT`` = "STEP RANK SIGNAL": at a step, one process sends itself a signal (rank -1: each does, and the processes it
started get it too). ``READ_ONLY``: a folder in which all but the first process may write nothing.
"""

import os
import signal
import sys

from lib import training
from lib.pipeline import train

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}


def mine() -> int:
    """The number of this process."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def forbid_writing(event: str, arguments: tuple) -> None:
    written = event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
    if written and str(arguments[0]).startswith(os.environ["READ_ONLY"]):
        print(f"process {mine()} writes: {event} {arguments[0]}", file=sys.stderr, flush=True)
        os._exit(9)


def with_fault(rate):
    at, rank, name = os.environ["FAULT"].split()

    def learning_rate(stage, base, step):
        if step == int(at) and int(rank) in (mine(), -1):
            send = os.killpg if int(rank) < 0 else os.kill
            send(os.getpid(), signal.Signals[name])
        return rate(stage, base, step)

    return learning_rate


def main(arguments: list[str]) -> int:
    if mine() > 0 and "READ_ONLY" in os.environ:
        sys.addaudithook(forbid_writing)
    if "FAULT" in os.environ:
        training.learning_rate = with_fault(training.learning_rate)
    return train.main(arguments)


def forked(arguments: list[str], environment: dict[str, str], out: str) -> None:
    """`main` in a process of a fork server, a group of its own, with what it says in the file ``out``."""
    os.setsid()
    os.environ |= environment
    with open(out, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    status = main(arguments)
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
