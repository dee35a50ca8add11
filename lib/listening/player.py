"""A player of time-aligned signals in a notebook, with sample-synchronous switching."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence

import anywidget
import numpy as np
import traitlets
from matplotlib.image import imsave

from lib import UserError
from lib.listening.excerpt import levels
from lib.listening.export import audio_tag, encoded, small
from lib.listening.frontend import CSS, module
from lib.listening.loudness import HEADROOM, equal_loudness


class Player(anywidget.AnyWidget):
    """Signals of one length: gapless switching, loop over any region, equal loudness, solo and mute.

    ``signals`` maps names to waves [2, T] or [T] at ``rate`` Hz, ``notes`` names to labels; ``start`` is the time of
    the first sample in s. Playback starts with the signal ``selected``, or with all of them if ``mixed``. All signals
    share one gain, so that nothing clips and levels stay comparable, and are sent as 16-bit FLAC.

    A saved notebook and its HTML export contain plain ``<audio>`` elements, which need neither kernel nor network.

    Raises: UserError if there is no signal, or if they differ in length.
    """

    _esm = module("player.js")
    _css = CSS
    title = traitlets.Unicode().tag(sync=True)
    rate = traitlets.Int().tag(sync=True)
    start = traitlets.Float().tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    signals = traitlets.List(traitlets.Bytes()).tag(sync=True)
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    levels = traitlets.List(traitlets.Float()).tag(sync=True)
    mixed = traitlets.Bool().tag(sync=True)
    selected = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        signals: Mapping[str, np.ndarray],
        rate: int,
        notes: Mapping[str, str] | None = None,
        title: str = "Player",
        start: float = 0.0,
        mixed: bool = False,
        selected: int = 0,
    ):
        waves = scaled(signals)
        super().__init__(
            title=title, rate=rate, start=start, mixed=mixed, selected=selected,
            names=list(signals), notes=[(notes or {}).get(name, "") for name in signals],
            signals=[encoded(wave, rate) for wave in waves], pictures=spectrograms(waves, rate),
            levels=[float(gain) for gain in equal_loudness(waves, rate)],
        )  # fmt: skip
        self._waves = waves

    def __repr__(self) -> str:
        return f"Player({', '.join(self.names)})"  # not the state, which includes the sounds

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.fallback()}, metadata

    def fallback(self) -> str:
        """HTML of the signals that plays without a kernel."""
        lines = [f"<p><b>{html.escape(self.title)}</b></p>"]
        kind, sounds = small(self.signals, self._waves, self.rate)
        for name, note, sound in zip(self.names, self.notes, sounds, strict=True):
            label = f"{html.escape(name)} {html.escape(note)}".strip()
            lines.append(f"<p>{label}<br>{audio_tag(sound, kind)}</p>")
        return "".join(lines)


def spectrograms(waves: Sequence[np.ndarray], rate: int) -> list[bytes]:
    """Spectrograms as WebP files of some 1,000 columns, 80 dB below the loudest of all."""
    drawn = [levels(wave, rate) for wave in waves]
    top, files = max(level.max() for level in drawn), []
    for level in drawn:
        files.append(io.BytesIO())
        thinned = level[:, :: max(1, level.shape[1] // 1000)]
        look = {"vmin": top - 80, "vmax": top, "cmap": "magma", "origin": "lower"}
        imsave(files[-1], thinned, format="webp", pil_kwargs={"quality": 55}, **look)
    return [file.getvalue() for file in files]


def scaled(signals: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The waves as float32 [2, T] with a common gain that prevents clipping. Raises: UserError."""
    waves = [np.broadcast_to(np.asarray(wave, np.float32), (2, np.shape(wave)[-1])) for wave in signals.values()]
    lengths = {name: wave.shape[-1] for name, wave in zip(signals, waves, strict=True)}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        given = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no signal"
        raise UserError(f"Player: signals must have one length of at least 1 sample, not {given}")
    peak = _peak(waves)
    return [wave * np.float32(min(1.0, HEADROOM / peak) if peak else 1.0) for wave in waves]


def _peak(waves: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(wave).max()) for wave in waves)
