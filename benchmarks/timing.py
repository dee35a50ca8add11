"""Sides of a comparison, called in turn in one process under the same settings, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from lib.machine.devices import keep_freed_memory

Seconds = dict[str, np.ndarray]


def rounds(
    sides: Mapping[str, Callable[[], object]], repeats: int = 5, clock: Callable[[], float] = time.process_time
) -> Seconds:
    """Seconds of every side in each of ``repeats`` rounds in which all are called in turn, after one to warm up.

    All sides have this project's setting of the allocator (`lib.machine.devices.keep_freed_memory`), which serves the
    plain formulation as well, and the same threads. The default clock counts the seconds that this process computes:
    on one thread, what else the machine does hardly shows in them.
    """
    keep_freed_memory()
    seconds = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, call in sides.items():
            started = clock()
            call()
            seconds[name].append(clock() - started)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def medians(
    sides: Mapping[str, Callable[[], object]], repeats: int = 5, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of every side over `rounds`."""
    return {name: float(np.median(values)) for name, values in rounds(sides, repeats, clock).items()}


def machine() -> str:
    """Processor, cores in use, torch and its threads."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    bf16 = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    threads = torch.get_num_threads()
    counted = f"{threads} thread{'s' * (threads > 1)}"
    return f"{model} ({', '.join(bf16) or 'no bf16 units'}), {counted}, torch {torch.__version__}"


def load() -> float:
    """Processes that run on this machine, mean over the last minute: above the threads, sides wait for others."""
    return round(os.getloadavg()[0], 1)
