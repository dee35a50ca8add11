"""What is measured: each case returns rows of the table."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import data
from benchmarks.plain import PlainSeparator, mixit_by_pairs, plain_mixit
from benchmarks.timing import medians, rounds
from lib.losses import mixit_loss
from lib.machine.devices import resolve_precision
from lib.model.separator import Separator
from lib.profile.fields import Compute
from lib.profile.load import load
from lib.scoring import csdr
from lib.separate import separate
from lib.training import example_flops
from lib.training import mixit as mixit_objective

RATE, CROP = 44100, 264192  # 6 s at 44.1 kHz in whole hops
SOURCES = 12
CLIPS = 200
# what is timed at the demo's audio and crop: kept apart from the profile, so that tables of different dates compare
SMALL_STEP = ["model.size=compact", "pretrain.batch=6", "pretrain.learning_rate=0"]


def row(what: str, ours: float, peer: float | None = None, of: str = "", target: str = "", unit: str = "s", **ratio):
    """A line of the table; ``ratio`` (with ``low`` and ``high``) is left empty unless given."""
    line = {"what": what, "ours": ours, "peer": peer, "unit": unit, "peer is": of, "target": target}
    return line | {"ratio": None, "low": None, "high": None} | ratio


def compared(what: str, ours: np.ndarray, peer: np.ndarray, of: str, target: str = "", unit="s", share=False) -> dict:
    """Medians of two sides over rounds; the ratio is the peer's time to ours, or ours to the peer's (a share).

    The median ratio of a round, and the range over rounds: what else the machine does slows both sides of a round.
    """
    found = ours / peer if share else peer / ours
    ratio = {"ratio": float(np.median(found)), "low": float(found.min()), "high": float(found.max())}
    return row(what, float(np.median(ours)), float(np.median(peer)), of, target, unit, **ratio)


def precisions() -> dict[str, bool]:
    """What models and their peers are measured in: float32, and bf16 where the CPU has units for it."""
    bf16 = resolve_precision(Compute(accelerator="cpu", precision="auto")) == "bf16-mixed"
    return {"float32": False} | ({"bf16 autocast": True} if bf16 else {})


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


def trainer(module: nn.Module, loss: Callable, mixtures: torch.Tensor, bf16: bool) -> Callable[[], None]:
    """One training step: forward, ``loss(module, mixtures)``, backward, clipping, AdamW."""
    optimiser = torch.optim.AdamW(module.parameters(), 1e-5, weight_decay=1e-2, fused=True)

    def step() -> None:
        with torch.autocast(mixtures.device.type, torch.bfloat16, enabled=bf16):
            value = loss(module, mixtures).mean()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def step_sides(separator: Separator, mixtures: torch.Tensor, bf16: bool) -> dict[str, Callable[[], None]]:
    """A step of ours and of the plain formulation, in the same precision and with the same optimiser."""
    return {
        "ours": trainer(separator, mixit_objective, mixtures, bf16),
        "plain": trainer(PlainSeparator(separator), plain_mixit, mixtures, bf16),
    }


def product(bf16: bool, size: int = 2048) -> tuple[Callable[[], object], float]:
    """A large matrix product, whose rate is what this machine can do at best, and its floating-point operations."""
    a, b = (torch.randn(size, size, dtype=torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    return lambda: a @ b, 2.0 * size**3


def step(what: str, make: Callable[[], tuple[Separator, torch.Tensor]]) -> Callable[[int], list[dict]]:
    """A MixIT training step beside the plain formulation, and its rate beside that of a large matrix product."""

    def case(repeats: int) -> list[dict]:
        rows = []
        for precision, bf16 in precisions().items():
            separator, mixtures = make()
            multiply, operations = product(bf16)
            times = rounds(step_sides(separator, mixtures, bf16) | {"product": multiply}, repeats)
            title, of = f"{what}, {precision}", f"plain, {precision}"
            rows.append(compared(title, times["ours"], times["plain"], of))
            flops = len(mixtures) * example_flops(lambda: make()[0], mixit_objective, 2, mixtures.shape[-1])
            rates = flops / times["ours"] / 1e9, operations / times["product"] / 1e9
            of = "a large matrix product (ratio: share)"
            rows.append(compared(f"{title}: rate", *rates, of, unit="GFLOP/s", share=True))
        return rows

    return case


def published(size: str, samples: int = CROP) -> tuple[Separator, torch.Tensor]:
    """A published size with N = 12, and one mixture of mixtures, of 6 s unless ``samples`` says otherwise."""
    return Separator.from_size(size, SOURCES), noise(1, 2, 2, samples)


def mixit_side(loss: Callable, sources: int = SOURCES) -> Callable[[], None]:
    """A MixIT loss, forward and backward, of one mixture of mixtures of 6 s at 44.1 kHz."""
    estimates, mixtures = noise(1, sources, 2, CROP).requires_grad_(), noise(1, 2, 2, CROP)
    return lambda: loss(estimates, mixtures)[0].sum().backward()


def mixit(repeats: int) -> list[dict]:
    """Exact MixIT against forming every pair; and as a share of the small model's step."""
    bf16 = list(precisions().values())[-1]
    training_step = trainer(Separator.from_size("small", SOURCES), mixit_objective, noise(1, 2, 2, CROP), bf16)
    pairs = rounds({"ours": mixit_side(mixit_loss), "pairs": mixit_side(mixit_by_pairs)}, repeats)
    parts = rounds({"loss": mixit_side(mixit_loss), "step": training_step}, repeats)
    what, of = "exact MixIT, N=12, 2 x 6 s, forward and backward", "a training step, small (ratio: share)"
    return [
        compared(what, pairs["ours"], pairs["pairs"], "forming all 4,096 pairs", ">= 50"),
        compared(what, parts["loss"], parts["step"], of, "< 0.03", share=True),
    ]


