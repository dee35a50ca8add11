"""What a recording sounds like in few numbers, by which duplicates and loops are found."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import stft

from lib.data import audio

SHORTEST = 20.0
"""Seconds: what is shorter is an effect or a jingle."""
RATE, BLOCK_SECONDS = 8000, 60
MIDDLE, WINDOW, HOP, BANDS, LAG = 30.0, 0.8, 0.1, 16, 2.0
"""Seconds in the middle of a piece that its signature holds, of a frame, from frame to frame; mel bands; shift allowed.

Frames this long change little by half a hop: copies that start at another time reach 0.96, other music 0.1.
"""
SAME = 0.9
"""Correlation of the signatures of one recording in two codings."""
LOOP_RATE, REPEATED, SHORTEST_PERIOD = 2000, 0.9, 2.0
"""The waveform of a loop correlates with itself this much at a lag of its period, in seconds."""


class Heard(NamedTuple):
    """Length and, of a loop, period in seconds (0: no loop), and signature; or the ``reason`` to leave a file out."""

    seconds: float | None = None
    period: float = 0.0
    signature: str = ""
    reason: str = ""


def listen(folder: Path, cache: Path, name: str) -> Heard:
    """Decode the whole of a file, once."""
    try:
        path = audio.seekable(folder / name, cache)
        info = audio.probe(path)
        seconds = info.frames / info.rate
        if seconds < SHORTEST:
            return Heard(seconds, reason=f"under {SHORTEST:g} s")
        wave = mono(path, info)
    except audio.UndecodableError as error:
        return Heard(reason=error.reason)
    if np.abs(wave).max() < audio.SILENT_PEAK:
        return Heard(seconds, reason="silent")
    repeated = period(wave)
    once = wave[: round(repeated * RATE)] if repeated else wave
    return Heard(seconds, repeated, base64.b64encode(signature(once).tobytes()).decode())


def mono(path: Path, info: audio.Info) -> np.ndarray:
    """The mean of the channels at 8 kHz [T], decoded in blocks."""
    block = BLOCK_SECONDS * info.rate
    parts = (audio.read(path, at, block).mean(0) for at in range(0, info.frames, block))
    return np.concatenate([audio.resample(part, info.rate, RATE) for part in parts])


def signature(wave: np.ndarray) -> np.ndarray:
    """Levels in mel bands in the middle of ``wave`` [T] at 8 kHz -> int8 [frames, `BANDS`] in dB."""
    half, middle, size = round(MIDDLE * RATE / 2), len(wave) // 2, round(WINDOW * RATE)
    part = wave[max(0, middle - half) : middle + half]
    power = np.abs(stft(part, RATE, nperseg=size, noverlap=size - round(HOP * RATE))[2]) ** 2
    top = np.log1p(RATE / 2 / 700)
    edges = np.round(700 * np.expm1(np.linspace(0, top, BANDS + 1)) * WINDOW).astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=0)
    return np.clip(np.round(10 * np.log10(bands.T + 1e-10)), -100, 27).astype(np.int8)


def likeness(one: str, other: str) -> float:
    """Highest correlation of two signatures, shifted by up to `LAG` seconds; 0 where one of them does not change."""
    one, other = _levels(one), _levels(other)
    frames = min(len(one), len(other)) - 2 * round(LAG / HOP)
    if frames < 1:
        return 0.0
    middle = _normalised(one[(len(one) - frames) // 2 :][:frames])
    return max(float((middle * _normalised(other[at:][:frames])).sum()) for at in range(len(other) - frames + 1))


@functools.lru_cache(4096)
def _levels(coded: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(coded), np.int8).reshape(-1, BANDS).astype(np.float32)


def _normalised(levels: np.ndarray) -> np.ndarray:
    levels = levels - levels.mean(0)
    return levels / max(float(np.linalg.norm(levels)), 1e-6)


def period(wave: np.ndarray) -> float:
    """Smallest lag in seconds, up to half its length, at which ``wave`` [T] at 8 kHz repeats; 0 if it does not.

    By its normalised autocorrelation below 1 kHz, differentiated, lest one kick drum make a loop of techno. Copies
    reach 0.97, what a sequencer plays again with other parts 0.86, what musicians play again much less.
    """
    wave = np.diff(audio.resample(wave, RATE, LOOP_RATE), prepend=np.float32(0))
    count = len(wave)
    size = next_fast_len(2 * count, real=True)
    products = 2 * irfft(np.abs(rfft(wave, size)) ** 2, 2 * size)[:count]  # at twice the rate: peaks are narrow
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    lag = np.arange(count) // 2
    norm = np.sqrt(energy[count - lag] * (energy[count] - energy[lag]))
    found = np.divide(products, norm, out=np.zeros(count), where=norm > 0.3 * energy[count])
    first = round(2 * LOOP_RATE * SHORTEST_PERIOD)
    above = np.flatnonzero(found[first:] >= REPEATED)
    if not len(above):
        return 0.0
    start = first + int(above[0])
    return (start + int(found[start : start + LOOP_RATE // 10].argmax())) / (2 * LOOP_RATE)
