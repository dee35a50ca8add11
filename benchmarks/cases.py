"""What is measured: each case returns rows of the table."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import data
from benchmarks.plain import PlainSeparator, mixit_by_pairs
from benchmarks.timing import Side, medians
from lib.losses import assign, mixit_loss, mixture_loss
from lib.model.separator import Separator
from lib.profile.load import load
from lib.scoring import csdr
from lib.separate import separate

RATE, CROP = 44100, 264192  # 6 s at 44.1 kHz in whole hops
SOURCES = 12
CLIPS = 200
# what is timed at the demo's audio and crop: kept apart from the profile, so that tables of different dates compare
SMALL_STEP = ["model.size=compact", "pretrain.batch=6", "pretrain.learning_rate=0"]


def row(what: str, ours: float, peer: float | None, of: str, target: str, unit: str = "s", ratio: float | None = None):
    """A line of the table; the ratio is the peer's time over ours unless given."""
    ratio = (peer / ours if peer else None) if ratio is None else ratio
    return {"what": what, "ours": ours, "peer": peer, "unit": unit, "peer is": of, "ratio": ratio, "target": target}


def demo_separator() -> tuple[Separator, torch.Tensor]:
    """A model of size compact for MixIT, and a batch of mixtures [B, 2, C, T] of the demo profile's length."""
    profile = load("demo", SMALL_STEP)
    front = {"rate": profile.audio.rate, "n_fft": profile.audio.n_fft, "hop": profile.audio.hop}
    options = {"band_scale": profile.model.band_scale, "dropout": profile.model.dropout}
    separator = Separator.from_size(profile.model.size, profile.model.sources, **front, **options)
    samples = round(profile.pretrain.crop_seconds * profile.audio.rate / profile.audio.hop) * profile.audio.hop
    return separator, noise(profile.pretrain.batch, 2, 2, samples)


def noise(*shape: int) -> torch.Tensor:
    """Float32 noise at a tenth of full scale."""
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def trainer(module: nn.Module, mixtures: torch.Tensor, bf16: bool, plain: bool) -> Callable[[], None]:
    """One MixIT training step: forward, assignment, loss, backward, clipping, AdamW."""
    optimiser = torch.optim.AdamW(module.parameters(), 1e-5, weight_decay=1e-2, fused=None if plain else True)
    device = mixtures.device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            if plain:
                loss = mixit_loss(module(mixtures.sum(1)), mixtures, "least_squares")[0]
            else:
                loss = mixture_loss(module(mixtures.sum(1), lambda estimates: assign(estimates, mixtures)), mixtures)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def step_sides(separator: Separator, mixtures: torch.Tensor) -> dict[str, Side]:
    """Ours in bf16; the plain formulation in float32 and under bf16 autocast, with glibc's own memory settings."""
    plain = PlainSeparator(separator)
    return {
        "ours": Side(trainer(separator, mixtures, bf16=True, plain=False)),
        "plain, float32": Side(trainer(plain, mixtures, bf16=False, plain=True), keeps_memory=False),
        "plain, bf16 autocast": Side(trainer(plain, mixtures, bf16=True, plain=True), keeps_memory=False),
    }


def demo_step(repeats: int) -> list[dict]:
    """A pre-training step of size compact; also what keeping freed memory does for either side."""
    separator, mixtures = demo_separator()
    sides = step_sides(separator, mixtures)
    sides["ours, memory given back"] = Side(sides["ours"].call, keeps_memory=False)
    sides["plain, float32, memory kept"] = Side(sides["plain, float32"].call)
    sides["plain, bf16 autocast, memory kept"] = Side(sides["plain, bf16 autocast"].call)
    times = medians(sides, repeats)
    ours, what = times.pop("ours"), "training step, compact model, N=8, 6 x 2 s"
    targets = {"plain, float32": ">= 4", "plain, bf16 autocast": ">= 2"}
    return [row(what, ours, seconds, name, targets.get(name, "")) for name, seconds in times.items()]


