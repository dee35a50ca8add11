"""One step of `benchmarks/gpu_half_hour.sh`: ``python -m benchmarks.half_hour STEP``.

``HALF_HOUR`` names the folder that receives ``STEP.json`` and keeps the runs (default: half_hour). ``REHEARSAL=1`` does
all of it on CPUs with the smallest model, to try the script itself; its numbers mean nothing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.cases import CROP, noise, trainer
from benchmarks.gpu import measure
from lib import ROOT
from lib.arms import Finetuning
from lib.experiments import evaluate
from lib.losses import mixit_loss
from lib.machine import devices
from lib.machine.distributed import start_fabric
from lib.model.published import load_published
from lib.model.separator import Separator
from lib.pipeline import matrix, train
from lib.profile.fields import Compute
from lib.profile.load import load
from lib.store.files import write_json
from lib.store.tables import read_table
from lib.study import Study
from lib.training import compile_if_possible, mixit

REHEARSAL = bool(os.environ.get("REHEARSAL"))
DEVICE = "cpu" if REHEARSAL else "cuda"
FOLDER = Path(os.environ.get("HALF_HOUR", ROOT / "half_hour")).resolve()
GOLDEN = ROOT / "tests" / "golden"
SIZES = ("nano",) if REHEARSAL else ("small", "medium", "large")
CURVE = 4 if REHEARSAL else 200
"""Steps of the loss curves."""
CUT = [
    *(
        f"results={FOLDER / 'study'}",
        "corpus.rendered.unlabeled_songs=200",
        "pretrain.steps=1500",
        "finetune.steps=500",
    ),
    *("ablations.axes=[]", "regime.learning_rates=[]", "regime.pretrain_steps=[]"),
]
"""Profile single_gpu as far as half an hour goes: three pre-trainings, three models from each, three from scratch."""
TINY = [
    *("model.size=nano", "compute.accelerator=cpu", "compute.precision=32-true", "pretrain.crop_seconds=1.0"),
    *("finetune.crop_seconds=1.0", "pretrain.batch=2", "finetune.batch=2", "corpus.workers=0", "pretrain.seeds=[0]"),
    "corpus.rendered={song_seconds: 20.0, train_songs: 2, validation_songs: 1, test_songs: 1, unlabeled_songs: 8}",
    *("pretrain.steps=4", "finetune.steps=4", "separate.window_seconds=2.0", "separate.hop_seconds=1.0"),
    *("finetune.seeds=[0]", "finetune.labeled_songs=[1]", "corpus.validation_songs=1", "pretrain.validation_moms=2"),
]


def right() -> dict:
    """Golden vectors in float32 and bfloat16, gradients against the CPU's, and what attention drops."""
    start_fabric(Compute(accelerator=DEVICE, precision="32-true"))  # with torch's settings as a training has them
    found = {}
    with np.load(GOLDEN / "bslocoformer_tiny.npz", allow_pickle=False) as archive:
        wave, expected = (torch.from_numpy(archive[name]).to(DEVICE) for name in ("wav", "est"))
    separator = load_published(GOLDEN / "bslocoformer_tiny.npz").to(DEVICE).eval()
    for name, bf16 in (("float32", False), ("bf16", True)):
        with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            error = (separator(wave).float() - expected).abs().max() / expected.abs().max()
        found[f"golden vectors, {name}: largest error"] = error.item()
    with np.load(GOLDEN / "mixit.npz", allow_pickle=False) as archive:
        names = ("est", "mixtures", "exact_assignment")
        estimates, mixtures, assignment = (torch.from_numpy(archive[name]).to(DEVICE) for name in names)
    chosen = mixit_loss(estimates.float(), mixtures.float())[1]
    found["golden MixIT: same assignment"] = bool((chosen[:, 0] == assignment).all())
    found["gradients against the CPU's, float32: relative error"] = _gradient_error()
    q = torch.zeros(256, 8, 64, 64, device=DEVICE, dtype=torch.bfloat16)
    weights = 64 * F.scaled_dot_product_attention(q, q, torch.eye(64, device=DEVICE).to(q).expand_as(q), dropout_p=0.1)
    found |= {"attention: share dropped": (weights == 0).float().mean().item(), "mean": weights.float().mean().item()}
    return found | {"variance (1/9 for 10%)": weights.float().var().item()}


