"""The player: time-aligned signals in a notebook, heard one against the other in the same sample."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import soundfile
import traitlets

from lib import UserError
from lib.listening.level import HEADROOM, equal_loudness

HERE = Path(__file__).parent
CSS = (HERE / "listening.css").read_text("utf-8")
COMPRESSION = 1.0  # of Vorbis: 35 kbit/s at 16 kHz stereo, so that an executed notebook stays small enough to share
SAVED_BYTES = 13_000_000
"""What the signals of one view may add to a saved notebook, before base64 makes a third more of it."""


def module(view: str) -> str:
    """The browser's side of a view as one module: ``engine.js`` and the view's own file."""
    return "".join((HERE / name).read_text("utf-8") for name in ("engine.js", view))


def encoded(wave: np.ndarray, rate: int, kind: str = "FLAC", **options: object) -> bytes:
    """[C, T] as a FLAC file of 16 bits, or as another file of `soundfile`'s (``kind="OGG", subtype="VORBIS"``)."""
    content = io.BytesIO()
    settings = {
        "format": kind,
        **({"subtype": "PCM_16", "compression_level": 0.0} if kind == "FLAC" else {}),
        **options,
    }
    soundfile.write(content, np.asarray(wave).T, rate, **settings)
    return content.getvalue()


def vorbis(wave: np.ndarray, rate: int) -> bytes:
    """[C, T] as a small Ogg Vorbis file."""
    return encoded(wave, rate, "OGG", subtype="VORBIS", compression_level=COMPRESSION)


def audio_tag(sound: bytes, kind: str = "ogg", style: str = "") -> str:
    """An encoded file as an ``<audio>`` element that carries it in itself."""
    data = base64.b64encode(sound).decode()
    return f'<audio controls preload="metadata" style="{style}" src="data:audio/{kind};base64,{data}"></audio>'


def small(sounds: Sequence[bytes], waves: Sequence[np.ndarray], rate: int) -> tuple[str, Sequence[bytes]]:
    """The FLAC files ``sounds`` of ``waves`` as they are, else in mono, else as Vorbis (slow): what fits first."""
    if sum(map(len, sounds)) <= SAVED_BYTES:
        return "flac", sounds
    mono = [encoded(wave.mean(0, keepdims=True), rate) for wave in waves]
    return ("flac", mono) if sum(map(len, mono)) <= SAVED_BYTES else ("ogg", [vorbis(wave, rate) for wave in waves])


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
