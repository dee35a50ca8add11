"""Encoded audio, and HTML that contains it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from lib.store.files import atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode  # takes two seconds, which every kernel would spend

COMPRESSION = 1.0  # Vorbis, 35 kbit/s at 16 kHz stereo: keeps executed notebooks small
BLOCK = 1 << 16
"""Frames written at once: libsndfile takes Vorbis of any length, but crashes where one write has some 2^21 samples."""
SAVED_BYTES = 13_000_000
"""Maximum size of the signals of one view in a saved notebook, before base64."""


def encoded(wave: np.ndarray, rate: int, kind: str = "FLAC", **options: object) -> bytes:
    """[C, T] as a 16-bit FLAC file, or in another format of `soundfile` (``kind="OGG", subtype="VORBIS"``)."""
    content = io.BytesIO()
    settings = {
        "format": kind,
        **({"subtype": "PCM_16", "compression_level": 0.0} if kind == "FLAC" else {}),
        **options,
    }
    frames = np.asarray(wave).T
    with soundfile.SoundFile(content, "w", rate, frames.shape[1], **settings) as file:
        for at in range(0, len(frames), BLOCK):
            file.write(frames[at : at + BLOCK])
    return content.getvalue()


def vorbis(wave: np.ndarray, rate: int) -> bytes:
    """[C, T] as a small Ogg Vorbis file."""
    return encoded(wave, rate, "OGG", subtype="VORBIS", compression_level=COMPRESSION)


def audio_tag(sound: bytes, kind: str = "ogg", style: str = "") -> str:
    """An ``<audio>`` element that contains an encoded file."""
    data = base64.b64encode(sound).decode()
    return f'<audio controls preload="metadata" style="{style}" src="data:audio/{kind};base64,{data}"></audio>'


def sounds_beside(notebook: NotebookNode, folder: Path) -> None:
    """Move the sounds embedded in an executed notebook to files in ``folder``/sound, each stored once.

    Names are digests of the decoded waves: Ogg streams have random serial numbers.
    """

    def moved(match: re.Match) -> str:
        content = base64.b64decode(match[2])
        wave, _ = soundfile.read(io.BytesIO(content), dtype="int16")
        file = folder / "sound" / f"{hashlib.sha256(wave.tobytes()).hexdigest()[:16]}.{match[1]}"
        if not file.exists():
            with atomic(file) as temporary:
                temporary.write_bytes(content)
        return f'src="sound/{file.name}"'

    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        page = output.get("data", {}).get("text/html")
        if page:
            output["data"]["text/html"] = re.sub(r'src="data:audio/(\w+);base64,([^"]+)"', moved, page)


def small(sounds: Sequence[bytes], waves: Sequence[np.ndarray], rate: int) -> tuple[str, Sequence[bytes]]:
    """(format, files): the FLAC files ``sounds`` of ``waves`` if below `SAVED_BYTES`, else mono, else Vorbis (slow)."""
    if sum(map(len, sounds)) <= SAVED_BYTES:
        return "flac", sounds
    mono = [encoded(wave.mean(0, keepdims=True), rate) for wave in waves]
    return ("flac", mono) if sum(map(len, mono)) <= SAVED_BYTES else ("ogg", [vorbis(wave, rate) for wave in waves])
