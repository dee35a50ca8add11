"""What a study would take: ``python -m lib.pipeline.estimate PROFILE [--device NAME] [key=value ...]``.

Runs, steps, examples, disk, and hours by the throughput of this machine, measured for some seconds on noise, or of a
device that `THROUGHPUT` has a measurement of; for a profile that asks for a GPU where none is, at an assumed rate.
Nothing is written, fetched or looked into.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from lib import ROOT, UserError, arms, training
from lib.arms import SCRATCH, Finetuning, Pretraining
from lib.machine import devices
from lib.machine.devices import on_gpu
from lib.machine.distributed import start_fabric
from lib.model.locoformer import SIZES
from lib.pipeline import matrix
from lib.pipeline.space import planned_bytes
from lib.profile.fields import Profile
from lib.profile.load import command_line, load
from lib.store.tables import read_table
from lib.study import Study
from lib.training import Task

THROUGHPUT = ROOT / "results" / "benchmarks" / "tables" / "throughput.csv"
"""Measurements of pre-training: device, kind, precision, size, crop_seconds, seconds_per_example, teraflops (a s)."""
STEPS, PATIENCE_SECONDS = 30, 5
UNDECIDED = "pretrain.seeds: {}: with fewer than 3 pre-trainings no claim about pre-training can be decided"
ASSUMED = 100.0
"""Teraflops a second of a data-centre GPU that nobody measured."""


def table(profile: Profile, teraflops: float) -> pd.DataFrame:
    """A row per stage, arm, size and music: runs, steps, examples, audio hours, petaflop, hours at ``teraflops``."""
    rows = [_cost(job.training) for job in matrix.runs(profile).values()]
    keys = ["stage", "arm", "size", "music"]
    costs = pd.DataFrame(rows).groupby(keys, sort=False).sum().reset_index()
    return costs.assign(hours=costs["petaflop"] * 1000 / teraflops / 3600)


def _cost(planned: Pretraining | Finetuning) -> dict:
    profile, stage, supervised = planned.study.profile, planned.schedule, isinstance(planned, Finetuning)
    examples, music = stage.steps * stage.batch, profile.corpus.unlabeled
    music += f" ({profile.corpus.fma_subset})" if music.endswith("fma") else ""
    return {
        "stage": "finetune" if supervised else "pretrain",
        "arm": planned.arm if supervised else "MixIT",
        "size": profile.model.size,
        "music": "-" if supervised and planned.arm == SCRATCH else music,
        "runs": 1,
        "steps": stage.steps,
        "examples": examples,
        "audio_hours": examples * stage.crop_seconds / 3600,
        "petaflop": stage.steps * planned.step_flops / 1e15,
    }


def measured(profile: Profile) -> tuple[str, str, float, int]:
    """(device, CPU or GPU, teraflops a second, steps timed) of pre-training on noise, on GPUs with a part of a batch.

    `STEPS` steps after a first one, or as many as `PATIENCE_SECONDS` allow.
    """
    study, stage = Study(profile), profile.pretrain
    fabric = start_fabric(profile.compute)
    count = math.ceil(stage.batch / stage.accumulate) if on_gpu(profile.compute) else 1
    part = replace(stage, batch=count, accumulate=1)
    noise = torch.rand(count, 2, 2, study.samples(stage.crop_seconds), generator=torch.Generator().manual_seed(0)) - 0.5
    loss = partial(training.mixit, assignment=stage.assignment)
    task = Task(study.new_separator(profile.model.sources, 0), [], loss, lambda separator: 0.0)
    optimiser = torch.optim.AdamW(task.parameters(), fused=True)
    if profile.compute.compile and on_gpu(profile.compute):
        training.compile_if_possible(task.separator.masker)
    model, optimiser = fabric.setup(task.separator, optimiser)
    step = partial(training.train_step, fabric, model, optimiser, task, part, noise, 0.0, 0)
    step()
    began, done = time.monotonic(), 0
    while done < STEPS and time.monotonic() - began < PATIENCE_SECONDS:
        step()
        done += 1
    each = (time.monotonic() - began) / done
    device = (torch.cuda.get_device_name(), "GPU") if on_gpu(profile.compute) else (devices.cpu(), "CPU")
    return *device, count * arms.example_flops(study, "pretrain") / each / 1e12, done


def throughput(profile: Profile) -> tuple[str, str, float, str]:
    """(device, CPU or GPU, teraflops a second, how that is known) of what the profile would be trained on from here."""
    if not on_gpu(profile.compute) and (profile.compute.accelerator != "cpu" and profile.compute.compile):
        return "a data-centre GPU", "GPU", ASSUMED, "assumed: no GPU here"
    *found, steps = measured(profile)
    return *found, f"{steps} steps measured here"


def recorded(device: str, size: str) -> tuple[str, float]:
    """(CPU or GPU, teraflops a second) of a device in `THROUGHPUT`, with the model size nearest to ``size``.

    Raises: UserError for another device.
    """
    known = read_table(THROUGHPUT)
    found = known[known["device"] == device]
    if found.empty:
        names = ", ".join(f"'{name}'" for name in known["device"].unique())
        raise UserError(f"--device '{device}': not measured yet; use one of {names}, or none to measure this machine")
    sizes = list(SIZES)
    distance = found["size"].map(lambda other: abs(sizes.index(other) - sizes.index(size)))
    nearest = found.loc[distance.idxmin()]
    return nearest["kind"], float(nearest["teraflops"])


def text(profile: Profile, costs: pd.DataFrame, device: str, kind: str, teraflops: float, how: str) -> str:
    """The plan as it is printed."""
    total = costs[["runs", "steps", "examples", "audio_hours", "petaflop", "hours"]].sum()
    shown = costs.to_string(index=False, float_format="{:,.4g}".format)
    return "\n".join([
        shown,
        f"{profile.name}: {total['runs']:.0f} runs, {total['steps']:,.0f} steps, {total['examples']:,.0f} examples "
        f"({total['audio_hours']:,.0f} h of audio), {total['petaflop']:,.1f} PFLOP",
        f"disk: at most {planned_bytes(profile) / 1e9:,.1f} GB in {profile.results}, without music that is fetched",
        f"time: {total['hours']:,.1f} {kind} hours of training on {device} at {teraflops:.3g} TFLOP/s ({how}); at 100 "
        f"TFLOP/s it would be {total['petaflop'] / 100 / 3.6:,.1f} GPU hours",
        *([] if len(profile.pretrain.seeds) >= 3 else [UNDECIDED.format(len(profile.pretrain.seeds))]),
        "Left out: runs that are finished; looking into the music, validation, separating and scoring.",
    ])  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 for a wrong call."""
    parser = command_line("lib.pipeline.estimate", "What a study would take.")
    parser.add_argument("--device", help="plan by the recorded throughput of this device instead of measuring here")
    call = parser.parse_intermixed_args(arguments)
    try:
        profile = load(call.profile, call.changes)
        if call.device:
            device, (kind, teraflops), how = call.device, recorded(call.device, profile.model.size), "recorded"
        else:
            device, kind, teraflops, how = throughput(profile)
        torch.set_num_threads(1)  # counting runs thousands of tiny products: threads would wait for one another
        print(text(profile, table(profile, teraflops), device, kind, teraflops, how))
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
