"""Which segments of which songs are worth training on: every song is scanned once, the result stored as a table.

Of mixtures those that are not half silent (arXiv 2505.07631), of stems those in which they sound (arXiv 2209.15174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import STEMS
from lib.data.audio import SILENT_PEAK, UndecodableError
from lib.data.tracks import Skipped, Track, corpus_fingerprint, in_threads, skip
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

SILENCE_CHUNK = 0.5
BLOCK_CHUNKS = 100
ACTIVITY_CHUNKS = 10
ENERGY_FLOOR, ENERGY_QUANTILE, ENERGY_THRESHOLD = 1e-5, 0.15, 1e-3


@dataclass(frozen=True)
class Manifest:
    """Usable segments, a row each: ``track`` (index into the list of tracks), ``role``, ``start`` and ``seconds``.

    ``skipped`` lists the tracks that turned out to be undecodable somewhere in the middle.
    """

    table: pd.DataFrame
    skipped: list[Skipped]


def mixture_manifest(
    tracks: Sequence[Track],
    seconds: float,
    hop_seconds: float,
    cache: Path,
    workers: int = 1,
    drop_whole_track: bool = False,
) -> Manifest:
    """`audible_segments` of every track's mixture, in threads; read back from ``cache`` if nothing changed.

    A `lib.data.collection.Collection` has its own, by the same rules, from its scan. With ``drop_whole_track``, a track
    that has a half silent segment is skipped as a whole, as in the published preparation of FMA.
    """
    if hasattr(tracks, "segments"):
        manifest = Manifest(tracks.segments(), [])
    else:
        rules = ["audible", seconds, hop_seconds, SILENT_PEAK, SILENCE_CHUNK]
        finders = {"mixture": lambda t: audible_segments(t, seconds, hop_seconds)}
        manifest = _manifest(tracks, finders, rules, cache, workers)
    return _whole_tracks(manifest, tracks, seconds, hop_seconds) if drop_whole_track else manifest


def _whole_tracks(manifest: Manifest, tracks: Sequence[Track], seconds: float, hop_seconds: float) -> Manifest:
    """The segments of tracks that have them all."""
    count = np.bincount(manifest.table["track"], minlength=len(tracks))
    whole = np.array([len(cuts(track.seconds, seconds, hop_seconds)) for track in tracks])
    dropped = np.flatnonzero((count > 0) & (count < whole))
    skipped = [skip(next(iter(tracks[i].files.values())), "a segment is half silent") for i in dropped.tolist()]
    table = manifest.table[~manifest.table["track"].isin(dropped)].reset_index(drop=True)
    return Manifest(table, [*manifest.skipped, *skipped])


def stem_manifest(tracks: list[Track], seconds: float, cache: Path, workers: int = 1) -> Manifest:
    """`active_segments` of every stem of every track, in threads; read back from ``cache`` if nothing changed."""
    rules = ["active", seconds, ACTIVITY_CHUNKS, ENERGY_FLOOR, ENERGY_QUANTILE, ENERGY_THRESHOLD]
    finders = {stem: lambda t, stem=stem: active_segments(t, stem, seconds) for stem in STEMS}
    return _manifest(tracks, finders, rules, cache, workers)


def audible_segments(track: Track, seconds: float, hop_seconds: float) -> list[tuple[float, float]]:
    """(start, length) in seconds of the segments of a song's mixture that are not half silent (see `audible`)."""
    peaks = np.concatenate([np.abs(block).max((0, 2)) for block in chunks(track, "mixture", SILENCE_CHUNK)] or [[]])
    return audible(peaks, track.seconds, seconds, hop_seconds)


