"""Training on all GPUs of this machine from one process, a notebook's: torchrun's module is called, and waited for."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from lib import ROOT, UserError
from lib.machine.devices import on_gpu
from lib.machine.distributed import world
from lib.profile.fields import Compute, Profile
from lib.profile.load import to_dict

GRACE = 120
"""Seconds that processes have to write a checkpoint when this one is interrupted."""


def processes(compute: Compute, batch: int) -> int:
    """How many processes train a run: as many GPUs as share a batch equally; 1 within a job of several already.

    Several runs at a time (``compute.jobs``) share the machine as they are.
    """
    if compute.jobs > 1 or world() != (1, 1) or not on_gpu(compute):
        return 1
    return max(count for count in range(1, torch.cuda.device_count() + 1) if batch % count == 0)


def spread(profile: Profile, batch: int, arguments: Sequence[str], here: Callable[[], None]) -> None:
    """Train by `lib.pipeline.train` with ``arguments`` on all GPUs, or ``here`` where one process is all there can be.

    Raises: UserError if the processes failed.
    """
    count = processes(profile.compute, batch)
    if count == 1:
        here()
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.yaml"
        file.write_text(yaml.safe_dump(to_dict(profile)), "utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "lib.pipeline.train", "--profile", str(file), *arguments]
        status = _wait(subprocess.Popen(command, cwd=ROOT))
    if status:
        raise UserError(
            f"{shlex.join(arguments)}: training on {count} GPUs ended with status {status}, see the messages above; "
            "the same call resumes from the last checkpoint"
        )


def _wait(process: subprocess.Popen) -> int:
    """The exit status; an interruption here is passed on, so that a checkpoint is written and no process is left."""
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait(GRACE)
        raise
