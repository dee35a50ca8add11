"""A passage of a song with the estimates of several methods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.signal import stft

REFERENCE = "reference"
LOWEST = 40
"""Hz, in spectrograms."""


@dataclass(frozen=True)
class Excerpt:
    """From ``start`` (s): ``mixture`` [2, T], and the stems [4, 2, T] of the reference and of every method, by name."""

    song: str
    start: float
    rate: int
    mixture: np.ndarray
    versions: dict[str, np.ndarray]
    scored: dict[str, np.ndarray] | None = None
    """uSDR of the uncompressed versions; None: computed from ``versions``."""

    @cached_property
    def gain(self) -> float:
        """The common gain of all versions, so that nothing clips and levels stay comparable."""
        peak = max(float(np.abs(wave).max()) for wave in (self.mixture, *self.versions.values()))
        return 0.9 / peak if peak else 1.0

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """uSDR [4] of the excerpt in dB, by version; empty without a reference."""
        if self.scored is not None:
            return self.scored
        from lib.scoring import usdr  # imports torch

        stems = self.versions.get(REFERENCE)
        others = {} if stems is None else {name: self.versions[name] for name in self.versions if name != REFERENCE}
        return {name: usdr(stems, wave) for name, wave in others.items()}

    @cached_property
    def loudest(self) -> float:
        """The maximum of the mixture's spectrogram: 0 dB in every spectrogram of this song."""
        return float(levels(self.mixture, self.rate).max())


def levels(wave: np.ndarray, rate: int) -> np.ndarray:
    """Spectrogram of [2, T] in dB [160, frames]: mean power of both channels in windows of about 93 ms.

    Frequencies are on a logarithmic scale, from `LOWEST` to half the rate.
    """
    size = 1 << round(np.log2(0.093 * rate))
    wave = np.pad(wave, ((0, 0), (0, max(size - wave.shape[-1], 0))))
    frequencies, _, spectrum = stft(wave, rate, nperseg=size, noverlap=size - size // 4)
    rows = np.searchsorted(frequencies, np.geomspace(LOWEST, rate / 2, 160)).clip(max=len(frequencies) - 1)
    return 10 * np.log10(np.square(np.abs(spectrum)).mean(0)[rows] + 1e-20)
