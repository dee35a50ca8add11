"""What many tests train: noise in place of music, a tiny separator on it, and the smallest study there is."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.data import Dataset

from lib import ROOT, STEMS
from lib.data import audio
from lib.losses import stem_snr_loss
from lib.model.separator import Separator
from lib.profile.fields import Compute, Optimisation
from lib.profile.load import load, to_dict
from lib.store.runs import Run
from lib.study import Study
from lib.training import Task, fit

GOLDEN = ROOT / "tests" / "golden"

# One training, without a study

STAGE = Optimisation(
    steps=8,
    batch=2,
    crop_seconds=0.1,
    learning_rate=1e-3,
    warmup_steps=2,
    decay_every=3,
    decay_factor=0.5,
    validate_every=3,
    average_best=2,
    checkpoint_every=2,
)
COMPUTE = Compute(accelerator="cpu")


class Noise(Dataset):
    """Stems [4, 2, samples] that depend on the index alone."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(4, 2, 64 * 16, generator=torch.Generator().manual_seed(index))


class Interrupted(Exception):
    """What `task` raises where it is told to fail."""


def task(fail_at: int | None = None, bad: Iterable[int] = (), dropout: float = 0.2) -> Task:
    """A task whose loss raises `Interrupted` at one call, and is not finite at some."""
    calls = itertools.count()
    separator = Separator.from_size("nano", 4, 0, rate=8000, n_fft=256, hop=64, band_scale=4.0, dropout=dropout)

    def loss(model, stems):
        call = next(calls)
        if call == fail_at:
            raise Interrupted
        value = stem_snr_loss(model(stems.sum(1)), stems)
        return value * math.nan if call in bad else value

    def validate(model):
        stems = torch.stack([Noise()[1000 + i] for i in range(2)])
        return stem_snr_loss(model(stems.sum(1)), stems).mean().item()

    return Task(separator, Noise(), loss, validate)


def train(folder: Path, stage: Optimisation = STAGE, seed: int = 5, compute: Compute = COMPUTE, **faults):
    """The separator that a `task` trains in ``folder``, and its run."""
    run = Run(folder)
    folder.mkdir(exist_ok=True)
    return fit(task(**faults), stage, run, seed, compute, workers=0, label="test"), run


# A study

RATE, SECONDS = 8000, 6.0
SMALL = {
    **{"audio.rate": RATE, "audio.n_fft": 256, "audio.hop": 64, "model.size": "nano", "model.dropout": 0.1},
    **{"corpus.segment_seconds": 2.0, "corpus.segment_hop_seconds": 1.0, "corpus.activity_seconds": 2.0},
    **{"corpus.validation_songs": 1, "finetune.seeds": [0], "pretrain.seeds": [0], "compute.jobs": 1},
    **{"pretrain.steps": 2, "finetune.steps": 2, "separate.window_seconds": 1.0, "separate.hop_seconds": 0.5},
}
"""Fields of `study` in place of those of profile ``smoke``, beside its music."""


@functools.cache
def noise(name: str) -> np.ndarray:
    """Coloured noise [2, T] whose loudness moves, another for every name."""
    generator = np.random.default_rng(list(name.encode()))
    samples = round(RATE * SECONDS)
    wave = np.cumsum(generator.standard_normal((2, samples)), axis=1)
    wave -= np.cumsum(np.pad(wave, ((0, 0), (9, 0)))[:, :samples] - wave, axis=1) * 0.01
    wave = np.diff(wave, prepend=0.0) + 0.5 * generator.standard_normal((1, samples))
    swell = 1 + np.sin(2 * np.pi * generator.uniform(0.3, 2) * np.arange(samples) / RATE)
    return (0.1 * wave * swell / np.abs(wave).max()).astype(np.float32)


def music(folder: Path) -> dict[str, str]:
    """Write four unlabelled songs of noise, three labelled ones to train on, one to test on: the fields that say so."""
    if not folder.exists():
        for song in ("one", "two", "three", "four"):
            audio.write(folder / "unlabelled" / f"{song}.wav", noise(song), RATE)
        for split, song in (("train", "a"), ("train", "b"), ("train", "c"), ("test", "d")):
            for stem in STEMS:
                audio.write(folder / "labelled" / split / song / f"{stem}.wav", noise(f"{song} {stem}"), RATE)
    return {"corpus.labeled": str(folder / "labelled"), "corpus.unlabeled": str(folder / "unlabelled")}


def study(folder: Path, changes: dict[str, object] | None = None, results: str = "results") -> Study:
    """A study of noise in a folder, with fields replaced; one of the labelled songs to train on is for validation."""
    fields = {**SMALL, **music(folder / "music"), "results": str(folder / results), **(changes or {})}
    return Study(load("smoke", assignments(fields)))


def profile_file(study: Study) -> str:
    """The profile of a study as a file beside its results: its path."""
    file = study.results.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(to_dict(study.profile)), "utf-8")
    return str(file)


def assignments(fields: dict[str, object]) -> list[str]:
    """Fields as a command line takes them."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()]
