"""Songs of any length, read and resampled block by block."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lib.data import audio


def _ratio(rate: int, new_rate: int) -> tuple[int, int, int]:
    """(up, down, margin): ``up`` new samples for ``down`` old ones, and how many such periods the filter reaches."""
    up, down = new_rate // math.gcd(rate, new_rate), rate // math.gcd(rate, new_rate)
    return up, down, math.ceil((10 * max(up, down) / up + 1) / down)  # scipy's resample_poly: 10 zero crossings a side


class Song:
    """A file on disk that is sliced like an array [2, T] at ``rate``; only the slice asked for is decoded."""

    def __init__(self, path: Path, rate: int):
        self.path, self.rate, self.info = path, rate, audio.probe(path)
        self.shape = (2, math.ceil(self.info.frames * rate / self.info.rate))

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = key[1].indices(self.shape[1])
        up, down, margin = _ratio(self.info.rate, self.rate)
        if up == down:
            return audio.read(self.path, start, stop - start)
        period = max(start // up - margin, 0)
        frames = (math.ceil(stop / up) + margin - period) * down
        wave = audio.read(self.path, period * down, frames, self.rate)
        return wave[:, start - period * up : stop - period * up]


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int, length: int) -> Iterator[np.ndarray]:
    """Resample consecutive blocks [..., n] as if they were one array; yields ``length`` samples in all."""
    up, down, margin = _ratio(rate, new_rate)
    if up == down:
        yield from blocks
        return
    kept, period, sent = None, 0, 0  # the input from ``period * down`` on is kept; ``sent`` samples are out
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            kept = block if kept is None else np.concatenate([kept, block], axis=-1)
        ready = length if block is None else (period + kept.shape[-1] // down - margin) * up
        if kept is not None and ready > sent:
            yield audio.resample(kept, rate, new_rate)[..., sent - period * up : ready - period * up]
            sent, following = ready, max(ready // up - margin, 0)
            kept, period = kept[..., (following - period) * down :], following
