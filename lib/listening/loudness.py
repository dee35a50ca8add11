"""Loudness (ITU-R BS.1770-4), and gains for equal loudness without clipping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyloudnorm

BLOCK = 0.4
"""Length of a gating block in seconds; BS.1770 defines no loudness of shorter signals."""
HEADROOM = 0.98


def loudness(wave: np.ndarray, rate: int) -> float:
    """Integrated loudness of [C, T] in LUFS; minus infinity for silence and for signals shorter than `BLOCK`."""
    if wave.shape[-1] < BLOCK * rate or not np.abs(wave).max():
        return -np.inf
    with np.errstate(divide="ignore"):
        return float(pyloudnorm.Meter(rate).integrated_loudness(np.asarray(wave, np.float64).T))


def equal_loudness(waves: Sequence[np.ndarray], rate: int, target: float = np.inf) -> np.ndarray:
    """Gains in dB that bring every [C, T] to one loudness: ``target`` in LUFS, or less if a peak would clip.

    Signals without loudness (silence) have a gain of 0 dB.
    """
    measured = np.array([loudness(wave, rate) for wave in waves])
    audible = np.isfinite(measured)
    if not audible.any():
        return np.zeros(len(waves))
    peaks = np.array([np.abs(wave).max() or 1.0 for wave in waves])
    highest = (measured + 20 * np.log10(HEADROOM / peaks))[audible].min()
    return np.where(audible, min(target, highest) - np.where(audible, measured, 0.0), 0.0)
