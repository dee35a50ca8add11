"""Two sides of a comparison, called in turn in one process, and the machine they ran on."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lib.machine.devices import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Side:
    """A call to time. ``keeps_memory``: with `lib.machine.devices.keep_freed_memory`, as all of this project runs."""

    call: Callable[[], object]
    keeps_memory: bool = True


def medians(sides: dict[str, Side], repeats: int = 5) -> dict[str, float]:
    """Median seconds of every side over ``repeats`` rounds in which all are called in turn, after one call to warm up.

    A side that keeps freed memory is called once more, untimed, in each round: the side before it gave it back.
    """
    seconds = {name: [] for name in sides}
    mixed = len({side.keeps_memory for side in sides.values()}) > 1
    for round_ in range(repeats + 1):
        for name, side in sides.items():
            keep_freed_memory() if side.keeps_memory else give_back_freed_memory()
            if mixed and side.keeps_memory and round_:
                side.call()
            started = time.perf_counter()
            side.call()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    keep_freed_memory()
    return {name: statistics.median(values) for name, values in seconds.items()}


def give_back_freed_memory() -> None:
    """Undo `lib.machine.devices.keep_freed_memory`: the thresholds that glibc's own adapt to with blocks of many MB.

    What is free now goes back at once, so that two sides need not fit into memory together.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 65536)
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
    libc.malloc_trim(0)


def machine() -> str:
    """Processor, cores in use, torch and its threads."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    bf16 = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    threads = torch.get_num_threads()
    return f"{model} ({', '.join(bf16) or 'no bf16 units'}), {threads} threads, torch {torch.__version__}"