def published_step(size: str) -> Callable[[int], list[dict]]:
    """The step of a published size with N = 12 on one mixture of mixtures of 6 s."""

    def case(repeats: int) -> list[dict]:
        rows = []
        for peer, target in (("plain, float32", ">= 6"), ("plain, bf16 autocast", ">= 3")):
            # one peer at a time: with both optimisers' moments, medium does not fit into 24 GiB
            sides = step_sides(Separator.from_size(size, SOURCES), noise(1, 2, 2, CROP))
            times = medians({name: sides.pop(name) for name in ("ours", peer)}, repeats)
            rows.append(row(f"training step, {size}, N=12, 6 s", times["ours"], times[peer], peer, target))
        return rows

    return case


def mixit_side(loss: Callable, sources: int = SOURCES) -> Side:
    """A MixIT loss, forward and backward, of one mixture of mixtures of 6 s at 44.1 kHz."""
    estimates, mixtures = noise(1, sources, 2, CROP).requires_grad_(), noise(1, 2, 2, CROP)
    return Side(lambda: loss(estimates, mixtures)[0].sum().backward())


def mixit(repeats: int) -> list[dict]:
    """Exact MixIT against forming every pair; and as a share of the small model's step."""
    separator = Separator.from_size("small", SOURCES)
    step = Side(trainer(separator, noise(1, 2, 2, CROP), bf16=True, plain=False))
    times = medians({"ours": mixit_side(mixit_loss), "pairs": mixit_side(mixit_by_pairs)}, repeats)
    share = medians({"loss": mixit_side(mixit_loss), "step": step}, repeats)
    what, part = "exact MixIT, N=12, 2 x 6 s, forward and backward", share["loss"] / share["step"]
    return [
        row(what, times["ours"], times["pairs"], "forming all 4,096 pairs", ">= 50"),
        row(what, share["loss"], share["step"], "a training step, small (ratio: share)", "< 0.03", ratio=part),
    ]


def song_scores(repeats: int) -> list[dict]:
    """cSDR of a 4-minute song with 4 stems against museval."""
    import museval

    generator = np.random.default_rng(0)
    stems = generator.standard_normal((4, 240 * RATE, 2), np.float32)
    estimates = stems + 0.5 * generator.standard_normal(stems.shape, np.float32)
    found = {}

    def ours() -> None:
        found["ours"] = csdr(stems, estimates, RATE)

    def peer() -> None:
        found["museval"] = museval.evaluate(stems, estimates, win=RATE, hop=RATE)[0]

    times = medians({"ours": Side(ours), "museval": Side(peer)}, repeats)
    difference = np.abs(found["ours"] - found["museval"]).max()
    of = f"museval (largest difference {difference:.1e} dB)"
    return [row("cSDR of a 4-minute song, 4 stems", times["ours"], times["museval"], of, ">= 200")]


def separation(repeats: int) -> list[dict]:
    """The small model on a song of 24 s, windows of 12 s every 6 s; memory for 1 and 10 minutes."""
    separator = Separator.from_size("small", 4).eval()
    plain, song = PlainSeparator(separator).eval(), noise(2, 24 * RATE)
    plain.n_fft, plain.hop = separator.n_fft, separator.hop
    sides = {
        "ours": Side(lambda: separate(separator, song, 12 * RATE, 6 * RATE, bf16=True)),
        "ours, float32": Side(lambda: separate(separator, song, 12 * RATE, 6 * RATE)),
        "plain": Side(lambda: separate(plain, song, 12 * RATE, 6 * RATE), keeps_memory=False),
    }
    times = medians(sides, repeats)
    minute, ten = (peak_memory(60 * minutes) for minutes in (1, 10))
    what = "separating 24 s, small, 4 stems"
    return [
        row(what, times["ours"], times["plain"], "plain, float32", ">= 4"),
        row(f"{what}, float32", times["ours, float32"], times["plain"], "plain, float32", ""),
        row("peak memory, separating 10 min, small", ten, minute, "1 minute", "<= 1.1", unit="MiB", ratio=ten / minute),
    ]


