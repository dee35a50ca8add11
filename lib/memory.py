"""When a GPU's memory does not suffice: how many examples would fit, from what one and two of them take."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from torch import nn

from lib import UserError
from lib.profile import Optimisation

USABLE = 0.95
"""Share of the memory that is planned with: the rest goes to fragments."""


class Gauge:
    """Bytes of one GPU's memory."""

    def __init__(self, device: torch.device):
        self.device = device

    def capacity(self) -> int:
        """What this process has and could still get."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

    def peak(self, call: Callable[[], object]) -> int:
        """The most that is in use during ``call``, which starts with what the process holds already."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device)


def fitting(gauge: Gauge, step: Callable[[int], object], later: int = 0) -> int:
    """How many examples at a time fit: ``step`` takes their number, ``later`` bytes come on top of what it shows.

    0 if not even one does. Raises: whatever else ``step`` raises.
    """
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
    separator: nn.Module = task.separator
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
