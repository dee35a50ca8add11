"""One song as every reader gives it, and the scan that inspects files once, in threads, and stores the result."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from lib import STEMS, UserError
from lib.data import audio
from lib.machine.progress import SHOWN
from lib.store.files import write_json
from lib.store.fingerprints import fingerprint

ROLES = ("mixture", *STEMS)
EDGE, DIGEST = 1 << 16, 24
VERSION = 2
"""Raise it when the same files give another `Track`: they are inspected again."""
DECODED = 1
"""Raise it when Vorbis, or what libsndfile does not read whole, decodes otherwise: digests of such songs end in it."""
VORBIS = (".ogg", ".oga")
ALIGNED = 0.05
"""Seconds by which stems may differ in length; beyond that they may not belong together."""
BLEED_DB = -20.0
"""What a mixture holds beyond the sum of its stems, in dB to it, from which on a stem's file must be missing."""


@dataclass(frozen=True)
class Track:
    """A song on disk: native ``rate`` (Hz) and ``frames``, one file per role: "mixture", and the stems that sound.

    ``digest`` identifies the content of the files it was read from, wherever they are; ``note`` says what was done to
    make it a song of this form. A `part` of a song begins ``first`` frames into its files.
    """

    name: str
    split: str
    rate: int
    frames: int
    files: dict[str, Path]
    digest: str
    first: int = 0
    note: str = ""

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def read(
        self, role: str, start_seconds: float = 0.0, seconds: float | None = None, rate: int | None = None
    ) -> np.ndarray:
        """A stem or the mixture -> float32 [2, round(seconds * rate)], zeros beyond the song's end.

        Without ``seconds`` to the end, without ``rate`` at the native rate. A song without a mixture file is the sum
        of its stems; a stem without a file is silent.
        """
        if role == "mixture" and role not in self.files:
            return self.stems(start_seconds, seconds, rate).sum(0)
        rate = rate or self.rate
        samples = round((max(self.seconds - start_seconds, 0.0) if seconds is None else seconds) * rate)
        if role not in self.files:
            return np.zeros((2, samples), np.float32)
        start = round(start_seconds * self.rate)
        frames = min(math.ceil(samples * self.rate / rate), max(self.frames - start, 0))
        wave = audio.read(self.files[role], self.first + start, frames, rate)[:, :samples]
        missing = samples - wave.shape[1]
        return np.pad(wave, ((0, 0), (0, missing))) if missing else wave

    def part(self, begin: float, end: float) -> Track:
        """The song from one share of its length to another, as a song of its own; no sound beyond is read."""
        first, last = (round(share * self.frames) for share in (begin, end))
        digest = f"{self.digest}, frames {first} to {last}"
        return replace(self, first=self.first + first, frames=last - first, digest=digest)

    def mixture(self, start_seconds: float = 0.0, seconds: float | None = None, rate: int | None = None) -> np.ndarray:
        """`read` of the mixture -> [2, T]."""
        return self.read("mixture", start_seconds, seconds, rate)

    def stems(self, start_seconds: float = 0.0, seconds: float | None = None, rate: int | None = None) -> np.ndarray:
        """`read` of the four stems in the order of `lib.STEMS` -> [4, 2, T]."""
        return np.stack([self.read(stem, start_seconds, seconds, rate) for stem in STEMS])


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why."""

    path: str
    reason: str


class Candidate(NamedTuple):
    """A song not yet inspected: its source files by role."""

    name: str
    split: str
    files: dict[str, Path]


class Rules(NamedTuple):
    """What a song must have to be used."""

    min_seconds: float = 0.0
    min_rate: int = 0
    stereo: bool = False
    max_seconds: float = math.inf

    def broken_by(self, info: audio.Info) -> str:
        """Why a song with this header is left out; empty if it is not."""
        if self.stereo and info.channels < 2:
            return "mono"
        if info.rate < self.min_rate:
            return f"sample rate {info.rate} Hz, below {self.min_rate} Hz"
        if info.frames < self.min_seconds * info.rate:
            return f"{info.frames / info.rate:.1f} s long, shorter than {self.min_seconds:g} s"
        if info.frames > self.max_seconds * info.rate:
            return f"{info.frames / info.rate:.0f} s long, more than {self.max_seconds:g} s: cut it"
        return ""


def printable(name: str) -> str:
    """The name of a file as text: control characters, and bytes that are not UTF-8, are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def skip(path: Path | str, reason: str) -> Skipped:
    """A `Skipped` whose text can be printed and stored whatever the file's name."""
    return Skipped(printable(str(path)), reason)


