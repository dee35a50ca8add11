"""Training examples: mixtures of mixtures, dynamic mixtures of stems, and fixed sets for validation.

Every example is a pure function of (seed, index), so neither the number of workers nor an interruption changes what a
step sees.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from lib import STEMS, UserError
from lib.data.segments import Manifest
from lib.data.tracks import Track, expect
from lib.machine.processes import heed_parent_alone

VERSION = 1
"""Raise it when the same files and seed give other examples, by mixing, cropping, reading or the rules of segments."""
Range = tuple[float, float]
SILENT_RMS = 1e-4
TRIES = 10
ORDER, EXAMPLE = 0, 1
"""Two streams of random numbers under one seed: the order of an epoch, and what happens within an example."""


class Crops:
    """Random crops of ``samples`` at ``rate`` from a manifest's segments, straight out of the compressed files.

    No copy of the corpus is held in memory: 2.5 s out of a 16 kHz MP3 take under 2 ms, a training step on the same CPU
    hundreds.
    """

    def __init__(self, tracks: Sequence[Track], manifest: Manifest, samples: int, rate: int):
        self.tracks, self.samples, self.rate = tracks, samples, rate
        table = manifest.table
        self.track, self.role = table["track"].to_numpy(), table["role"].to_numpy()
        self.start, self.seconds = table["start"].to_numpy(float), table["seconds"].to_numpy(float)

    def draw(self, row: int, generator: np.random.Generator) -> np.ndarray:
        """A crop [2, samples] of one segment; redrawn a few times if it happens to fall on silence."""
        span = self.samples / self.rate
        for _ in range(TRIES):
            start = self.start[row] + generator.uniform() * max(self.seconds[row] - span, 0.0)
            wave = self.tracks[self.track[row]].read(self.role[row], start, span, self.rate)
            # where a sixteenth of the crop holds more than silence has in all of it, the rest needs no look
            if any(rms(wave[:, : self.samples // part + 1]) > SILENT_RMS * part**0.5 for part in (16, 1)):
                break
        return wave


class MixturesOfMixtures(Dataset):
    """Pairs of mixtures for MixIT: item -> float32 [2, C, samples], whose sum is the mixture of mixtures.

    In every ``pairs`` items, an epoch, each segment is used once (one is left over if their number is odd), and a pair
    comes from two different tracks unless most segments belong to one. With ``same_song`` an epoch holds one pair a
    track, from its two halves, so that what is mixed shares key, tempo and instruments. The first mixture is rescaled
    so that its level (RMS) relative to the second is uniform in ``level_db``. Raises `UserError` with fewer than two
    segments.
    """

    def __init__(self, crops: Crops, seed: int, level_db: Range, same_song: bool = False):
        self.crops = _halves(crops) if same_song else crops
        self.seed, self.level_db, self.same_song = seed, level_db, same_song
        self.pairs = len(self.crops.track) // 2
        self._epoch, self._order = -1, np.empty((2, 0), int)
        if self.pairs == 0:
            found = f"{len(crops.track)} audible segment(s) in {len(crops.tracks)} songs"
            raise UserError(f"{found}: at least two are needed")

    def order(self, epoch: int) -> np.ndarray:
        """Rows of the manifest [2, pairs] that an epoch mixes."""
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, ORDER, epoch])
            if self.same_song:
                halves = generator.permuted([[0, 1]] * self.pairs, axis=1).T
                self._order = 2 * generator.permutation(self.pairs) + halves
            else:
                shuffled = generator.permutation(len(self.crops.track))
                self._order = _unlike(shuffled[: 2 * self.pairs].reshape(2, -1), self.crops.track)
            self._epoch = epoch
        return self._order

    def __getitem__(self, index: int) -> torch.Tensor:
        epoch, pair = divmod(index, self.pairs)
        generator = np.random.default_rng([self.seed, EXAMPLE, index])
        first, second = (self.crops.draw(row, generator) for row in self.order(epoch)[:, pair])
        gain = 10 ** (generator.uniform(*self.level_db) / 20) * rms(second) / max(rms(first), SILENT_RMS)
        return torch.from_numpy(np.stack([first * np.float32(gain), second]))


def _halves(crops: Crops) -> Crops:
    """Two segments a track in place of its own: the first and the second half of what they span."""
    segments = pd.DataFrame({"track": crops.track, "role": crops.role, "start": crops.start})
    spans = (
        segments.assign(end=crops.start + crops.seconds)
        .groupby("track", as_index=False)
        .agg(role=("role", "first"), start=("start", "min"), end=("end", "max"))
    )
    spans["seconds"] = (spans["end"] - spans["start"]) / 2
    second = spans.assign(start=spans["start"] + spans["seconds"])
    both = pd.concat([spans, second]).sort_values(["track", "start"], ignore_index=True)
    return Crops(crops.tracks, Manifest(both, []), crops.samples, crops.rate)


def _unlike(pairs: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Exchange second members of ``pairs`` [2, n] until no pair has one track twice, as far as that is possible.

    A pair (a, a) can exchange with any pair that has no a; if there is none, a has more than half of all segments.
    """
    one, two = track[pairs]
    for i in np.flatnonzero(one == two):
        if one[i] != two[i]:
            continue  # mended by an earlier exchange
        others = np.flatnonzero((one != one[i]) & (two != one[i]))
        if len(others):
            j = others[np.searchsorted(others, i) % len(others)]
            pairs[1, [i, j]], two[[i, j]] = pairs[1, [j, i]], two[[j, i]]
    return pairs


