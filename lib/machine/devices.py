"""The machine: its processor and GPUs, precision and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lib.profile.fields import Compute

if TYPE_CHECKING:  # takes seconds, which a wrong call should not wait for
    import torch


def machine() -> dict:
    """CPU, cores, memory in GB and GPUs, without any name of the machine."""
    gpus = []
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        gpus = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": platform.system(), "cpu": cpu(), "cores": cores, "memory_gb": round(memory, 1), "gpus": gpus}


def cpu() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, IndexError):
        return re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)[0]
    return platform.processor() or platform.machine()


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Full precision on a device; "meta", of tensors without values, has no autocast and takes no question about it."""
    import torch

    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def forget_peak(device: torch.device) -> None:
    """Have `gpu` say the most memory that is held from here on: one process may train run after run."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def gpu(device: torch.device, accumulate: int) -> dict:
    """The name of a GPU, the most memory in MiB that this process has held there, parts of a step; nothing of a CPU."""
    if device.type != "cuda":
        return {}
    import torch

    peak = torch.cuda.max_memory_allocated(device) / 2**20
    return {"gpu": torch.cuda.get_device_name(device), "peak_gpu_memory_mib": peak, "accumulate": accumulate}


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def resolve_precision(compute: Compute) -> str:
    """``auto`` becomes bf16 where products in bf16 are faster: on GPUs and on CPUs with AMX or AVX-512 BF16."""
    if compute.precision != "auto":
        return compute.precision
    import torch  # takes seconds, which a wrong call should not wait for

    capable = torch.cpu.get_capabilities()
    bf16_cpu = capable.get("amx_bf16") or capable.get("avx512_bf16")
    return "bf16-mixed" if on_gpu(compute) or bf16_cpu else "32-true"


def on_gpu(compute: Compute) -> bool:
    """Whether the profile's accelerator is a CUDA GPU that is there."""
    if compute.accelerator not in ("auto", "gpu", "cuda"):
        return False
    import torch

    return torch.cuda.is_available()


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor instead of giving it back to the system.

    Blocks above 32 MB otherwise come fresh from the kernel each time, page fault by page fault, which took a third of
    a training step on two CPU cores. Does nothing where the C library is another.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