def corpus_fingerprint(tracks: Iterable[Track]) -> str:
    """12 hex digits over names, splits and content of the tracks in their order; wherever their folder is."""
    return fingerprint([[track.name, track.split, track.digest] for track in tracks])


def expect(songs: Iterable[Track], *splits: str) -> None:
    """A guard against leaks. Raises: ValueError if a song is of none of ``splits``."""
    for song in songs:
        if song.split not in splits:
            raise ValueError(
                f"leak: '{song.name}' is of the split '{song.split}', only {' or '.join(splits)} may be used here"
            )


def in_threads(function: Callable, items: Sequence, workers: int, title: str) -> list:
    """``[function(item) for item in items]`` in threads: libsndfile, ffmpeg, numpy and SHA-256 all release the GIL."""
    shown = {"desc": title, "unit": "song", "tqdm_class": tqdm, **SHOWN}
    return thread_map(function, items, max_workers=max(1, workers), **shown)


def seekable_files(files: dict[str, Path], cache: Path) -> dict[str, Path]:
    """The files as libsndfile can read them; what it cannot is decoded into ``cache`` once."""
    return {role: audio.seekable(path, cache / "decoded", compact=True) for role, path in files.items()}


def scan(
    candidates: Sequence[Candidate],
    cache: Path,
    workers: int,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    unpack: Callable[[dict[str, Path], Path], dict[str, Path]] = seekable_files,
) -> tuple[list[Track], list[Skipped]]:
    """Inspect every candidate and keep those that decode, agree in rate and length, and obey ``rules``.

    Stems that differ in length by up to `ALIGNED` are cut, or lengthened by silence, to that of the mixture, without
    one to the longest. Stems that are digitally silent are absent; two at least must sound.

    Usable songs are stored in ``cache`` as JSON under a key over names, sizes and times of all files. What was skipped
    is inspected again at every call: its cause may be gone (permissions, a codec), and a stale cache would hide it.
    ``unpack(files, cache)`` turns source files into one seekable file per role.
    """
    identity = [[candidate, [audio.stamp(path) for path in candidate.files.values()]] for candidate in candidates]
    table = cache / f"scan-{fingerprint([identity, rules, str(cache.resolve()), VERSION])}.json"
    known = _load(table)
    new = [i for i in range(len(candidates)) if str(i) not in known]
    looked = in_threads(lambda i: _inspect(candidates[i], cache, rules, unpack), new, workers, "scan")
    looked = dict(zip(new, looked, strict=True))
    found = {str(i): looked.get(i) or known[str(i)] for i in range(len(candidates))}
    tracks = {place: item for place, item in found.items() if isinstance(item, Track)}
    if tracks.keys() - known.keys():
        write_json(table, tracks)
    return list(tracks.values()), [item for item in found.values() if isinstance(item, Skipped)]


def _inspect(candidate: Candidate, cache: Path, rules: Rules, unpack: Callable) -> Track | Skipped:
    first = next(iter(candidate.files.values()))
    source = first.parent if len(candidate.files) > 1 else first
    try:
        files = unpack(candidate.files, cache)
        infos = {role: audio.probe(path) for role, path in files.items()}
        info = infos.get("mixture") or max(infos.values(), key=lambda info: info.frames)
        if problem := _mismatch(infos) or rules.broken_by(info):
            return skip(source, problem)
        notes = [*_folded(candidate.files, files), *_fitted(infos, info)]
        if set(files) != {"mixture"}:
            silent = [stem for stem in STEMS if stem in files and audio.stays_below(files[stem])]
            missing = [stem for stem in STEMS if stem not in files]
            if problem := _incomplete(files, missing, silent):
                return skip(source, problem)
            files = {role: path for role, path in files.items() if role not in silent}
            notes += [f"no {' and no '.join([*missing, *silent])}"] if missing or silent else []
        digest = content_digest(candidate.files) + decoding(candidate.files, files)
    except audio.UndecodableError as error:
        return skip(error.path, error.reason)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"{cache}: no space left on the disk for decoded music: free some") from error
        return skip(source, f"cannot be read: {error.strerror or error}")
    except UserError:
        raise
    except Exception as error:  # whatever one song does, the others are looked at
        return skip(source, f"cannot be read: {type(error).__name__}: {error}")
    return Track(candidate.name, candidate.split, info.rate, info.frames, files, digest, note="; ".join(notes))