class StemMixtures(Dataset):
    """Dynamic mixing: item -> float32 stems [4, C, samples] in the order of `lib.STEMS`, whose sum is the mixture.

    Each stem comes from a random track and a random active segment of it, independently of the others, is brought to
    unit RMS, then to a gain uniform in ``gain_db``, and silenced with ``silence_probability``, never all four. Raises
    `UserError` if a stem has no active segment at all.
    """

    def __init__(self, crops: Crops, seed: int, gain_db: Range, silence_probability: float):
        expect(crops.tracks, "train")
        self.crops, self.seed, self.gain_db, self.silence_probability = crops, seed, gain_db, silence_probability
        of_stems = [np.flatnonzero(crops.role == stem) for stem in STEMS]
        self.rows = [[rows[crops.track[rows] == track] for track in np.unique(crops.track[rows])] for rows in of_stems]
        silent = [stem for stem, songs in zip(STEMS, self.rows, strict=True) if not songs]
        if silent:
            raise UserError(
                f"no active segment of {', '.join(silent)} in {len(crops.tracks)} labelled songs: add songs"
            )

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = np.random.default_rng([self.seed, EXAMPLE, index])
        kept = np.zeros(len(STEMS), bool)
        while not kept.any():
            kept = generator.uniform(size=len(STEMS)) >= self.silence_probability
        stems = np.zeros((len(STEMS), 2, self.crops.samples), np.float32)
        for stem in np.flatnonzero(kept):
            songs = self.rows[stem]
            wave = self.crops.draw(generator.choice(songs[generator.integers(len(songs))]), generator)
            gain = 10 ** (generator.uniform(*self.gain_db) / 20) / max(rms(wave), SILENT_RMS)
            stems[stem] = wave * np.float32(gain)
        return torch.from_numpy(stems)


def rms(wave: np.ndarray) -> float:
    """Root mean square over channels and samples."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def validation_mixtures(count: int, dataset: MixturesOfMixtures, rank: int = 0, ranks: int = 1) -> list[torch.Tensor]:
    """The first ``count`` mixtures of mixtures [2, C, samples], the same at every call; one process's share of them."""
    return [dataset[index] for index in range(rank, count, ranks)]


def in_batches(examples: Iterable[torch.Tensor], batch: int) -> Iterator[torch.Tensor]:
    """The examples in tensors [batch, ...] and a rest, none of them before it is asked for."""
    remaining = iter(examples)
    while some := list(itertools.islice(remaining, batch)):
        yield torch.stack(some)


def song_segments(tracks: list[Track], seconds: float, rate: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(index of the track, stems [4, C, round(seconds * rate)]) for consecutive whole segments of every song.

    A song shorter than a segment gives one, padded with zeros.
    """
    for index, track in enumerate(tracks):
        for step in range(max(1, int(track.seconds / seconds + 1e-6))):
            yield index, torch.from_numpy(track.stems(step * seconds, seconds, rate))


def loader(
    dataset: Dataset, batch: int, steps: range, workers: int, rank: int = 0, ranks: int = 1, pinned: bool = False
) -> Iterator[torch.Tensor]:
    """Batches of consecutive ``steps`` in order, ``batch`` examples on each of ``ranks`` processes.

    The position in the data is the step alone. Worker processes run one thread each (torch sees to that) and the
    global random state is neither read nor changed. Workers hand over examples, which go through shared memory, and
    batches are put together here, in page-locked memory if ``pinned``.

    Raises: UserError if shared memory is too small for two examples a worker.
    """
    indices = ((step * ranks + rank) * batch + number for step in steps for number in range(batch))
    options = {"generator": torch.Generator().manual_seed(0), "worker_init_fn": heed_parent_alone}
    if workers and steps:
        ahead = examples_ahead(dataset[(steps.start * ranks + rank) * batch].nbytes, workers)
        options["prefetch_factor"] = min(ahead, max(2, math.ceil(2 * batch / workers)))
    examples = iter(DataLoader(dataset, batch_size=None, sampler=indices, num_workers=workers, **options))
    return (stacked([next(examples) for _ in range(batch)], pinned) for _ in steps)


def stacked(examples: list[torch.Tensor], pinned: bool) -> torch.Tensor:
    """The examples as one tensor [example, ...]."""
    whole = torch.empty(len(examples), *examples[0].shape, dtype=examples[0].dtype, pin_memory=pinned)
    return torch.stack(examples, out=whole)


SHARED_MEMORY = Path("/dev/shm")


def examples_ahead(size: int, workers: int) -> int:
    """How many examples of ``size`` bytes each worker may have ready in half of the shared memory that is free.

    Raises: UserError if that is not even two.
    """
    if not SHARED_MEMORY.is_dir():
        return 2
    free = shutil.disk_usage(SHARED_MEMORY).free
    if (ahead := int(free / 2 / size / workers)) < 2:
        raise UserError(
            f"{SHARED_MEMORY}: {free / 1e6:,.0f} MB of shared memory are free, {workers} processes that read audio "
            f"need {4 * size * workers / 1e6:,.0f}: give a container more (docker run --shm-size=2g), or lower "
            "corpus.workers"
        )
    return ahead
