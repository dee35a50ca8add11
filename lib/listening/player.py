"""The player: time-aligned signals in a notebook, heard one against the other in the same sample."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import anywidget
import numpy as np
import traitlets

from lib import UserError
from lib.listening.export import CSS, audio_tag, encoded, module, small
from lib.listening.loudness import HEADROOM, equal_loudness


class Player(anywidget.AnyWidget):
    """Signals of one length: switching without a gap, a loop over any region, equal loudness, solo and mute.

    ``signals`` maps names to waves [2, T] or [T] at ``rate`` Hz, ``notes`` names to what stands beside them, ``start``
    is the time of the first sample in s. With ``mixed`` all are heard together at first, else the first alone. All
    signals share one gain, so that nothing clips and levels stay comparable; they travel as 16-bit FLAC.

    A saved notebook and its HTML export hold plain ``<audio>`` elements instead, which need neither kernel nor network.

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
            signals=[encoded(wave, rate) for wave in waves],
            levels=[float(gain) for gain in equal_loudness(waves, rate)],
        )  # fmt: skip
        self._waves = waves

    def __repr__(self) -> str:
        return f"Player({', '.join(self.names)})"  # not all that the browser got, sound included

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.fallback()}, metadata

    def fallback(self) -> str:
        """The signals as HTML that plays without a kernel."""
        lines = [f"<p><b>{html.escape(self.title)}</b></p>"]
        kind, sounds = small(self.signals, self._waves, self.rate)
        for name, note, sound in zip(self.names, self.notes, sounds, strict=True):
            label = f"{html.escape(name)} {html.escape(note)}".strip()
            lines.append(f"<p>{label}<br>{audio_tag(sound, kind)}</p>")
        return "".join(lines)


def scaled(signals: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The waves as float32 [2, T] under one gain, so that the highest peak of all does not clip. Raises: UserError."""
    waves = [np.broadcast_to(np.asarray(wave, np.float32), (2, np.shape(wave)[-1])) for wave in signals.values()]
    lengths = {name: wave.shape[-1] for name, wave in zip(signals, waves, strict=True)}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no signal at all"
        raise UserError(f"Player: signals must have one length of at least 1 sample, not {found}")
    peak = _peak(waves)
    return [wave * np.float32(min(1.0, HEADROOM / peak) if peak else 1.0) for wave in waves]


def _peak(waves: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(wave).max()) for wave in waves)
