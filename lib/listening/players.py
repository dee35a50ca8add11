"""Waves as players with their pictures: HTML that works without a kernel, in notebooks and in exported pages."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from matplotlib.ticker import FuncFormatter, NullLocator
from scipy.signal import stft

from lib import STEMS
from lib.scoring import usdr

REFERENCE = "reference"
LEVELS = (-80.0, 0.0)
"""The range of every spectrogram in dB; 0 dB is the loudest point of the song's mixture."""
LOWEST = 40.0
TICKS = (100, 1000, 10000)
COMPRESSION = 0.9
"""Of Ogg Vorbis, 0 to 1: about 40 kbit/s at 16 kHz stereo, so that an executed notebook stays small enough to share."""


@dataclass(frozen=True)
class Excerpt:
    """What is heard side by side: seconds [start, start + T / rate) of a song's ``mixture`` [2, T].

    ``versions`` maps a method's name to its stems [4, 2, T]; `REFERENCE` is among them where the stems are known.
    """

    song: str
    start: float
    rate: int
    mixture: np.ndarray
    versions: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def gain(self) -> float:
        """One gain for everything of this song, so that nothing clips and no error is hidden by a level."""
        peak = max(float(np.abs(wave).max(initial=0.0)) for wave in (self.mixture, *self.versions.values()))
        return 0.9 / peak if peak else 1.0

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """uSDR in dB of the seconds heard, per method and stem; empty without a reference."""
        stems = self.versions.get(REFERENCE)
        if stems is None:
            return {}
        return {name: usdr(stems, wave) for name, wave in self.versions.items() if name != REFERENCE}

    @cached_property
    def top(self) -> float:
        """Power of the loudest point of the mixture's spectrogram, 0 dB of every spectrogram of this song."""
        return float(power(self.mixture, self.rate)[2].max(initial=0.0)) or 1.0


