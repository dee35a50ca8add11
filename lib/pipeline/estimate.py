"""What a study would take: ``python -m lib.pipeline.estimate PROFILE [--device NAME] [key=value ...]``.

Runs, steps, examples, disk, memory of a step on GPUs, and time by the throughput of this machine, measured for some
seconds on noise, or of a device that `THROUGHPUT` has a measurement of; for a profile that asks for a GPU where none
is, at an assumed rate. Nothing is written or fetched, and no music is looked into: a run counts as finished if its
identity is that of a finished one but for the music.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from lib import ROOT, STEMS, UserError, arms, training
from lib.arms import SCRATCH, Finetuning, Pretraining
from lib.experiments.jobs import Job
from lib.machine import devices, memory
from lib.machine.devices import on_gpu
from lib.machine.distributed import start_fabric
from lib.model.locoformer import SIZES
from lib.pipeline import matrix
from lib.pipeline.space import planned_bytes
from lib.profile.fields import Profile
from lib.profile.load import command_line, load
from lib.store.files import plain
from lib.store.runs import Run
from lib.store.tables import read_table
from lib.study import Study
from lib.training import Task

THROUGHPUT = ROOT / "results" / "benchmarks" / "tables" / "throughput.csv"
"""Measurements of pre-training: device, kind, precision, size, crop_seconds, seconds_per_example, teraflops (a s)."""
STEPS, PATIENCE_SECONDS = 30, 5
UNDECIDED = (
    "pretrain.seeds: {}: with fewer than 3 pre-trainings no claim about pre-training can be decided; 3, with what they "
    "are compared with, take {} more, {} on one"
)
MEMORY = (
    "(memory of a step in bfloat16, counted, not compiled; a run takes a step in as many parts as its card asks for)"
)
ASSUMED = 100.0
"""Teraflops a second of a data-centre GPU that nobody measured."""


CARDS = (24, 40, 80)
"""Memory in GB of the GPUs for which a plan says what fits."""
PARTS = (1, 8, 16)
"""Examples at a time for which a plan says what a step holds."""


def table(profile: Profile, teraflops: float) -> pd.DataFrame:
    """A row per stage, arm, size and music: runs, steps, examples, audio hours, petaflop, hours at ``teraflops``.

    ``finished`` counts the runs that are there; all but ``runs`` is of the others.
    """
    jobs = matrix.runs(profile)
    there = finished(jobs)
    rows = [_cost(job.training, run in there) for run, job in jobs.items()]
    keys = ["stage", "arm", "size", "music"]
    costs = pd.DataFrame(rows).groupby(keys, sort=False).sum().reset_index()
    return costs.assign(hours=costs["petaflop"] * 1000 / teraflops / 3600)


def finished(jobs: Mapping[Run, Job]) -> dict[Run, str]:
    """The names of finished runs, by those of ``jobs`` that they are but for the music; none stands for two."""
    found, names = {}, defaultdict(list)
    for folder in {run.folder.parent for run in jobs}:
        for record in sorted(folder.glob("*/done.json")):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                identity = json.loads((record.parent / "identity.json").read_text("utf-8"))
                names[_but_for_the_music(identity, identity.get("pretrained"))].append(record.parent.name)
    for run, job in jobs.items():
        start = getattr(job.training, "pretraining", None)
        identity = json.loads(json.dumps(job.training.identity, default=plain))
        if same := names[_but_for_the_music(identity, start and found.get(start.run))]:
            found[run] = same.pop(0)
    return found


def _but_for_the_music(identity: dict, pretrained: str | None) -> str:
    return json.dumps({**identity, "corpus": None, "pretrained": pretrained}, sort_keys=True)


def steps_in_memory(profile: Profile, costs: pd.DataFrame) -> pd.DataFrame:
    """GiB that a step holds on a GPU by the count of `lib.machine.memory`, and how many examples fit `CARDS`.

    A row a size and stage; sizes that are not counted have none.
    """
    rows, pairs = [], costs[["stage", "size"]].drop_duplicates().itertuples(index=False)
    for (stage, size), recompute in itertools.product(pairs, (False, True)):
        sources = profile.model.sources if stage == "pretrain" else len(STEMS)
        seconds = getattr(profile, stage).crop_seconds
        if row := memory.counted(size, stage, sources, recompute):
            held = {f"GiB with {count}": memory.step_gib(row, count, seconds) for count in PARTS}
            fits = {f"fit {card} GB": memory.fitting(row, card * 10**9, seconds) for card in CARDS}
            rows.append({"stage": stage, "size": size, "recompute": recompute, **held, **fits})
    return pd.DataFrame(rows)


def _cost(planned: Pretraining | Finetuning, there: bool) -> dict:
    profile, stage, supervised = planned.study.profile, planned.schedule, isinstance(planned, Finetuning)
    steps, music = 0 if there else stage.steps, profile.corpus.unlabeled
    music += f" ({profile.corpus.fma_subset})" if music.endswith("fma") else ""
    return {
        "stage": "finetune" if supervised else "pretrain",
        "arm": planned.arm if supervised else "MixIT",
        "size": profile.model.size,
        "music": "-" if supervised and planned.arm == SCRATCH else music,
        "runs": 1,
        "finished": int(there),
        "steps": steps,
        "examples": steps * stage.batch,
        "audio_hours": steps * stage.batch * stage.crop_seconds / 3600,
        "petaflop": steps * planned.step_flops / 1e15,
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
    total, at_once = costs.sum(numeric_only=True), 8 if kind == "GPU" else profile.compute.jobs
    held = steps_in_memory(profile, costs) if kind == "GPU" else pd.DataFrame()
    there = ", ".join(finished(matrix.runs(profile)).values())
    shown = costs.drop(columns=["audio_hours", "petaflop", "hours"]).assign(
        audio=(costs["audio_hours"] * 3600).map(_duration),
        operations=costs["petaflop"].map(_operations),
        time=(costs["hours"] * 3600).map(_duration),
    )
    return "\n".join([
        shown.to_string(index=False),
        *([held.to_string(index=False, float_format="{:.1f}".format), MEMORY] if len(held) else []),
        f"{profile.name}: {total['runs']:.0f} runs, {total['steps']:,.0f} steps, {total['examples']:,.0f} examples "
        f"({_duration(total['audio_hours'] * 3600)} of audio), {_operations(total['petaflop'])}",
        f"finished: {there or 'none'}; a changed corpus trains them again",
        f"disk: at most {planned_bytes(profile) / 1e9:,.1f} GB in {profile.results}, without music that is fetched",
        f"time: {_duration(total['hours'] * 3600)} of training on one {kind}, {device}, at "
        f"{_operations(teraflops / 1e3)}/s ({how}); by the clock {_duration(total['hours'] * 3600 / at_once)} on "
        f"{at_once} at once",
        *([_undecided(profile, teraflops)] if len(profile.pretrain.seeds) < 3 else []),
        "Left out: looking into the music, validation, separating and scoring.",
    ])  # fmt: skip


def _undecided(profile: Profile, teraflops: float) -> str:
    """What the profile's pre-trainings cannot decide, and what as many as can would take."""
    study, seeds = matrix.Outline(profile), profile.pretrain.seeds
    songs, first = profile.finetune.labeled_songs[0], profile.finetune.transfers[0]
    arm = [Pretraining(study, seeds[0]), *(Finetuning(study, name, seeds[0], songs) for name in (SCRATCH, first))]
    more = (3 - len(seeds)) * sum(one.schedule.steps * one.step_flops for one in arm)
    return UNDECIDED.format(len(seeds), _operations(more / 1e15), _duration(more / teraflops / 1e12))


def _operations(petaflop: float) -> str:
    return _in_units(petaflop, {"PFLOP": 1, "TFLOP": 1e-3, "GFLOP": 1e-6})


def _duration(seconds: float) -> str:
    return _in_units(seconds, {"days": 86400, "h": 3600, "min": 60, "s": 1})


def _in_units(value: float, units: Mapping[str, float]) -> str:
    """A value in the largest unit of which it is two at least."""
    name = next((name for name, unit in units.items() if value >= 2 * unit), list(units)[-1])
    number = value / units[name]
    return f"{number:,.0f} {name}" if number >= 100 else f"{number:.3g} {name}"


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