def peak_memory(seconds: int) -> float:
    """Peak resident MiB of a process that separates a song of so many seconds with the small model, file to files."""
    with tempfile.TemporaryDirectory() as folder:
        program = (
            "import re, sys; import numpy as np; from pathlib import Path\n"
            "from lib.data import audio; from lib.machine.devices import keep_freed_memory\n"
            "from lib.model import Separator; from lib.separate import separate_file\n"
            "keep_freed_memory(); folder, seconds = Path(sys.argv[1]), int(sys.argv[2])\n"
            "with audio.writer(folder / 'song.wav', 44100, seconds * 44100) as put:\n"
            "    [put(np.full((2, 44100), 0.1, np.float32)) for _ in range(seconds)]\n"
            "separator = Separator.from_size('small', 4).eval()\n"
            "separate_file(separator, folder / 'song.wav', folder / 'out', 12.0, 6.0, bf16=True)\n"
            # not ru_maxrss, which a child inherits from its parent
            "print(int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)\n"
        )
        call = [sys.executable, "-c", program, folder, str(seconds)]
        return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def crops(repeats: int) -> list[dict]:
    """Random crops of 6 s against libsndfile reading the same frames, on one core."""
    rows = []
    for kind in ("mp3", "wav"):
        with tempfile.TemporaryDirectory() as folder:
            ours, peer = data.crop_readers(Path(folder), kind)
            times = medians({"ours": Side(ours), "peer": Side(peer)}, max(repeats, 9))
            what = f"{data.CROPS} random crops of 6 s, {kind.upper()}, one core"
            rows.append(row(what, times["ours"], times["peer"], "libsndfile, the same frames", ">= 0.8"))
    return rows


def collection(repeats: int) -> list[dict]:
    """A large collection: files a second of the scan, crops a second of one core, opening a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        listed = data.clips(Path(folder), CLIPS)
        # processes take a second or two to start, which is nothing in a scan of hours
        sides = {
            (count, workers): Side(partial(data.scanned, Path(folder), listed[:count], workers))
            for count in (8, CLIPS)
            for workers in (1, 2)
        }
        times = medians(sides, 1)
        one, two = ((CLIPS - 8) / (times[CLIPS, workers] - times[8, workers]) for workers in (1, 2))
        mixtures = data.collection_mixtures(data.scanned(Path(folder), listed, 2))
        crops = 100 / medians({"": Side(lambda: [mixtures[index] for index in range(50)])}, repeats)[""]
        manifest = data.synthetic_manifest(Path(folder) / "manifest.parquet", 200_000, 5)
        opened = medians({"": Side(lambda: data.open_manifest(manifest))}, repeats)[""]
    fed, more = (data.cores_to_feed(rate, crops) for rate in (10, 100))
    return [
        row("scanning MP3s of 30 s, files, two processes", two, one, "one process", "", "1/s", two / one),
        row("crops of 6 s from them into mixtures, one core", crops, None, "", "", "1/s"),
        row("cores that feed 10 mixtures a second", fed, more, "100 a second", "", "", more / fed),
        row("opening a manifest of 1,000,000 segments", opened, None, "", "<= 2 s"),
    ]


def corpus(repeats: int) -> list[dict]:
    """The embedded corpus, once: it is kept between runs."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = data.corpus_seconds(Path(folder))
    return [row("embedded corpus, 300 songs of 20 s", seconds, None, "", "<= 40 s")]


CASES = {
    "demo": demo_step,
    "small": published_step("small"),
    "medium": published_step("medium"),
    "mixit": mixit,
    "scores": song_scores,
    "separation": separation,
    "crops": crops,
    "collection": collection,
    "corpus": corpus,
}
