"""Data: random crops against libsndfile reading the same frames, and the time to make the embedded corpus."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from lib.corpora import Track, rendered
from lib.corpora.compose import compose
from lib.mixing import Crops
from lib.profile import Rendered
from lib.segments import Manifest

RATE, SONGS, SONG_SECONDS, CROPS, CROP_SECONDS = 44100, 4, 60.0, 40, 6.0
CORPUS = Rendered(seed=0, song_seconds=20.0, train_songs=8, validation_songs=4, test_songs=12, unlabeled_songs=276)
CORPUS_RATE = 16000


def crop_readers(folder: Path, kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """(ours, peer): each reads the same 40 crops of 6 s out of 4 songs of 60 s at 44.1 kHz that are made in ``folder``.

    ``kind`` is "mp3" or "wav" (16 bits, as MUSDB18-HQ is). Ours draws them as training does; the peer opens, seeks and
    reads with libsndfile and does nothing else.
    """
    paths = [folder / f"{number}.{kind}" for number in range(SONGS)]
    for number, path in enumerate(paths):
        wave = rendered.render(compose(0, "unlabeled", number, SONG_SECONDS), RATE).sum(0)
        if kind == "mp3":
            rendered.write_mp3(path, wave, RATE)
        else:
            soundfile.write(path, wave.T, RATE, "PCM_16")
    frames = round(SONG_SECONDS * RATE)
    tracks = [Track(path.name, "train", RATE, frames, {"mixture": path}, path.name) for path in paths]
    samples, generator = round(CROP_SECONDS * RATE), np.random.default_rng(0)
    songs, starts = generator.integers(SONGS, size=CROPS), generator.integers(frames - samples, size=CROPS)
    # a segment as long as a crop leaves `Crops` no choice: both sides read the same frames
    segments = {"track": songs, "role": "mixture", "start": starts / RATE, "seconds": CROP_SECONDS}
    crops = Crops(tracks, Manifest(pd.DataFrame(segments), []), samples, RATE)

    def ours() -> None:
        for row in range(CROPS):
            crops.draw(row, generator)

    def peer() -> None:
        for song, start in zip(songs, starts, strict=True):
            with soundfile.SoundFile(paths[song]) as file:
                file.seek(start)
                file.read(samples, dtype="float32")

    return ours, peer


def corpus_seconds(folder: Path) -> float:
    """Seconds by the clock to make the embedded corpus, 300 songs of 20 s at 16 kHz, in ``folder``, on all cores."""
    started = time.perf_counter()
    rendered.build(CORPUS, CORPUS_RATE, folder)
    return time.perf_counter() - started