def _gradient_error() -> float:
    """Of a small model, whose masks come from one product a group on GPUs and one a source on CPUs."""
    gradients = []
    for device in ("cpu", DEVICE):
        separator = Separator.from_size("tiny", 4, 0, dropout=0.0).to(device)
        mixtures = torch.randn(1, 2, 2, 512 * 40, generator=torch.Generator().manual_seed(0)).to(device)
        mixit(separator, mixtures).mean().backward()
        gradients.append(torch.cat([weight.grad.flatten().cpu() for weight in separator.parameters()]))
    return ((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item()


def speed(size: str) -> dict:
    """`benchmarks.gpu.measure`: our step, compiled, and plain."""
    return measure(size, 0.5, 1, 1, DEVICE) if REHEARSAL else measure(size, 6.0, 8, 5, DEVICE)


def profiled() -> dict:
    """Where the time of compiled steps of the middle size goes: operations, milliseconds."""
    start_fabric(Compute(accelerator=DEVICE, precision="bf16-mixed"))
    separator = Separator.from_size(SIZES[len(SIZES) // 2]).to(DEVICE)
    mixtures = noise(1, 2, 2, 20480) if REHEARSAL else noise(8, 2, 2, CROP)
    if not REHEARSAL:
        compile_if_possible(separator.masker)
    step = trainer(separator, mixit, mixtures.to(DEVICE), bf16=True)
    step()
    with torch.profiler.profile() as profile:
        step()
    totals = {one.key: (one.self_device_time_total or one.self_cpu_time_total) / 1e3 for one in profile.key_averages()}
    return dict(sorted(totals.items(), key=lambda item: -item[1])[:40])


def curve(precision: str, seed: int) -> dict:
    """The loss of some steps of MixIT, from the log of a run."""
    fields = ["pretrain.validate_every=1", "pretrain.validation_moms=1", f"pretrain.steps={CURVE}"]
    result = _train(*fields, f"compute.precision={precision}", f"results={FOLDER / f'{precision}-{seed}'}", seed=seed)
    return result | {"loss": _losses(FOLDER / f"{precision}-{seed}")}


def stops() -> dict:
    """SIGTERM in the middle of a run, the same call again, and one process under torchrun."""
    for name in ("stops", "alone"):  # what a call that was ended itself has left
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    fields = [f"pretrain.steps={CURVE}", f"results={FOLDER / 'stops'}", "pretrain.checkpoint_every=1"]
    stopped = _train(*fields, stop=True)
    resumed = _train(*fields)
    launcher = ("torch.distributed.run", "--standalone")
    alone = _train(f"results={FOLDER / 'alone'}", f"pretrain.steps={CURVE}", launcher=launcher)
    return {"stopped (status 75)": stopped, "resumed": resumed, "torchrun": alone}


def _fields() -> list[str]:
    return [*CUT, *(TINY if REHEARSAL else [])]


def _train(*fields: str, seed: int = 0, stop: bool = False, launcher: tuple[str, ...] = ()) -> dict:
    """Status, seconds and last line of a pre-training in a process of its own."""
    call = [sys.executable, *(("-m", *launcher, "--nproc-per-node=1") if launcher else ()), "-m", "lib.pipeline.train"]
    call += ["--profile", "single_gpu", "--stage", "pretrain", "--seed", str(seed), *_fields(), *fields]
    began, log = time.monotonic(), FOLDER / "said.log"
    with open(log, "w") as said:
        process = subprocess.Popen(call, cwd=ROOT, stdout=said, stderr=said)
        while stop and process.poll() is None and not list(FOLDER.glob("stops/runs/*/last.ckpt")):
            time.sleep(0.1)
        if stop:
            process.send_signal(signal.SIGTERM)
        status = process.wait()
    said = log.read_text()[-400:].splitlines()[-1:]
    if status != (train.STOPPED if stop else 0):
        sys.exit(f"status {status}: {said}")
    return {"status": status, "seconds": time.monotonic() - began, "said": said}


def _losses(results: Path) -> list[float]:
    return [loss for log in results.glob("runs/*/log.csv") for loss in read_table(log)["loss"].tolist()]


def says() -> dict:
    """The study in miniature, run after run: what each took and reached, and its scores on test songs."""
    study, found = Study(load("single_gpu", _fields())), {}
    for job in matrix.runs(study.profile).values():
        training = replace(job.training, study=study)
        facts = training.trained().facts()
        scores = evaluate.scores(training) if isinstance(training, Finetuning) else None
        means = {} if scores is None else scores.groupby(["metric", "stem"])["value"].mean()
        means = {" ".join(key): value for key, value in dict(means).items() if math.isfinite(value)}
        found[" ".join(training.arguments)] = {**facts, "scores": means}
        write_json(FOLDER / "says_so_far.json", found)
    return found


STEPS: dict[str, Callable[[], dict]] = {
    "right": right,
    **{f"speed-{size}": partial(speed, size) for size in SIZES},
    "profiled": profiled,
    **{f"curve-{name}-{seed}": partial(curve, name, seed) for name in ("bf16-mixed", "32-true") for seed in (0, 1)},
    "stops": stops,
    "says": says,
}


def main() -> int:
    """The exit status."""
    name = sys.argv[1] if len(sys.argv) == 2 else "--list"
    if name == "--list":
        print(*STEPS)
        return 0
    file = FOLDER / f"{name}.json"
    if file.exists():
        print(f"{name}: done, see {file}")
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    numbers = STEPS[name]()
    about = {"machine": devices.machine(), "torch": torch.__version__, "seconds": time.monotonic() - began}
    write_json(file, about | numbers)
    print(json.dumps(numbers)[:2000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