def _mismatch(infos: dict[str, audio.Info]) -> str:
    """Why files cannot be the stems of one song; empty if they can."""
    rates, frames = ([info[i] for info in infos.values()] for i in (0, 2))
    if len(set(rates)) == 1 and max(frames) - min(frames) <= ALIGNED * rates[0]:
        return ""
    lengths = ", ".join(f"{role} {info.frames} at {info.rate} Hz" for role, info in infos.items())
    return f"stems differ in sample rate, or in length by more than {ALIGNED * 1000:g} ms: {lengths}"


def _folded(sources: dict[str, Path], files: dict[str, Path]) -> list[str]:
    """What was folded down to two channels."""
    counts = {role: audio.channels(path) for role, path in sources.items() if files.get(role, path) != path}
    return [f"{role}: {count} channels folded down to 2" for role, count in counts.items() if count > 2]


def _fitted(infos: dict[str, audio.Info], song: audio.Info) -> list[str]:
    """What was cut, or lengthened by silence, to the length of the song."""
    off = {role: (song.frames - info.frames) / song.rate * 1000 for role, info in infos.items()}
    return [f"{role}: {ms:.1f} ms of silence at its end" for role, ms in off.items() if ms > 0] + [
        f"{role}: last {-ms:.1f} ms cut off" for role, ms in off.items() if ms < 0
    ]


def _incomplete(files: dict[str, Path], missing: list[str], silent: list[str]) -> str:
    """Why a song that lacks files of stems, or has silent ones, cannot be used; empty if it can."""
    sounding = [stem for stem in STEMS if stem not in (*missing, *silent)]
    if len(sounding) < 2:
        return f"{' and '.join(sounding) or 'nothing'} alone sounds: two stems are needed at least"
    if missing and "mixture" in files:
        level = _remainder_db(files["mixture"], [files[stem] for stem in sounding])
        if level > BLEED_DB:
            return f"no {', '.join(missing)}, which the mixture seems to hold: it is not the sum of the other stems"
    return ""


def _remainder_db(mixture: Path, stems: list[Path]) -> float:
    """The level of a mixture less its stems, in dB under the mixture."""
    whole = rest = 1e-12
    for at in range(0, audio.probe(mixture).frames, audio.BLOCK):
        wave = audio.read(mixture, at, audio.BLOCK).astype(np.float64)
        whole += np.square(wave).sum()
        for stem in stems:
            part = audio.read(stem, at, audio.BLOCK)[:, : wave.shape[1]]
            wave[:, : part.shape[1]] -= part
        rest += np.square(wave).sum()
    return 10 * math.log10(rest / whole)


def decoding(sources: dict[str, Path], files: dict[str, Path]) -> str:
    """A suffix to the digest of a song whose samples depend on `DECODED`."""
    ours = any(files.get(role, path) != path or path.suffix.lower() in VORBIS for role, path in sources.items())
    ours |= any(role not in sources and file.suffix == ".wav" for role, file in files.items())  # see `musdb18.unpack`
    return f"-{DECODED}" if ours else ""


def content_digest(files: dict[str, Path]) -> str:
    """24 hex digits that tell recordings apart, wherever they are. Raises: OSError, UndecodableError for a pipe."""
    # size, head and tail tell recordings apart without reading terabytes: the ends hold headers, tags and music
    digest = hashlib.sha256()
    for role, path in files.items():
        size = path.stat().st_size
        audio.refuse_pipe(path)
        with open(path, "rb") as file:
            digest.update(f"{role} {size} ".encode() + file.read(EDGE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return digest.hexdigest()[:DIGEST]


def _load(table: Path) -> dict[str, Track]:
    """Tracks by the place of their candidate whose files, decoded copies among them, are there."""
    try:
        rows = json.loads(table.read_text("utf-8")).items()
        tracks = {
            place: Track(**row | {"files": {role: Path(file) for role, file in row["files"].items()}})
            for place, row in rows
        }
        return {place: track for place, track in tracks.items() if all(f.exists() for f in track.files.values())}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # none, or damaged
        return {}
