"""A full disk or a full GPU, told in one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lib import UserError
from lib.profile.fields import Optimisation

if TYPE_CHECKING:  # takes seconds, which a wrong call should not wait for: whoever runs out of memory has it
    import torch

FAULTS = {
    errno.ENOSPC: ("no space left", "free some"),
    errno.EDQUOT: ("the disk quota is used up", "free some"),
    errno.EFBIG: ("the limit of a file's size is reached", "raise it (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EIO: ("the disk fails to read or write", "look after it"),
}
"""What is wrong, and what to do, by error number."""
FULL = 1 << 20
"""Free bytes below which whatever failed is said to have failed for lack of space."""


def fault(error: Exception | str, folder: Path) -> str:
    """The line that tells of a fault of the disk that ``folder`` lies on, or "" if the error comes from something else.

    ``error`` is an exception or its message.
    """
    number, where = getattr(error, "errno", None), getattr(error, "filename", None) or folder
    if number not in FAULTS:
        told = (known for known in FAULTS if os.strerror(known) in str(error))
        number, where = next(told, None), folder
    if number is None and _free(folder) < FULL:
        number = errno.ENOSPC
    if number is None:
        return ""
    what, remedy = FAULTS[number]
    return f"{where}: {what}: {remedy}, then the same call goes on from the last checkpoint"


def _free(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


USABLE = 0.95
"""Share of the memory that is planned with: the rest goes to fragments."""


class Gauge:
    """Bytes of one GPU's memory."""

    def __init__(self, device: torch.device):
        self.device = device

    def capacity(self) -> int:
        """What this process has and could still get."""
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

    def peak(self, call: Callable[[], object]) -> int:
        """The most that is in use during ``call``, which starts with what the process holds already."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device)


def fitting(gauge: Gauge, step: Callable[[int], object], later: int = 0) -> int:
    """How many examples at a time fit: ``step`` takes their number, ``later`` bytes come on top of what it shows.

    0 if not even one does. Raises: whatever else ``step`` raises.
    """
    import torch

    peaks = []
    with contextlib.suppress(torch.OutOfMemoryError):
        for count in (1, 2):
            peaks.append(gauge.peak(lambda count=count: step(count)))
    if not peaks:
        return 0
    # where two do not fit, all that one takes may be its own: an estimate on the safe side
    each = peaks[1] - peaks[0] if len(peaks) == 2 else peaks[0]
    room = USABLE * gauge.capacity() - later - (peaks[0] - each)
    return max(0, math.floor(room / max(each, 1)))


def explained(stage: Optimisation, share: int, processes: int, fits: int) -> UserError:
    """The error for a process whose ``share`` of a batch did not fit, in as many parts as the profile says."""
    name = type(stage).__name__.lower()
    had = math.ceil(share / math.ceil(stage.accumulate / processes))
    if not 0 < fits < had:
        few = "not even one example fits" if fits == 0 else f"{fits} should fit by themselves: is the GPU shared?"
        return UserError(
            f"{name}: GPU memory ran out with {had} examples at a time; {few}: set compute.recompute=true, or a "
            f"shorter {name}.crop_seconds"
        )
    accumulate = math.ceil(share / fits) * processes
    return UserError(
        f"{name}: GPU memory ran out with {had} examples at a time; about {fits} fit: set "
        f"{name}.accumulate={accumulate} for smaller parts of a batch of {stage.batch}, or compute.recompute=true"
    )


def exhausted(
    fabric, task, optimiser, stage: Optimisation, batch: torch.Tensor, gauge: Gauge | None = None
) -> UserError:
    """What to tell after `torch.OutOfMemoryError` in a step over ``batch``: tries steps of one and two examples.

    ``task`` is a `lib.training.Task`, ``batch`` this process's share of a step.
    """
    import torch

    separator = task.separator
    weights = [value for value in separator.parameters() if value.requires_grad]
    moments = 0 if optimiser.state else 2 * sum(value.numel() * value.element_size() for value in weights)

    def step(count: int) -> None:
        # gradients that stay apart from the weights: other processes wait for those
        with fabric.autocast():
            loss = task.loss(separator, fabric.to_device(batch[:count])).mean()
        torch.autograd.grad(loss, weights)

    optimiser.zero_grad()
    fits = fitting(gauge or Gauge(fabric.device), step, moments)
    return explained(stage, len(batch), fabric.world_size, fits)
