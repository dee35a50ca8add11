"""One-line error messages for a full disk and for a full GPU, with the remedy."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lib import UserError
from lib.profile.fields import Optimisation

if TYPE_CHECKING:  # importing torch takes seconds, and disk faults do not need it
    import torch

FAULTS = {
    errno.ENOSPC: ("no space left", "free some"),
    errno.EDQUOT: ("the disk quota is used up", "free some"),
    errno.EFBIG: ("the limit of a file's size is reached", "raise it (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EIO: ("the disk fails to read or write", "check it (dmesg)"),
}
"""Problem and remedy by error number."""
FULL = 1 << 20
"""Free bytes below which any failure counts as a lack of space."""


def fault(error: Exception | str, folder: Path) -> str:
    """The message for a disk fault in ``folder``, or "" for any other ``error`` (an exception or its message)."""
    number, where = getattr(error, "errno", None), getattr(error, "filename", None) or folder
    if number not in FAULTS:
        number = next((known for known in FAULTS if os.strerror(known) in str(error)), None)
        where = folder
    if number is None and _free(folder) < FULL:
        number = errno.ENOSPC
    if number is None:
        return ""
    what, remedy = FAULTS[number]
    return f"{where}: {what}: {remedy}, then the same call resumes from the last checkpoint"


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


USABLE = 0.95
"""Usable share of the memory; the rest is lost to fragmentation."""


class Gauge:
    """Memory of one GPU in bytes."""

    def __init__(self, device: torch.device):
        self.device = device

    def capacity(self) -> int:
        """Memory that this process holds or can still allocate."""
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

    def peak(self, call: Callable[[], object]) -> int:
        """Peak memory during ``call``, including what the process holds already."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device)


def fitting(gauge: Gauge, step: Callable[[int], object], later: int = 0) -> int:
    """The largest number of examples that fit at a time, or 0.

    ``step`` runs on that many examples; ``later`` bytes are allocated after it. Errors of ``step`` other than out of
    memory propagate.
    """
    import torch

    peaks = []
    with contextlib.suppress(torch.OutOfMemoryError):
        for count in (1, 2):
            peaks.append(gauge.peak(lambda count=count: step(count)))
    if not peaks:
        return 0
    # if two do not fit, the whole peak of one counts as the memory per example: a conservative estimate
    each = peaks[1] - peaks[0] if len(peaks) == 2 else peaks[0]
    room = USABLE * gauge.capacity() - later - (peaks[0] - each)
    return max(0, math.floor(room / max(each, 1)))


def parts_for(stage: Optimisation, share: int, processes: int, fits: int) -> int:
    """The ``accumulate`` with which a process's ``share`` of a batch fits.

    Raises: UserError if no such number is known, or if other processes would have to be told.
    """
    name = type(stage).__name__.lower()
    had = math.ceil(share / math.ceil(stage.accumulate / processes))
    if not 0 < fits < had:
        few = "not even one example fits" if fits == 0 else f"{fits} should fit: does another process use the GPU?"
        raise UserError(
            f"{name}: GPU memory ran out with {had} examples at a time; {few}: set compute.recompute=true, or a "
            f"shorter {name}.crop_seconds"
        )
    accumulate = math.ceil(share / fits) * processes
    if processes == 1:
        print(
            f"{name}: {had} examples at a time do not fit GPU memory: {name}.accumulate={accumulate}", file=sys.stderr
        )
        return accumulate
    raise UserError(
        f"{name}: GPU memory ran out with {had} examples at a time; about {fits} fit: set "
        f"{name}.accumulate={accumulate} for smaller parts of a batch of {stage.batch}, or compute.recompute=true: "
        "the run resumes from its checkpoint"
    )


def exhausted_by_validation(stage: Optimisation) -> UserError:
    """The error for a validation that did not fit, which takes less memory for an example than a step does."""
    name = type(stage).__name__.lower()
    return UserError(
        f"{name}: GPU memory ran out in validation with {stage.part} examples at a time: is the GPU shared? "
        f"Set {name}.accumulate={min(2 * stage.accumulate, stage.batch)} or more; the run resumes from its checkpoint"
    )


def parts_that_fit(
    fabric, task, optimiser, stage: Optimisation, batch: torch.Tensor, gauge: Gauge | None = None
) -> int:
    """The ``accumulate`` to go on with after `torch.OutOfMemoryError` in a step of a `lib.training.Task`.

    Runs steps of one and two examples of ``batch``, this process's share of a step. Raises: UserError, see `parts_for`.
    """
    import torch

    separator = task.separator
    weights = [value for value in separator.parameters() if value.requires_grad]
    moments = 0 if optimiser.state else 2 * sum(value.numel() * value.element_size() for value in weights)

    def step(count: int) -> None:
        # not backward(), whose gradient synchronisation waits for the other processes
        with fabric.autocast():
            loss = task.loss(separator, fabric.to_device(batch[:count])).mean()
        torch.autograd.grad(loss, weights)

    optimiser.zero_grad()
    fits = fitting(gauge or Gauge(fabric.device), step, moments)
    return parts_for(stage, len(batch), fabric.world_size, fits)
