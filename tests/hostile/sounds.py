"""Audio files of every damage and extreme, as a folder of music, as songs to separate, and as MUSDB18 songs."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

from lib import STEMS, separate
from lib.data import audio, folder, musdb18
from lib.data.collection import look
from lib.data.tracks import Rules
from lib.model import checkpoints
from lib.model.separator import Separator
from tests.hostile import SKIPPED, Case, Skip, called, written

RATE = 8000


def noise(seconds: float = 1.0, channels: int = 2, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


def encoded(wave: np.ndarray, kind: str = "WAV", rate: int = RATE, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


def lying_wav(frames: int, rate: int = 44100, channels: int = 2, content: bytes = bytes(1000)) -> bytes:
    """A WAV file whose header speaks of ``frames`` frames of 16 bits, whatever follows."""
    size = min(frames * channels * 2, 0x7FFE0000)
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, channels, rate, rate % 9999, 4, 16
    )
    return head + struct.pack("<4sI", b"data", size) + content


def lying_au(frames: int) -> bytes:
    return struct.pack(">4sIIIII", b".snd", 24, min(frames * 4, 0xFFFFFFF0), 3, 44100, 2) + bytes(1000)


def lying_aiff(frames: int) -> bytes:
    common = struct.pack(">hIh", 2, frames, 16) + b"\x40\x0e\xac\x44" + bytes(6)
    chunks = b"COMM" + struct.pack(">I", len(common)) + common
    chunks += b"SSND" + struct.pack(">I", min(frames * 4 + 8, 0x7FFFFFF0)) + bytes(8 + 1000)
    return b"FORM" + struct.pack(">I", len(chunks) + 4) + b"AIFF" + chunks


def lying_flac(seconds: int) -> bytes:
    """A FLAC file of one second whose header promises many."""
    data = bytearray(encoded(noise(), "FLAC", RATE))
    frames = seconds * RATE
    data[21] = (data[21] & 0xF0) | (frames >> 32)
    data[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def with_value(value: float, at: int = 4000) -> np.ndarray:
    wave = noise()
    wave[at] = value
    return wave


DAY = 24 * 3600
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nother.wav\n"  # live: it has no end
FFCONCAT = "ffconcat version 1.0\nfile other.wav\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"

DAMAGED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty wav": ("a.wav", lambda: b"", "cannot decode|Invalid|unrecognised"),
    "empty mp3": ("a.mp3", lambda: b"", "cannot decode|Invalid"),
    "empty m4a": ("a.m4a", lambda: b"", "cannot decode|Invalid"),
    "zeros named mp3": ("a.mp3", lambda: bytes(100_000), "cannot decode|Invalid"),
    "text named mp3": ("a.mp3", lambda: b"just words\n" * 999, "cannot decode|Invalid"),
    "text named flac": ("a.flac", lambda: b"just words\n" * 999, "cannot decode|Invalid"),
    "text named m4a": ("a.m4a", lambda: b"just words\n" * 999, "cannot decode|Invalid"),
    "page named ogg": ("a.ogg", lambda: b"<!doctype html><html>404</html>", "cannot decode|Invalid"),
    "picture named wav": ("a.wav", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "cannot decode|Invalid"),
    "zip named wav": ("a.wav", lambda: b"PK\x03\x04" + bytes(range(256)) * 9, "cannot decode|Invalid"),
    "playlist without end": ("a.mp3", HLS.encode, "cannot decode"),
    "list of other files": ("a.mp3", FFCONCAT.encode, "cannot decode"),
    "stream from the network": ("a.wav", SDP.encode, "cannot decode"),
    "cut wav": ("a.wav", lambda: encoded(noise())[:20_000], "truncated"),
    "cut aiff": ("a.aiff", lambda: encoded(noise(), "AIFF")[:20_000], "truncated"),
    "cut au": ("a.au", lambda: encoded(noise(), "AU")[:20_000], "truncated"),
    "cut w64": ("a.w64", lambda: encoded(noise(), "W64")[:20_000], "truncated"),
    "cut rf64": ("a.wav", lambda: encoded(noise(), "RF64")[:20_000], "truncated"),
    "cut caf": ("a.caf", lambda: encoded(noise(), "CAF")[:20_000], "truncated|cannot decode"),
    "cut flac": ("a.flac", lambda: encoded(noise(), "FLAC")[:9000], "truncated|cannot decode|seek"),
    "cut header": ("a.wav", lambda: encoded(noise())[:30], "cannot decode|Invalid|holds no audio|truncated"),
    "cut ogg header": ("a.ogg", lambda: encoded(noise(), "OGG")[:60], "cannot decode|Invalid"),
    "random bytes after a header": ("a.flac", lambda: encoded(noise(), "FLAC")[:60] + bytes(range(256)) * 99, "."),
    "no samples": ("a.wav", lambda: encoded(noise(0)), "holds no audio"),
    "NaN": ("a.wav", lambda: encoded(with_value(np.nan), subtype="FLOAT"), "NaN or infinite"),
    "infinity": ("a.wav", lambda: encoded(with_value(-np.inf), subtype="DOUBLE"), "NaN or infinite"),
    "NaN in the last sample": ("a.aiff", lambda: encoded(with_value(np.nan, -1), "AIFF", subtype="FLOAT"), "NaN"),
    "a day promised, wav": ("a.wav", lambda: lying_wav(DAY * 44100 // 8), "truncated"),
    "a day promised, au": ("a.au", lambda: lying_au(DAY * 44100 // 8), "truncated|absurd"),
    "a day promised, aiff": ("a.aiff", lambda: lying_aiff(DAY * 44100 // 8), "truncated|absurd|cannot decode"),
    "a day promised, flac": ("a.flac", lambda: lying_flac(DAY), "truncated|cannot decode|seek|absurd"),
    "65,535 channels": ("a.wav", lambda: lying_wav(100, channels=65535), "absurd|cannot decode|Invalid"),
    "no channels": ("a.wav", lambda: lying_wav(100, channels=0), "absurd|cannot decode|Invalid|no audio"),
    "rate of 0": ("a.wav", lambda: lying_wav(250, rate=0), "absurd|cannot decode|Invalid"),
    "rate of 4 GHz": ("a.wav", lambda: lying_wav(250, rate=0xFFFFFFFF), "absurd|cannot decode|Invalid"),
}

SOUND: dict[str, tuple[str, Callable[[], bytes], tuple[int, int]]] = {
    "8 kHz": ("a.wav", lambda: encoded(noise()), (RATE, RATE)),
    "192 kHz": ("a.wav", lambda: encoded(noise(rate=192_000), rate=192_000), (192_000, 192_000)),
    "a rate that is prime": ("a.flac", lambda: encoded(noise(rate=44_101), "FLAC", 44_101), (44_101, 44_101)),
    "1 channel": ("a.wav", lambda: encoded(noise(channels=1)), (RATE, RATE)),
    "6 channels": ("a.flac", lambda: encoded(noise(channels=6), "FLAC"), (RATE, RATE)),
    "16 channels": ("a.wav", lambda: encoded(noise(channels=16)), (RATE, RATE)),
    "8 bits": ("a.wav", lambda: encoded(noise(), subtype="PCM_U8"), (RATE, RATE)),
    "64-bit floats": ("a.wav", lambda: encoded(noise(), subtype="DOUBLE"), (RATE, RATE)),
    "direct current": ("a.wav", lambda: encoded(np.full((RATE, 2), 0.5, np.float32)), (RATE, RATE)),
    "clipped": ("a.wav", lambda: encoded(np.sign(noise())), (RATE, RATE)),
    "beyond full scale": ("a.wav", lambda: encoded(noise() * 1e4, subtype="FLOAT"), (RATE, RATE)),
    "silent": ("a.wav", lambda: encoded(np.zeros((RATE, 2), np.float32)), (RATE, RATE)),
    "one channel silent": ("a.wav", lambda: encoded(noise() * [1, 0]), (RATE, RATE)),
    "denormal": ("a.wav", lambda: encoded(noise() * 1e-42, subtype="FLOAT"), (RATE, RATE)),
    "1 sample": ("a.wav", lambda: encoded(noise(1 / RATE)), (RATE, 1)),
    "flac named mp3": ("a.mp3", lambda: encoded(noise(), "FLAC"), (RATE, RATE)),
    "wav named ogg": ("a.ogg", lambda: encoded(noise()), (RATE, RATE)),
    "wav named m4a": ("a.m4a", lambda: encoded(noise()), (RATE, RATE)),
    "a tag before": ("a.wav", lambda: encoded(noise()) + b"ID3" + bytes(5000), (RATE, RATE)),
    "a name of lines and quotes": ("a\n'\"$(touch harm)`;.wav", lambda: encoded(noise()), (RATE, RATE)),
    "a name of options": ("-o harm.wav", lambda: encoded(noise()), (RATE, RATE)),
    "a name of dots": ("...wav", lambda: encoded(noise()), (RATE, RATE)),
}


@functools.cache
def separator() -> Separator:
    return Separator.from_size("tiny", 4, rate=RATE, n_fft=256, hop=64, band_scale=4.0).eval()


def cases() -> Iterator[Case]:
    separator()
    for name, (file, content, says) in DAMAGED.items():
        yield Case(f"audio, in a folder: {name}", partial(_in_folder, file, content), says, how=SKIPPED)
        yield Case(f"audio, to separate: {name}", partial(_separated, file, content), f"failed: .*{file}: .*({says})")
        yield Case(f"audio, in a collection: {name}", partial(_looked_at, file, content), ".", how=SKIPPED)
    for name, (file, content, (rate, frames)) in SOUND.items():
        if not file.startswith("."):  # hidden files are not looked at
            yield Case(f"audio, in a folder: {name}", partial(_in_folder, file, content), gives=[rate, frames, True])
        if not file.startswith("-"):
            yield Case(f"audio, to separate: {name}", partial(_separated, file, content), gives=[rate, frames, True])
    for name, (change, says) in MUSDB.items():
        how = SKIPPED if says else "result"
        yield Case(f"MUSDB18 song: {name}", partial(_musdb, change), says, ["song"], how)
    yield Case("MUSDB18: a file for the folder", _musdb_file, "no folders train and test")


def _in_folder(name: str, content: Callable[[], bytes], root: Path) -> list:
    """[rate, frames, whether all samples are finite] of the only track of a folder."""
    written(root / "music" / name, content())
    written(root / "music" / "other.wav", encoded(noise()))
    tracks, skipped = folder.read(root / "music", root / "cache", 1, 0.0)
    tracks = [track for track in tracks if track.name != "other.wav"]
    if not tracks and skipped:
        raise Skip(skipped[0].reason)
    try:
        wave = tracks[0].mixture()
    except audio.UndecodableError as error:  # what a header does not show is found as the music is read
        raise Skip(error.reason) from error
    assert wave.shape == (2, tracks[0].frames) and wave.dtype == np.float32
    return [tracks[0].rate, tracks[0].frames, bool(np.isfinite(wave).all())]


def _looked_at(name: str, content: Callable[[], bytes], root: Path) -> None:
    written(root / name, content())
    heard = look(root, root / "cache", Rules(0.5), 0.5, name)
    raise Skip(heard.reason) if heard.reason else AssertionError(heard)


def _separated(name: str, content: Callable[[], bytes], root: Path) -> list:
    """[rate, frames, whether the stems are finite] of what `lib.separate` makes of a song."""
    song = written(root / "in" / name, content())
    written(root / "in" / "other.wav", encoded(noise()))
    if not (root / "model.safetensors").exists():
        checkpoints.save(separator(), root / "model.safetensors")
    call = (
        song,
        "--checkpoint",
        root / "model.safetensors",
        "--out",
        root / "out",
        "--window",
        0.5,
        "--precision",
        "32-true",
    )
    with torch.inference_mode():
        called(separate.main, *call)
    (made,) = (root / "out").iterdir()
    waves = [audio.read(made / f"{stem}.wav") for stem in STEMS]
    assert len({wave.shape for wave in waves}) == 1
    return [audio.probe(made / "bass.wav").rate, waves[0].shape[1], all(bool(np.isfinite(w).all()) for w in waves)]


def _stem(song: Path, stem: str, content: bytes) -> None:
    written(song / f"{stem}.wav", content)


MUSDB: dict[str, tuple[Callable[[Path], object], str]] = {
    "whole": (lambda song: None, ""),
    "mixture that is not the sum": (lambda song: _stem(song, "mixture", encoded(-noise())), ""),
    "no mixture": (lambda song: (song / "mixture.wav").unlink(), ""),
    "a missing stem": (lambda song: (song / "drums.wav").unlink(), "no drums, which the mixture"),
    "only a mixture": (lambda song: [(song / f"{stem}.wav").unlink() for stem in STEMS], "no stem in it"),
    "stems of unequal length": (lambda song: _stem(song, "bass", encoded(noise(0.9))), "differ in .* length"),
    "one sample less": (lambda song: _stem(song, "other", encoded(noise()[:-1])), ""),
    "stems of unequal rate": (lambda song: _stem(song, "bass", encoded(noise(), rate=16_000)), "differ in sample rate"),
    "an empty stem": (lambda song: _stem(song, "vocals", encoded(noise(0))), "holds no audio"),
    "a stem of no bytes": (lambda song: _stem(song, "vocals", b""), "cannot decode|Invalid"),
    "a stem of words": (lambda song: _stem(song, "vocals", b"words" * 999), "cannot decode|Invalid"),
    "a cut stem": (lambda song: _stem(song, "vocals", encoded(noise())[:9000]), "truncated"),
    "a folder for a stem": (lambda song: _replaced(song / "bass.wav"), "no bass, which the mixture"),
    "a link to nothing": (lambda song: _linked(song / "bass.wav"), r"bass\.wav: no such file"),
    "a song of three hours": (lambda song: [_stem(song, s, _long()) for s in ("mixture", *STEMS)], "more than 1200 s"),
    "a mono stem": (lambda song: _stem(song, "bass", encoded(noise(channels=1))), ""),
    "a silent stem": (lambda song: _stem(song, "bass", encoded(noise() * 0)), ""),
}


@functools.cache
def _long() -> bytes:
    return encoded(np.zeros((3 * 3600 * 1000, 1), np.float32), "FLAC", 1000)


def _replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.wav")


def _musdb(change: Callable[[Path], object], root: Path) -> list[str]:
    song = root / "in" / "train" / "song"
    for role in ("mixture", *STEMS):
        _stem(song, role, encoded(noise()))
    (root / "in" / "test").mkdir()
    change(song)
    tracks, skipped = musdb18.read(root / "in", root / "cache", 1, 1)
    if skipped:
        raise Skip(f"{skipped[0].path}: {skipped[0].reason}")
    assert all(np.isfinite(track.stems()).all() and track.stems().shape[0] == 4 for track in tracks)
    return [track.name for track in tracks]


def _musdb_file(root: Path) -> tuple:
    written(root / "in" / "train", b"x")
    written(root / "in" / "test", b"x")
    return musdb18.read(root / "in", root / "cache", 1, 1)
