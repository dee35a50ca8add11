"""Which segments of a song are heard: those that are not half silent (arXiv 2505.07631)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lib.data.audio import SILENT_PEAK
from lib.data.tracks import Track

SILENCE_CHUNK = 0.5
BLOCK_CHUNKS = 100


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
