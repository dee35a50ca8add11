"""What a study would take, before it takes it: ``python -m lib.plan PROFILE [--device NAME] [key=value ...]``.

Runs, steps, examples, disk, and hours by the throughput of this machine, measured over 30 steps on noise, or of a
device that `THROUGHPUT` has a measurement of. Nothing is written, fetched or looked into.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
import torch

from lib import UserError, jobs, provenance, training
from lib.compute import on_gpu, start_fabric
from lib.model import SIZES
from lib.profile import ROOT, Audio, Model, Pretrain, Profile, load
from lib.scoring import read_table
from lib.stages import SCRATCH, Study
from lib.study import planned_bytes
from lib.training import Task
from lib.workers import MIXIT, Job

THROUGHPUT = ROOT / "results" / "benchmarks" / "tables" / "throughput.csv"
"""Measurements of pre-training: device, kind, precision, size, crop_seconds, seconds_per_example, teraflops (a s)."""
STEPS, PATIENCE_SECONDS = 30, 60
COUNTED_FRAMES = (8, 12, 16)
"""Lengths at which operations are counted: they are a quadratic polynomial of the frames, by the attention in time."""


def table(profile: Profile, teraflops: float) -> pd.DataFrame:
    """A row per stage, arm, size and music: runs, steps, examples, audio hours, petaflop, hours at ``teraflops``."""
    rows = [_cost(job) for job in jobs.runs(profile, absent=True).values()]
    keys = ["stage", "arm", "size", "music"]
    found = pd.DataFrame(rows).groupby(keys, sort=False).sum().reset_index()
    return found.assign(hours=found["petaflop"] * 1000 / teraflops / 3600)


def _cost(job: Job) -> dict:
    profile, study = job.profile, jobs.Outline(job.profile)
    name = "pretrain" if job.how == MIXIT else "finetune"
    stage = profile.pretrain if job.how == MIXIT else study.schedule(job.how)
    examples = stage.steps * stage.batch
    music = profile.corpus.unlabeled
    music += f" ({profile.corpus.fma_subset})" if music.endswith("fma") else ""
    return {
        "stage": name,
        "arm": job.how,
        "size": profile.model.size,
        "music": music if job.how != SCRATCH else "-",
        "runs": 1,
        "steps": stage.steps,
        "examples": examples,
        "audio_hours": examples * stage.crop_seconds / 3600,
        "petaflop": examples * flops(study, name) / 1e15,
    }


def flops(study: Study, stage: str) -> float:
    """`Study.example_flops` of a whole crop, from short ones: counting takes as long as computing."""
    profile = study.profile
    frames = study.samples(getattr(profile, stage).crop_seconds) // profile.audio.hop
    if frames <= COUNTED_FRAMES[-1]:
        return study.example_flops(stage)
    return float(np.polyval(_polynomial(profile.audio, profile.model, profile.pretrain.assignment, stage), frames))


@cache
def _polynomial(audio: Audio, model: Model, assignment: str, stage: str) -> np.ndarray:
    """Coefficients of the operations of one example by its frames, highest first."""
    study = Study(replace(Profile("plan", "plan"), audio=audio, model=model, pretrain=Pretrain(assignment=assignment)))
    counts = [study.example_flops(stage, frames * audio.hop) for frames in COUNTED_FRAMES]
    return np.polyfit(COUNTED_FRAMES, counts, len(COUNTED_FRAMES) - 1)


def measured(profile: Profile) -> tuple[str, str, float, int]:
    """(device, CPU or GPU, teraflops a second, steps timed) of pre-training on noise, on GPUs with a part of a batch.

    `STEPS` steps after a first one, or as many as `PATIENCE_SECONDS` allow.
    """
    study, stage = Study(profile), profile.pretrain
    fabric = start_fabric(profile.compute)
    count = math.ceil(stage.batch / stage.accumulate) if on_gpu(profile.compute) else 1
    part = replace(stage, batch=count, accumulate=1)
    noise = torch.rand(count, 2, 2, study.samples(stage.crop_seconds), generator=torch.Generator().manual_seed(0)) - 0.5
    task = Task(study.new_separator(profile.model.sources, 0), [], study.mixit_loss, lambda separator: 0.0)
    optimiser = torch.optim.AdamW(task.parameters(), fused=True)
    model, optimiser = fabric.setup(task.separator, optimiser)
    step = partial(training.train_step, fabric, model, optimiser, task, part, noise, 0.0, 0)
    step()
    began, done = time.monotonic(), 0
    while done < STEPS and time.monotonic() - began < PATIENCE_SECONDS:
        step()
        done += 1
    each = (time.monotonic() - began) / done
    device = (torch.cuda.get_device_name(), "GPU") if on_gpu(profile.compute) else (provenance.cpu(), "CPU")
    return *device, count * flops(study, "pretrain") / each / 1e12, done


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
        "Left out: looking into the music, validation, separating and scoring.",
    ])  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m lib.plan", description="What a study would take.")
    parser.add_argument("profile", nargs="?", default="demo", help="a name in notebooks/profiles, or a .yaml file")
    parser.add_argument("--device", help="plan by the recorded throughput of this device instead of measuring here")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="dotted profile fields")
    call = parser.parse_intermixed_args(arguments)
    try:
        profile = load(call.profile, call.changes)
        if call.device:
            device, (kind, teraflops), how = call.device, recorded(call.device, profile.model.size), "recorded"
        else:
            device, kind, teraflops, steps = measured(profile)
            how = f"{steps} steps measured here"
        torch.set_num_threads(1)  # counting runs thousands of tiny products: threads would wait for one another
        print(text(profile, table(profile, teraflops), device, kind, teraflops, how))
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
