"""How many examples of a training step fit a GPU: by a count on fake tensors (``python -m benchmarks.counted``)."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping

from lib import ROOT, UserError
from lib.profile.fields import Optimisation

STEPS = ROOT / "results" / "benchmarks" / "tables" / "steps.csv"
"""A row per size, stage and recompute: fixed_gib of memory, example_gib more an example; bf16, nothing compiled."""
GIB = 1 << 30
USABLE = 0.92
"""Usable share of a GPU's free memory; the rest goes to fragmentation and to the workspace of libraries."""


def counted(size: str, stage: str, sources: int, recompute: bool) -> Mapping[str, str] | None:
    """The row of `STEPS` for a published size, or None."""
    if not STEPS.exists():
        return None
    asked = {"size": size, "stage": stage, "sources": str(sources), "recompute": str(recompute)}
    with open(STEPS, newline="", encoding="utf-8") as file:
        return next((row for row in csv.DictReader(file) if asked.items() <= row.items()), None)


def step_gib(row: Mapping[str, str], examples: int, crop_seconds: float) -> float:
    """Peak memory in GiB of a step of ``examples`` crops."""
    return float(row["fixed_gib"]) + examples * float(row["example_gib"]) * crop_seconds / float(row["crop_seconds"])


def fitting(row: Mapping[str, str], capacity: int, crop_seconds: float) -> int:
    """The largest number of examples whose step fits ``capacity`` bytes, or 0."""
    fixed = step_gib(row, 0, crop_seconds)
    return max(0, math.floor((USABLE * capacity / GIB - fixed) / (step_gib(row, 1, crop_seconds) - fixed)))


def parts(stage: Optimisation, share: int, processes: int, fits: int) -> int:
    """The ``accumulate`` of a stage, or more, for a process's ``share`` of a batch to be taken ``fits`` at a time."""
    return max(stage.accumulate, math.ceil(share / max(fits, 1)) * processes)


def halved(stage: Optimisation, share: int, processes: int) -> int:
    """The ``accumulate`` to go on with after `torch.OutOfMemoryError` in a step.

    Raises: UserError if one example is too much, or if other processes would have to be told.
    """
    name, had = type(stage).__name__.lower(), math.ceil(share / math.ceil(stage.accumulate / processes))
    if had == 1:
        raise UserError(
            f"{name}: GPU memory ran out with one example: set compute.recompute=true, or a shorter {name}.crop_seconds"
        )
    accumulate = math.ceil(share / math.ceil(had / 2)) * processes
    if processes > 1:
        raise UserError(
            f"{name}: GPU memory ran out with {had} examples at a time: set {name}.accumulate={accumulate} for smaller "
            f"parts of a batch of {stage.batch}, or compute.recompute=true: the run resumes from its checkpoint"
        )
    print(f"{name}: {had} examples at a time do not fit GPU memory: {name}.accumulate={accumulate}", file=sys.stderr)
    return accumulate