def song_scores(repeats: int) -> list[dict]:
    """cSDR of a 4-minute song with 4 stems against museval, which computes ISR, SIR and SAR as well."""
    import museval

    generator = np.random.default_rng(0)
    stems = generator.standard_normal((4, 240 * RATE, 2), np.float32)
    estimates = stems + 0.5 * generator.standard_normal(stems.shape, np.float32)
    found = {}

    def ours() -> None:
        found["ours"] = csdr(stems, estimates, RATE)

    def peer() -> None:
        found["museval"] = museval.evaluate(stems, estimates, win=RATE, hop=RATE)[0]

    times = rounds({"ours": ours, "museval": peer}, repeats)
    difference = np.abs(found["ours"] - found["museval"]).max()
    of = f"museval, which gives ISR, SIR, SAR too (largest difference {difference:.1e} dB)"
    return [compared("cSDR of a 4-minute song, 4 stems", times["ours"], times["museval"], of, ">= 200")]


def separation(repeats: int) -> list[dict]:
    """The small model on a song of 24 s, windows of 12 s every 6 s; memory for 1 and 10 minutes."""
    separator = Separator.from_size("small", 4).eval()
    plain, song = PlainSeparator(separator).eval(), noise(2, 24 * RATE)
    plain.n_fft, plain.hop = separator.n_fft, separator.hop
    rows = []
    for precision, bf16 in precisions().items():
        models = {"ours": separator, "plain": plain}
        sides = {name: partial(separate, model, song, 12 * RATE, 6 * RATE, bf16=bf16) for name, model in models.items()}
        what = f"separating 24 s, small, 4 stems, {precision}"
        times = rounds(sides, repeats)
        rows.append(compared(what, times["ours"], times["plain"], f"plain, {precision}"))
    minute, ten = (peak_memory(60 * minutes) for minutes in (1, 10))
    what = "peak memory, separating 10 min, tiny"
    return [*rows, row(what, ten, minute, "1 minute", "<= 1.1", "MiB", ratio=ten / minute)]


def peak_memory(seconds: int) -> float:
    """Peak resident MiB of a process that separates a song of so many seconds with the tiny model, file to files."""
    with tempfile.TemporaryDirectory() as folder:
        program = (
            "import re, sys; import numpy as np; from pathlib import Path\n"
            "from lib.data import audio; from lib.machine.devices import keep_freed_memory\n"
            "from lib.model import Separator; from lib.separate import separate_file\n"
            "keep_freed_memory(); folder, seconds = Path(sys.argv[1]), int(sys.argv[2])\n"
            "with audio.writer(folder / 'song.wav', 44100, seconds * 44100) as put:\n"
            "    [put(np.full((2, 44100), 0.1, np.float32)) for _ in range(seconds)]\n"
            "separator = Separator.from_size('tiny', 4).eval()\n"
            "separate_file(separator, folder / 'song.wav', folder / 'out', 12.0, 6.0)\n"
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
            times = rounds({"ours": ours, "peer": peer}, max(repeats, 9))
            what, of = f"{data.CROPS} random crops of 6 s, {kind.upper()}, one core", "libsndfile, the same frames"
            rows.append(compared(what, times["ours"], times["peer"], of, ">= 0.8"))
    return rows


def collection(repeats: int) -> list[dict]:
    """A large collection: files a second of the scan, crops a second of one core, opening a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        listed = data.clips(Path(folder), CLIPS)
        # processes take a second or two to start, which is nothing in a scan of hours
        sides = {
            (count, workers): partial(data.scanned, Path(folder), listed[:count], workers)
            for count in (8, CLIPS)
            for workers in (1, 2)
        }
        times = medians(sides, 1, time.perf_counter)
        one, two = ((CLIPS - 8) / (times[CLIPS, workers] - times[8, workers]) for workers in (1, 2))
        mixtures = data.collection_mixtures(data.scanned(Path(folder), listed, 2))
        crops = 100 / medians({"": lambda: [mixtures[index] for index in range(50)]}, repeats)[""]
        manifest = data.synthetic_manifest(Path(folder) / "manifest.parquet", 200_000, 5)
        opened = medians({"": lambda: data.open_manifest(manifest)}, repeats)[""]
    fed, more = (data.cores_to_feed(rate, crops) for rate in (10, 100))
    return [
        row("scanning MP3s of 30 s, files, two processes", two, one, "one process", "", "1/s", ratio=two / one),
        row("crops of 6 s from them into mixtures, one core", crops, unit="1/s"),
        row("cores that feed 10 mixtures a second", fed, more, "100 a second", "", "", ratio=more / fed),
        row("opening a manifest of 1,000,000 segments", opened, target="<= 2 s"),
    ]


def corpus(repeats: int) -> list[dict]:
    """The embedded corpus, once: it is kept between runs."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = data.corpus_seconds(Path(folder))
    return [row("embedded corpus, 300 songs of 20 s", seconds, target="<= 40 s")]


CASES = {
    "demo": step("training step, compact model, N=8, 6 x 2 s", demo_separator),
    "small": step("training step, small, N=12, 6 s", partial(published, "small")),
    # with 6 s the plain formulation needs more than 24 GB
    "medium": step("training step, medium, N=12, 3 s", partial(published, "medium", CROP // 2)),
    "mixit": mixit,
    "scores": song_scores,
    "separation": separation,
    "crops": crops,
    "collection": collection,
    "corpus": corpus,
}
