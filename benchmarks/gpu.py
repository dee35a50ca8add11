"""``python -m benchmarks.gpu --json FILE``: the published step on one GPU, and what the recipe would cost on it.

A few minutes: matrix-product peak, step time beside the plain formulation and compiled, largest batch that fits,
share of the peak that is reached (MFU), seconds a step at the recipe's batch, GPU-hours of its pre-training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import RATE, SOURCES, noise, trainer
from benchmarks.plain import PlainSeparator, plain_mixit
from benchmarks.timing import medians
from lib.machine import memory
from lib.machine.distributed import start_fabric
from lib.model.separator import Separator
from lib.profile.fields import Compute
from lib.store.files import atomic
from lib.training import mixit

RECIPE_STEPS, RECIPE_BATCH = 152_850, 64


def synchronised(call: Callable[[], object], device: str) -> Callable[[], None]:
    """``call`` with all that it leaves the device to do."""

    def run() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def matmul_peak(device: str, repeats: int) -> float:
    """FLOP/s of a large bf16 matrix product, the peak that MFU is a share of."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return (
        2
        * size**3
        / medians({"product": synchronised(lambda: a @ b, device)}, max(repeats, 20), perf_counter)["product"]
    )


def step_flops(separator: Separator, samples: int, device: str) -> float:
    """Arithmetic of one example's step, forward and backward, counted on the plain formulation."""
    plain = PlainSeparator(separator.cpu()).to(device)
    separator.to(device)
    with FlopCounterMode(display=False) as counter:
        plain(noise(1, 2, samples).to(device)).square().sum().backward()
    return counter.get_total_flops()


def peak_gib(call: Callable[[], None]) -> float:
    """GiB that a GPU holds at most while ``call`` runs."""
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 2**30


def with_trials(call: Callable[[], None]) -> Callable[[], None]:
    """``call`` with convolutions by the fastest of cuDNN's kernels, which are tried at its first use."""

    def run() -> None:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            call()

    return run


def largest_batch(separator: Separator, samples: int, device: str, limit: int = 256) -> int:
    """Mixtures of mixtures in the largest batch, doubled from 1, whose training step fits into memory."""
    fits, batch = 0, 1
    while batch <= limit:
        try:
            trainer(separator, mixit, noise(batch, 2, 2, samples).to(device), bf16=True)()
        except torch.OutOfMemoryError:
            break
        finally:
            separator.zero_grad()
            torch.cuda.empty_cache()
        fits, batch = batch, 2 * batch
    return fits


def measure(size: str, seconds: float, batch: int, repeats: int, device: str) -> dict:
    """All numbers of this script, by name with units."""
    start_fabric(Compute(accelerator=device, precision="bf16-mixed"))  # with torch's settings as a training has them
    samples = round(seconds * RATE / 512) * 512
    separator = Separator.from_size(size, SOURCES).to(device)
    mixtures = noise(batch, 2, 2, samples).to(device)
    ours, held = synchronised(trainer(separator, mixit, mixtures, bf16=True), device), {}
    if device == "cuda":
        ours()  # the optimiser's moments are made
        held["peak GiB of a step"] = peak_gib(ours)
        if row := memory.counted(size, "pretrain", SOURCES, recompute=False):
            held["counted beforehand"] = memory.step_gib(row, batch, samples / RATE)
    plain = PlainSeparator(separator.cpu()).to(device)
    separator.to(device)
    sides = {
        "ours": ours,
        "plain, bf16 autocast": synchronised(trainer(plain, plain_mixit, mixtures, bf16=True), device),
    }
    if device == "cuda":
        compiled = Separator.from_size(size, SOURCES).to(device)
        compiled.masker.forward = torch.compile(compiled.masker.forward)
        sides["ours, compiled"] = synchronised(trainer(compiled, mixit, mixtures, bf16=True), device)
        sides["ours, cuDNN's kernels tried"] = with_trials(ours)
    times = medians(sides, repeats, perf_counter)
    best = min(times["ours"], times.get("ours, compiled", times["ours"]))
    peak, flops = matmul_peak(device, repeats), step_flops(separator, samples, device)
    recipe = best / batch * RECIPE_BATCH
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "size": size,
        "batch": batch,
        "crop seconds": samples / RATE,
        **held,
        **{f"seconds a step: {name}": value for name, value in times.items()},
        "plain over ours": times["plain, bf16 autocast"] / best,
        "matrix product TFLOP/s": peak / 1e12,
        "TFLOP of one example": flops / 1e12,
        "share of the matrix-product peak": flops * batch / best / peak,
        "largest batch that fits": largest_batch(separator, samples, device, 256 if device == "cuda" else 1),
        "seconds a step at the recipe's 64": recipe,
        "GPU-hours of 152,850 steps": recipe * RECIPE_STEPS / 3600,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save the numbers there")
    parser.add_argument("--size", default="medium")
    parser.add_argument("--seconds", type=float, default=6.0, help="of every crop (default: 6)")
    parser.add_argument("--batch", type=int, default=8, help="mixtures of mixtures in a timed step (default: 8)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    call = parser.parse_args()
    if call.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --size tiny --seconds 0.5 --batch 1 tries the script itself")
    numbers = measure(call.size, call.seconds, call.batch, call.repeats, call.device)
    for name, value in numbers.items():
        print(f"{name:40} {value if isinstance(value, str) else format(value, '.4g')}")
    if call.json:
        with atomic(call.json) as temporary:
            temporary.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