def audible(peaks: np.ndarray, song_seconds: float, seconds: float, hop_seconds: float) -> list[tuple[float, float]]:
    """(start, length) in seconds of segments every ``hop_seconds``, less the half silent ones (arXiv 2505.07631).

    ``peaks`` [chunks] are those of the song's 0.5 s chunks; a segment is half silent if at least half of its chunks
    are. The last one may be up to a chunk short: FMA's 30 s clips last 29.98 s or so.
    """
    silent = peaks < SILENT_PEAK
    found = []
    for start, length in cuts(song_seconds, seconds, hop_seconds):
        inside = silent[round(start / SILENCE_CHUNK) : round((start + seconds) / SILENCE_CHUNK)]
        if len(inside) and inside.mean() < 0.5:
            found.append((start, length))
    return found


def cuts(song_seconds: float, seconds: float, hop_seconds: float) -> list[tuple[float, float]]:
    """(start, length) in seconds of all segments every ``hop_seconds``, silent or not; the last as in `audible`."""
    steps = range(int((song_seconds - seconds + SILENCE_CHUNK) / hop_seconds) + 1)
    starts = [step * hop_seconds for step in steps if step * hop_seconds + seconds < song_seconds + SILENCE_CHUNK]
    return [(start, min(seconds, song_seconds - start)) for start in starts]


def chunks(track: Track, role: str, seconds: float) -> Iterator[np.ndarray]:
    """Blocks [2, chunks, samples] of whole chunks at the native rate, so that memory stays flat in a song's length."""
    samples = max(1, int(seconds * track.rate + 1e-6))
    total = track.frames // samples
    for first in range(0, total, BLOCK_CHUNKS):
        count = min(BLOCK_CHUNKS, total - first)
        wave = track.read(role, first * samples / track.rate, count * samples / track.rate)
        yield wave.reshape(2, count, samples)


def active_segments(track: Track, stem: str, seconds: float) -> list[tuple[float, float]]:
    """(start, length) in seconds of the segments in which a stem sounds (BSRNN, arXiv 2209.15174).

    Segments overlap by half and have 10 chunks. A chunk's energy is the sum of squares over samples and channels: with
    sums the floor of 1e-5 and the threshold of 1e-3 mean -98 and -78 dBFS, absence of sound; with means they would mean
    -50 and -30 dBFS and drop soft singing. A song shorter than a segment is one segment.
    """
    seconds = min(seconds, track.seconds)
    chunk = seconds / ACTIVITY_CHUNKS
    energy = np.concatenate([np.square(block, dtype=np.float64).sum((0, 2)) for block in chunks(track, stem, chunk)])
    energy = np.maximum(energy, ENERGY_FLOOR)
    active = energy >= max(np.quantile(energy, ENERGY_QUANTILE), ENERGY_THRESHOLD)
    firsts = range(0, len(active) - ACTIVITY_CHUNKS + 1, ACTIVITY_CHUNKS // 2)
    return [(first * chunk, seconds) for first in firsts if active[first : first + ACTIVITY_CHUNKS].mean() >= 0.5]


def _manifest(tracks: list[Track], finders: dict[str, Callable], rules: list, cache: Path, workers: int) -> Manifest:
    path = cache / f"manifest-{fingerprint([corpus_fingerprint(tracks), rules])}.csv"
    if not path.exists():
        found = in_threads(lambda track: _segments(track, finders), tracks, workers, "finding segments")
        rows = [(index, *row) for index, rows in enumerate(found) for row in rows]
        table = pd.DataFrame(rows, columns=["track", "role", "start", "seconds", "reason"])
        with atomic(path) as temporary:
            table.to_csv(temporary, index=False)
    table = pd.read_csv(path, keep_default_na=False)
    bad = table["reason"] != ""
    skipped = [skip(next(iter(tracks[row.track].files.values())), row.reason) for row in table[bad].itertuples()]
    return Manifest(table[~bad].drop(columns="reason").reset_index(drop=True), skipped)


def _segments(track: Track, finders: dict[str, Callable]) -> list[tuple]:
    try:
        return [(role, start, length, "") for role, find in finders.items() for start, length in find(track)]
    except UndecodableError as error:
        return [("", 0.0, 0.0, error.reason)]
