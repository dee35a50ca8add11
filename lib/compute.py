"""The machine: device, precision, threads, memory."""

from __future__ import annotations

import ctypes
import logging
import sys

import lightning_fabric
import torch

from lib.profile import Compute

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision at every start

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def resolve_precision(compute: Compute) -> str:
    """``auto`` becomes bf16 where products in bf16 are faster: on GPUs and on CPUs with AMX or AVX-512 BF16."""
    if compute.precision != "auto":
        return compute.precision
    capable = torch.cpu.get_capabilities()
    bf16_cpu = capable.get("amx_bf16") or capable.get("avx512_bf16")
    gpu = compute.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if gpu or bf16_cpu else "32-true"


def start_fabric(compute: Compute) -> lightning_fabric.Fabric:
    """Fabric on one device, with the profile's number of CPU threads, in a process that keeps the memory it freed."""
    keep_freed_memory()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    return lightning_fabric.Fabric(accelerator=compute.accelerator, devices=1, precision=resolve_precision(compute))


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor instead of giving it back to the system.

    Blocks above 32 MB otherwise come fresh from the kernel each time, page fault by page fault, which took a third of
    a training step on two CPU cores. Does nothing where the C library is another.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