def power(wave: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectrogram of [2, T], mean power of both channels in windows of 93 ms: (Hz [F], s [N], [F, N])."""
    size = 1 << round(np.log2(0.093 * rate))
    frequencies, times, spectrum = stft(wave, rate, nperseg=size, noverlap=size - size // 4)
    return frequencies, times, np.square(np.abs(spectrum)).mean(0)


def draw(axes: plt.Axes, excerpt: Excerpt, wave: np.ndarray):
    """Spectrogram in dB over time in s and frequency in Hz (logarithmic), coloured alike for the whole song."""
    frequencies, times, energy = power(wave, excerpt.rate)
    rows = np.geomspace(LOWEST, excerpt.rate / 2, 160)
    energy = energy[np.searchsorted(frequencies, rows).clip(max=len(frequencies) - 1)]
    level = 10 * np.log10(np.maximum(energy / excerpt.top, 1e-12))
    edges = (excerpt.start, excerpt.start + wave.shape[-1] / excerpt.rate, np.log10(rows[0]), np.log10(rows[-1]))
    image = axes.imshow(level, origin="lower", aspect="auto", extent=edges, vmin=LEVELS[0], vmax=LEVELS[1], cmap="magma")
    ticks = [tick for tick in TICKS if tick < excerpt.rate / 2]
    axes.set_yticks(np.log10(ticks), ticks)
    axes.set_xlim(edges[:2])
    return image


def picture(excerpt: Excerpt, wave: np.ndarray) -> bytes:
    """Waveform (with the song's gain, as played) over spectrogram, as WebP."""
    figure = plt.Figure(figsize=(6.6, 1.5), dpi=100)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    figure.subplots_adjust(left=0.075, right=0.9, top=0.97, bottom=0.17, hspace=0.08)
    times = excerpt.start + np.arange(wave.shape[-1]) / excerpt.rate
    low, high, at = envelope(wave.mean(0) * excerpt.gain, times)
    above.fill_between(at, low, high, color="0.35", linewidth=0.4, edgecolor="0.35")
    above.set(ylim=(-1, 1), yticks=(-1, 0, 1))
    image = draw(below, excerpt, wave)
    below.set_ylabel("Hz", labelpad=0)
    below.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{second:g} s"))
    below.yaxis.set_minor_locator(NullLocator())
    bar = figure.colorbar(image, cax=figure.add_axes((0.915, 0.17, 0.012, 0.8)), ticks=(-80, -40, 0))
    bar.ax.set_yticklabels(("−80", "−40", "0 dB"))
    for axes in (above, below, bar.ax):
        axes.tick_params(labelsize=6.5, length=2, pad=1.5)
        axes.yaxis.label.set_size(6.5)
    content = io.BytesIO()
    figure.savefig(content, format="webp", pil_kwargs={"quality": 55, "method": 6})
    return content.getvalue()


def envelope(wave: np.ndarray, times: np.ndarray, columns: int = 800) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(minimum, maximum, time) of [T] in at most ``columns`` equal parts: what a waveform's picture can show."""
    starts = np.unique(np.linspace(0, len(wave), min(columns, len(wave)), endpoint=False).astype(int))
    return np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts), times[starts]


def encode(wave: np.ndarray, rate: int) -> bytes:
    """[2, T] as Ogg Vorbis, which every current browser plays."""
    content = io.BytesIO()
    soundfile.write(content, wave.T, rate, format="OGG", subtype="VORBIS", compression_level=COMPRESSION)
    return content.getvalue()


def uri(kind: str, content: bytes) -> str:
    """``content`` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def row(excerpt: Excerpt, name: str, wave: np.ndarray, note: str = "") -> str:
    """One wave [2, T]: its name, a note, a player, and its picture beside them."""
    name, sound = html.escape(name), uri("audio/ogg", encode(wave * excerpt.gain, excerpt.rate))
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0 12px;margin:2px 0">'
        f'<div style="width:230px"><b>{name}</b><br>{html.escape(note)}<br>'
        f'<audio controls preload="metadata" style="width:230px;height:32px" src="{sound}"></audio></div>'
        f'<img alt="{name}: waveform and spectrogram" width="660" height="150" style="max-width:100%" '
        f'src="{uri("image/webp", picture(excerpt, wave))}"></div>'
    )


def decibels(value: float) -> str:
    """A score as text; a silent reference has none."""
    return "reference silent" if np.isnan(value) else f"{value:.1f} dB"


def stem_rows(excerpt: Excerpt, stem: str) -> str:
    """One stem of every version, one below the other, with its uSDR."""
    at = STEMS.index(stem)
    notes = {name: f"uSDR {decibels(scores[at])}" for name, scores in excerpt.scores.items()}
    return "".join(row(excerpt, name, wave[at], notes.get(name, "")) for name, wave in excerpt.versions.items())


def page(excerpt: Excerpt, unfolded: tuple[str, ...] = ("vocals",)) -> str:
    """A song as HTML: the mixture, and below it every stem, folded but for ``unfolded``, its scores in its title."""
    seconds = excerpt.mixture.shape[-1] / excerpt.rate
    parts = [f"<h3>{html.escape(excerpt.song)}</h3>"]
    parts.append(row(excerpt, "mixture", excerpt.mixture, f"{excerpt.start:g} s to {excerpt.start + seconds:.1f} s"))
    for stem in (*unfolded, *(stem for stem in STEMS if stem not in unfolded)):
        at = STEMS.index(stem)
        scores = " · ".join(f"{name} {decibels(values[at])}" for name, values in excerpt.scores.items())
        title = f"<b>{stem}</b> {html.escape(scores)}"
        opened = " open" if stem in unfolded else ""
        parts.append(f"<details{opened}><summary>{title}</summary>{stem_rows(excerpt, stem)}</details>")
    return "".join(parts)


def compare(excerpt: Excerpt, stems: tuple[str, ...] = ("vocals", "drums")) -> plt.Figure:
    """Spectrograms of a few stems (columns: every version; rows: stems) on one colour scale."""
    names = list(excerpt.versions)
    figure, grid = plt.subplots(
        len(stems), len(names), figsize=(2.4 * len(names), 2.1 * len(stems)), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes_row, stem in zip(grid, stems, strict=True):
        at = STEMS.index(stem)
        axes_row[0].set_ylabel(f"{stem}\nfrequency in Hz")
        for axes, name in zip(axes_row, names, strict=True):
            image = draw(axes, excerpt, excerpt.versions[name][at])
            score = f", {decibels(excerpt.scores[name][at])}" if name in excerpt.scores else ""
            axes.set_title(f"{name}{score}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("time in s")
    figure.colorbar(image, ax=grid, label="level in dB", shrink=0.8)
    return figure
