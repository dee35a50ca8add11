"""Data: random crops against libsndfile reading the same frames, large collections, and making the embedded corpus."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from lib.data.collection import SCHEMA, Collection, load, scan
from lib.data.composed import corpus, render
from lib.data.composed.compose import compose
from lib.data.corpora import of_split
from lib.data.segments import Manifest, mixture_manifest
from lib.data.tracks import Rules, Track
from lib.mixing import Crops, MixturesOfMixtures
from lib.profile.fields import Rendered

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
        wave = render.render(compose(0, "unlabeled", number, SONG_SECONDS), RATE).sum(0)
        if kind == "mp3":
            corpus.write_mp3(path, wave, RATE)
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
    corpus.build(CORPUS, CORPUS_RATE, folder)
    return time.perf_counter() - started


def clips(folder: Path, songs: int) -> list[tuple[str, str]]:
    """(path, split) of so many MP3s of 30 s at 44.1 kHz, as FMA's are, made in ``folder``; eight of them differ."""
    for number in range(songs):
        path = folder / f"{number:06d}.mp3"
        if number < 8:
            wave = render.render(compose(0, "unlabeled", number, 30.0), RATE).sum(0)
            corpus.write_mp3(path, wave, RATE)
        else:
            shutil.copy(folder / f"{number % 8:06d}.mp3", path)
    return [(f"{number:06d}.mp3", "train") for number in range(songs)]


def scanned(folder: Path, listed: list[tuple[str, str]], workers: int) -> Collection:
    """A scan of `clips` from the start, by the recipe's rules."""
    with tempfile.TemporaryDirectory() as cache:
        return scan(folder, [listed], Rules(10.0, RATE, stereo=True), 5.0, Path(cache), workers)[0]


def collection_mixtures(tracks: Collection) -> MixturesOfMixtures:
    """Mixtures of mixtures of 6 s, as pre-training by the recipe draws them."""
    manifest = mixture_manifest(tracks, 10.0, 5.0, tracks.root)
    return MixturesOfMixtures(Crops(tracks, manifest, round(CROP_SECONDS * RATE), RATE), 0, (-5.0, 5.0))


def open_manifest(path: Path) -> MixturesOfMixtures:
    """From a manifest on disk to the data set that training reads, as a start of training does."""
    return collection_mixtures(of_split(load(path.parent, path)[0], "train"))


def cores_to_feed(mixtures_per_second: float, crops_per_second: float) -> int:
    """Cores that decode as fast as a GPU trains: it takes two crops for each mixture of mixtures.

    ``mixtures_per_second`` is what the GPU was measured to train on, ``crops_per_second`` what one core decodes.
    """
    return math.ceil(2 * mixtures_per_second / crops_per_second)


def synthetic_manifest(path: Path, songs: int, segments: int) -> Path:
    """Write the manifest of a collection that has so many songs of so many segments each, in the place of a scan."""
    song, at = np.repeat(np.arange(songs), segments), np.tile(np.arange(segments), songs)
    count = len(song)
    names = [f"fma_full/{number // 1000:03d}/{number:06d}.mp3" for number in range(songs)]
    digests = [f"{number:024x}" for number in range(songs)]
    columns = {
        "path": pa.DictionaryArray.from_arrays(song, names).cast(pa.string()),
        "rate": np.full(count, RATE, np.int32),
        "frames": np.full(count, (5 + 5 * segments) * RATE),
        "digest": pa.DictionaryArray.from_arrays(song, digests).cast(pa.string()),
        "start": 5.0 * at,
        "length": np.full(count, 10.0),
        "level": np.full(count, -20, np.float32),
        "reason": pa.nulls(count, pa.string()),
    }
    split = pa.DictionaryArray.from_arrays((song % 10 == 0).astype(np.int8), ["train", "validation"])
    table = pa.table(columns, SCHEMA).append_column("split", split.cast(pa.string()))
    pq.write_table(table, path, compression="zstd")
    return path
