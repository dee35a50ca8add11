"""Players with waveforms and spectrograms as static HTML, for notebooks and exported pages."""

from __future__ import annotations

import base64
import functools
import html
import io

import numpy as np
import PIL.Image
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib import STEMS
from lib.listening.excerpt import LOWEST, Excerpt, levels
from lib.listening.export import audio_tag, vorbis

COLUMNS = 2000
"""Of a drawn waveform: several a pixel, as a line of less than one needs to fill it."""


def draw(axes: Axes, excerpt: Excerpt, wave: np.ndarray) -> AxesImage:
    """Spectrogram of [2, T]: time in s, frequency in Hz from 40 Hz, level in dB on the scale of the song."""
    return _image(axes, *_spectrogram(excerpt, wave))


def _image(axes: Axes, level: np.ndarray, edges: tuple[float, ...] | None = None) -> AxesImage:
    axes.set_yticks(np.log10([100, 1000]), ["100", "1k"])
    return axes.imshow(level, origin="lower", aspect="auto", extent=edges, vmin=-80, vmax=0, cmap="magma")


def _spectrogram(excerpt: Excerpt, wave: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Levels [rows, frames] in dB, and the edges in s and log10(Hz)."""
    end = excerpt.start + wave.shape[-1] / excerpt.rate
    edges = (excerpt.start, end, *np.log10([LOWEST, excerpt.rate / 2]))
    return levels(wave, excerpt.rate) - excerpt.loudest, edges


def picture(excerpt: Excerpt, wave: np.ndarray) -> bytes:
    """Waveform at the gain of the song, above its spectrogram, as WebP of 660 x 150 pixels."""
    level, edges = _spectrogram(excerpt, wave)
    line, image, empty = _frame(edges)
    starts = np.arange(COLUMNS) * wave.shape[-1] // COLUMNS  # of a column, all that one sees is its extremes
    outline = [bound.reduceat(wave.mean(0), starts) for bound in (np.minimum, np.maximum)]
    line.set_data(np.linspace(*edges[:2], 2 * COLUMNS), np.stack(outline, 1).ravel() * excerpt.gain)
    image.set_data(level)
    canvas = image.figure.canvas
    canvas.restore_region(empty)
    for artist in (line, image, *line.axes.spines.values(), *image.axes.spines.values()):
        artist.axes.draw_artist(artist)
    content = io.BytesIO()
    PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(content, "webp", quality=55)
    return content.getvalue()


@functools.lru_cache(1)  # axes and ticks take longer than what is drawn in them, and pictures of an excerpt share them
def _frame(edges: tuple[float, ...]) -> tuple[Line2D, AxesImage, object]:
    """The waveform and the spectrogram of the figure of `picture`, without values, and the figure without them."""
    figure = Figure(figsize=(6.6, 1.5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    figure.subplots_adjust(left=0.075, right=0.9, top=0.97, bottom=0.17, hspace=0.08)
    (line,) = above.plot([], color="0.35", linewidth=0.4)
    above.set(ylim=(-1, 1), yticks=(-1, 0, 1))
    image = _image(below, np.zeros((1, 1)), edges)
    below.set_ylabel("Hz", labelpad=0, fontsize=6.5)
    below.xaxis.set_major_formatter("{x:g} s")
    below.yaxis.set_minor_locator(NullLocator())
    bar = figure.colorbar(image, cax=figure.add_axes((0.915, 0.17, 0.012, 0.8)), ticks=(-80, -40, 0), format="{x:g} dB")
    for axes in (above, below, bar.ax):
        axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    for artist in (line, image):
        artist.set_animated(True)
    canvas.draw()
    return line, image, canvas.copy_from_bbox(figure.bbox)


def row(excerpt: Excerpt, name: str, wave: np.ndarray, note: str = "") -> str:
    """One wave [2, T] as HTML: name, note, player and picture."""
    played = audio_tag(vorbis(wave * excerpt.gain, excerpt.rate), style="width:210px;height:32px")
    drawn = base64.b64encode(picture(excerpt, wave)).decode()
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0 8px;line-height:1.4">'
        f'<div style="width:210px"><b>{html.escape(name)}</b><br>{html.escape(note)}<br>'
        f"{played}</div>"
        '<img alt="waveform and spectrogram" style="flex:1 1 400px;min-width:0;max-width:660px" '
        f'src="data:image/webp;base64,{drawn}"></div>'
    )


def decibels(value: float) -> str:
    """A score as text."""
    return "silent" if np.isnan(value) else f"{value:z.1f} dB"


def rows(excerpt: Excerpt, stem: str) -> str:
    """One stem as HTML: one row per version, with its uSDR."""
    at = STEMS.index(stem)
    notes = {name: f"uSDR {decibels(values[at])}" for name, values in excerpt.scores.items()}
    return "".join(row(excerpt, name, wave[at], notes.get(name, "")) for name, wave in excerpt.versions.items())


def page(excerpt: Excerpt, unfolded: tuple[str, ...] = ("vocals",)) -> str:
    """A song as HTML: the mixture, then every stem, folded under its scores unless ``unfolded``."""
    end = excerpt.start + excerpt.mixture.shape[-1] / excerpt.rate
    parts = [f"<h3>{html.escape(excerpt.song)}</h3>"]
    parts.append(row(excerpt, "mixture", excerpt.mixture, f"{excerpt.start:.1f} s to {end:.1f} s"))
    for stem in sorted(STEMS, key=lambda stem: stem not in unfolded):
        scores = " · ".join(f"{name} {decibels(values[STEMS.index(stem)])}" for name, values in excerpt.scores.items())
        title = f"<summary><b>{stem}</b> {html.escape(scores)}</summary>"
        parts.append(f"<details{' open' * (stem in unfolded)}>{title}{rows(excerpt, stem)}</details>")
    return "".join(parts)


def compare(excerpt: Excerpt, stems: tuple[str, ...] = ("vocals", "drums")) -> Image:
    """Spectrograms on one colour scale: one row per stem, columns for the mixture and every version."""
    names = ["mixture", *excerpt.versions]
    figure = Figure(figsize=(2.0 * len(names), 2.0 * len(stems)), dpi=90, layout="constrained")
    grid = figure.subplots(len(stems), len(names), sharex=True, sharey=True, squeeze=False)
    for line, stem in zip(grid, stems, strict=True):
        waves = [excerpt.mixture, *(wave[STEMS.index(stem)] for wave in excerpt.versions.values())]
        images = [draw(axes, excerpt, wave) for axes, wave in zip(line, waves, strict=True)]
        line[0].set_ylabel(f"{stem}\nfrequency in Hz")
    for above, below, name in zip(grid[0], grid[-1], names, strict=True):
        above.set_title(name, fontsize=9)
        below.set_xlabel("time in s")
    figure.colorbar(images[0], ax=grid, label="level in dB")
    content = io.BytesIO()
    figure.savefig(content, format="jpeg")
    return Image(content.getvalue(), format="jpeg")
