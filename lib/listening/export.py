"""Waves as encoded sound, and as HTML that carries it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from nbformat import NotebookNode

from lib.store.files import atomic

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


def sounds_beside(notebook: NotebookNode, folder: Path) -> None:
    """Move the sounds that an executed notebook's players carry into files in ``folder``/sound, each stored once.

    Names are digests of what is heard: two files of one wave differ, since Ogg streams are numbered at random.
    """

    def moved(found: re.Match) -> str:
        content = base64.b64decode(found[2])
        wave, _ = soundfile.read(io.BytesIO(content), dtype="int16")
        file = folder / "sound" / f"{hashlib.sha256(wave.tobytes()).hexdigest()[:16]}.{found[1]}"
        if not file.exists():
            with atomic(file) as temporary:
                temporary.write_bytes(content)
        return f'src="sound/{file.name}"'

    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        page = output.get("data", {}).get("text/html")
        if page:
            output["data"]["text/html"] = re.sub(r'src="data:audio/(\w+);base64,([^"]+)"', moved, page)


def small(sounds: Sequence[bytes], waves: Sequence[np.ndarray], rate: int) -> tuple[str, Sequence[bytes]]:
    """The FLAC files ``sounds`` of ``waves`` as they are, else in mono, else as Vorbis (slow): what fits first."""
    if sum(map(len, sounds)) <= SAVED_BYTES:
        return "flac", sounds
    mono = [encoded(wave.mean(0, keepdims=True), rate) for wave in waves]
    return ("flac", mono) if sum(map(len, mono)) <= SAVED_BYTES else ("ogg", [vorbis(wave, rate) for wave in waves])
