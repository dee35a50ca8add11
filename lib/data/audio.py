"""Audio files: probe, decode by seeking, resample whole or in blocks, write. Waves are float32 [2, samples]."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from lib import UserError, one_line
from lib.data import lengths
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

BLOCK = 1 << 19  # frames decoded at once: a training crop is one block, because soundfile seeks after each one
FFMPEG_SECONDS = 600
SILENT_PEAK = 1e-4
"""What stays below -80 dBFS is digitally silent: three steps of 16 bits leave room for dither and lossy coding."""
VORBIS_BLOCK = 8192
RESERVOIR = 8 * 1152
"""Samples before a place in an MP3 whose frames may hold bits of it: libsndfile starts later where frames are small."""
OGG_PROBE = 1 << 17
MPEG_SLACK = 4 * 1152
"""Samples by which two counts of an MP3 may differ: its encoder's delay and padding, which players take away."""
NO_AUDIO = "holds no audio"
FORMATS = (
    *("mov", "mp3", "aac", "ogg", "flac", "wav", "w64", "aiff", "caf", "au", "asf", "matroska", "ape", "wv", "tta"),
    *("mpc", "mpc8", "ac3", "eac3", "dts", "amr", "avi", "flv", "mpeg", "mpegts", "dsf", "tak", "shn", "voc", "rm"),
)
"""Containers that ffmpeg may read. Playlists are not among them: they name other files, or never end."""
CUT = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile logs, without an error, of a WAV, AIFF, AU, W64 or RF64 file shorter than its header says."""


class UndecodableError(UserError):
    """An audio file that cannot be used, with a one-line ``reason``."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(str(path), " ".join(reason.split()))
        self.path, self.reason = self.args

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.reason}")


class _ForeignError(UndecodableError):
    """A file that libsndfile does not read, and ffmpeg may."""


class Info(NamedTuple):
    """Sample rate in Hz, channels and frames (samples per channel), as the file's header gives them."""

    rate: int
    channels: int
    frames: int


def refuse_pipe(path: Path | str) -> None:
    """Opening a pipe would wait for ever. Raises: UndecodableError of a pipe or device."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UndecodableError(path, "a pipe or device")


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[soundfile.SoundFile]:
    try:
        refuse_pipe(path)
        if not Path(path).is_file():  # raises OSError of too long a name, of which os.path says that it is not there
            raise UndecodableError(path, "a folder, no file" if os.path.isdir(path) else "no such file")
        open(path, "rb").close()  # of what the system refuses, libsndfile says no more than that
        with soundfile.SoundFile(os.fsencode(path)) as file:
            yield file
    except OSError as error:
        raise UndecodableError(path, error.strerror or str(error)) from error
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = getattr(error, "error_string", "headerless audio")
        if "not a regular file" in reason:  # which it is: libsndfile says so of an MP3 without a frame of sound
            reason = "no audio in it that can be decoded"
        raise _ForeignError(path, reason) from error


def probe(path: Path | str) -> Info:
    """Read the header; raises `UndecodableError` if libsndfile cannot open the file, or on an absurd or empty one."""
    with _opened(path) as file:
        return _checked(path, file)


def _checked(path: Path | str, file: soundfile.SoundFile) -> Info:
    info = Info(file.samplerate, file.channels, file.frames)
    if not (1000 <= info.rate <= 1_000_000 and info.channels <= 64):
        raise UndecodableError(path, f"absurd header: {info.rate} Hz, {info.channels} channels")
    if info.frames >= 1 << 40:  # a FLAC that came out of a pipe; `seekable` has ffmpeg measure it
        raise _ForeignError(path, f"length unknown or absurd: {info.frames} frames")
    cut = CUT.search(file.extra_info)
    # programs that write into a pipe leave a length of about 2^31 or 2^32 in the header; that is no truncation
    if cut and int(cut[2]) < int(cut[1]) < 0x7FFF0000:
        raise UndecodableError(path, f"truncated: {cut[2]} of {cut[1]} bytes of audio")
    if info.frames < 1:
        raise _ForeignError(path, NO_AUDIO)
    return info


def read(path: Path | str, start: int = 0, frames: int | None = None, rate: int | None = None) -> np.ndarray:
    """Decode ``frames`` frames from ``start`` (counted in the file's own rate; fewer at its end) -> float32 [2, T].

    Mono is doubled, of more than 2 channels the first two are kept; with ``rate`` the result is resampled to it.
    Raises `UndecodableError` for a file that breaks off before its header says, or holds NaN or infinity.
    """
    with _opened(path) as file:
        info = _checked(path, file)
        stop = info.frames if frames is None else min(start + frames, info.frames)
        try:
            wave = np.empty((2, max(stop - start, 0)), np.float32)
        except MemoryError as error:
            raise UndecodableError(path, f"absurd header: {info.frames} frames") from error
        for at in range(0, wave.shape[1], BLOCK):
            count = min(BLOCK, wave.shape[1] - at)
            early = _lead_in(file, path, start + at)
            file.seek(start + at - early)
            block = file.read(early + count, dtype="float32", always_2d=True)[early:]
            # an MP3 header may count a few codec frames more than there are: a shortfall under 0.1 s is silence
            if count - len(block) > info.rate // 10:
                raise UndecodableError(path, f"truncated: ends after {(start + at + len(block)) / info.rate:.1f} s")
            # integers are finite: checking them would take 4% of the time of reading them
            if not file.subtype.startswith("PCM") and not np.isfinite(block).all():
                raise UndecodableError(path, "holds NaN or infinite samples")
            wave[:, at : at + len(block)] = block[:, :2].T
            wave[:, at + len(block) : at + count] = 0
    return wave if rate is None else resample(wave, info.rate, rate)


def _lead_in(file: soundfile.SoundFile, path: Path | str, frame: int) -> int:
    """How many frames before ``frame`` to decode as well, where libsndfile's seeking gives other samples than reading.

    Within the last page of a Vorbis file it is off by what its end trims; MP3 frames need the bits of earlier ones.
    """
    if file.format == "MP3":
        return min(frame, RESERVOIR)
    if file.subtype == "VORBIS":
        return max(frame - max(lengths.last_page(Path(path)) - VORBIS_BLOCK, 0), 0)
    return 0


def stays_below(path: Path | str, peak: float = SILENT_PEAK) -> bool:
    """Whether no sample reaches ``peak``; decodes up to the first block in which one does. Raises: as `read`."""
    frames = probe(path).frames
    return all(np.abs(read(path, at, 1 << 16)).max() < peak for at in range(0, frames, 1 << 16))


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Polyphase resampling [..., T] -> [..., ceil(T * new_rate / rate)]: single-threaded, so always the same bits.

    scipy's filter stays: torchaudio's is less exact by default, and with a longer Kaiser window (width 32, rolloff
    0.945, beta 10) more exact but takes 1.6 times as long for a crop. Other bits would give every run another name.
    """
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # here, for it takes a second, in every process that scans

    up, down, _ = _ratio(rate, new_rate)
    return resample_poly(wave, up, down, axis=-1, window=_low_pass(max(up, down)).astype(wave.dtype))


@lru_cache
def _low_pass(ratio: int) -> np.ndarray:
    """The filter that scipy designs at every call, which takes a sixth of the time of reading a crop."""
    from scipy.signal import firwin

    return firwin(20 * ratio + 1, 1 / ratio, window=("kaiser", 5.0))


def _ratio(rate: int, new_rate: int) -> tuple[int, int, int]:
    """(up, down, margin): ``up`` new samples for ``down`` old ones, and how many such periods the filter reaches."""
    divisor = math.gcd(rate, new_rate)
    up, down = new_rate // divisor, rate // divisor
    return up, down, math.ceil((10 * max(up, down) / up + 1) / down)  # scipy's resample_poly: 10 zero crossings a side


class Song:
    """A file on disk that is sliced like an array [2, T] at ``rate``; only the slice asked for is decoded."""

    def __init__(self, path: Path, rate: int):
        self.path, self.rate, self.info = path, rate, probe(path)
        self.shape = (2, math.ceil(self.info.frames * rate / self.info.rate))

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = key[1].indices(self.shape[1])
        up, down, margin = _ratio(self.info.rate, self.rate)
        if up == down:
            return read(self.path, start, stop - start)
        period = max(start // up - margin, 0)
        frames = (math.ceil(stop / up) + margin - period) * down
        wave = read(self.path, period * down, frames, self.rate)
        return wave[:, start - period * up : stop - period * up]


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int, length: int) -> Iterator[np.ndarray]:
    """Resample consecutive blocks [..., n] as if they were one array; yields ``length`` samples in all."""
    up, down, margin = _ratio(rate, new_rate)
    if up == down:
        yield from blocks
        return
    kept, period, sent = None, 0, 0  # the input from ``period * down`` on is kept; ``sent`` samples are out
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            kept = block if kept is None else np.concatenate([kept, block], axis=-1)
        ready = length if block is None else (period + kept.shape[-1] // down - margin) * up
        if kept is not None and ready > sent:
            yield resample(kept, rate, new_rate)[..., sent - period * up : ready - period * up]
            sent, following = ready, max(ready // up - margin, 0)
            kept, period = kept[..., (following - period) * down :], following


def stamp(path: Path) -> list[int]:
    """Size in bytes and time in ns of a file; empty if there is none."""
    try:
        return [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []


def seekable(path: Path | str, cache: Path | str, compact: bool = False) -> Path:
    """``path`` if libsndfile reads all of it, else its first audio stream as float WAV in ``cache``, made once.

    More than two channels are folded down to stereo by their layout (ITU-R BS.775). If ``compact``, what stays below
    full scale is stored as FLAC of 24 bits, within 2^-24 of it. Raises: UndecodableError.
    """
    path, cache = Path(path), Path(cache)
    name = fingerprint([os.path.realpath(path), stamp(path)])  # of a link to itself as well
    for suffix in (".wav", ".flac"):
        if (cache / f"{name}{suffix}").exists():
            return cache / f"{name}{suffix}"
    try:
        if _whole(path, cache / f"{name}.whole"):
            return path
        finished = not lengths.unfinished(path)
    except _ForeignError as error:
        finished = error.reason != NO_AUDIO and not lengths.unfinished(path)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as scratch:
        wave = Path(scratch, "decoded.wav")
        decode(path, wave, strict=finished)
        wave = _compressed(wave) if compact else wave
        with atomic(cache / f"{name}{wave.suffix}") as temporary:
            os.replace(wave, temporary)
    return cache / f"{name}{wave.suffix}"


def _compressed(wave: Path) -> Path:
    """A float WAV as FLAC beside it; itself if it is too loud for that, or its rate too high."""
    target, info = wave.with_suffix(".flac"), probe(wave)
    if not stays_below(wave, 1.0):
        return wave
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(wave) as source:
        with soundfile.SoundFile(target, "w", info.rate, info.channels, "PCM_24", format="FLAC") as file:
            for block in source.blocks(BLOCK, dtype="float32", always_2d=True):
                file.write(block)
        return target
    return wave


def channels(path: Path | str) -> int:
    """How many channels a file has, 0 if neither libsndfile nor ffprobe can say."""
    with contextlib.suppress(UndecodableError):
        return probe(path).channels
    shown = ["-select_streams", "a:0", "-show_entries", "stream=channels", "-of", "csv=p=0"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["ffprobe", "-v", "error", *shown, f"file:{Path(path).resolve()}"]
        found = subprocess.run(command, capture_output=True, timeout=FFMPEG_SECONDS, text=True).stdout
        return int(re.match(r"\d*", found)[0] or 0)
    return 0


def _whole(path: Path, mark: Path) -> bool:
    """Whether what libsndfile reads of a file is all of it. Raises: UndecodableError if it cannot, or part is gone.

    Of Opus only decoding tells: ``mark`` is an empty file that remembers that it does.
    """
    with _opened(path) as file:
        info, kind, coding = _checked(path, file), file.format, file.subtype
    if kind == "MP3":
        held = lengths.mpeg(path)
        if held.declared - held.samples > MPEG_SLACK:
            raise UndecodableError(path, f"truncated: {held.samples} of {held.declared} samples")
        return info.channels <= 2 and (not held.samples or abs(held.samples - info.frames) <= MPEG_SLACK)
    if kind == "OGG":
        chained, cut = lengths.ogg(path)
        if cut:
            raise UndecodableError(path, "truncated: its last page breaks off")
        opus = coding == "OPUS"
        known = opus and mark.exists()
        if chained or not (known or _decodes(path, whole=opus)):
            return False
        if opus and info.channels <= 2:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return info.channels <= 2 and not lengths.unfinished(path)


def _decodes(path: Path, whole: bool) -> bool:
    """Whether libsndfile gives the same samples of an Ogg file by seeking and by reading, and gets to its end.

    In a stream cut out of another it seeks to other places, in ffmpeg's Opus it takes some pages for malformed.
    """
    with contextlib.suppress(UndecodableError), _opened(path) as file:
        wave = file.read(OGG_PROBE, dtype="float32", always_2d=True)[:, :2].T
        at = max(wave.shape[1] - 4096, 0)
        if not np.allclose(read(path, at, wave.shape[1] - at), wave[:, at:], atol=1e-3):
            return False
        while whole and file.read(BLOCK, dtype="float32").shape[0]:
            pass
        return not whole or file.tell() >= file.frames
    return False


def run_ffmpeg(arguments: Sequence[str], data: bytes = b"", strict: bool = True) -> subprocess.CompletedProcess:
    """Run ffmpeg with ``data`` on its standard input; if ``strict``, damage in what it reads is an error."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *(["-xerror"] if strict else []), *arguments]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=FFMPEG_SECONDS)
    except FileNotFoundError as error:
        raise UserError("ffmpeg is not on PATH: run ./run_all.sh, which provides it, or install it") from error
    done.stderr = done.stderr.decode("utf-8", "replace")
    return done


def decode(source: Path, target: Path, stream: int = 0, coding: str = "pcm_f32le", strict: bool = True) -> None:
    """An audio stream of a file as stereo, or mono, WAV in one of ffmpeg's codings. Raises: UndecodableError.

    If not ``strict``, up to the first fault, and of a WAV to the end of the file, whatever its header says.
    """
    # "file:" keeps ffmpeg from reading options or protocols out of odd names
    allowed = ["-protocol_whitelist", "file", "-format_whitelist", ",".join(FORMATS)]
    with open(source, "rb") as file:
        allowed += [] if strict or file.read(4) not in (b"RIFF", b"RF64") else ["-ignore_length", "1"]
    # samples follow one another, whatever the stamps of streams in a chain say
    filters = "asetpts=N/SR/TB,aformat=sample_fmts=flt:channel_layouts=mono|stereo"
    taken = [*allowed, "-i", f"file:{source.resolve()}", "-map", f"0:a:{stream}", "-af", filters]
    written = ["-map_metadata", "-1", "-fflags", "+bitexact", "-c:a", coding, "-rf64", "auto", "-f", "wav"]
    arguments = [*taken, *written, "-y", f"file:{target.resolve()}"]
    try:
        done = run_ffmpeg(arguments, strict=strict)
        if done.returncode and _joined(source):
            done = run_ffmpeg(arguments, strict=False)
    except subprocess.TimeoutExpired as error:
        raise UndecodableError(source, f"ffmpeg took longer than {FFMPEG_SECONDS} s") from error
    if done.returncode:
        begun = target.exists() and target.stat().st_size > 1 << 12
        raise UndecodableError(source, _why(done.stderr.replace(f"file:{source.resolve()}: ", ""), begun))
    try:
        probe(target)
    except UndecodableError as error:
        raise UndecodableError(source, error.reason) from error


def _joined(path: Path) -> bool:
    """Whether a file is MPEG audio almost throughout: tags between files that were put together are no damage."""
    with contextlib.suppress(OSError, ValueError):
        return lengths.mpeg(path).bytes > 0.99 * path.stat().st_size
    return False


def _why(messages: str, begun: bool) -> str:
    """One line out of ffmpeg's: the last ones are often about its options, or about what one error led to."""
    if "matches no streams" in messages:
        return "no audio in it"
    lines = re.sub(r"\[(\S+) @ \w+\]", r"\1:", messages.strip()).splitlines() or ["unknown error"]
    said = next((line for line in lines if "Invalid data found" in line), lines[-1])
    if begun:
        return f"damaged or cut off: ffmpeg cannot decode all of it. {said}"
    return f"ffmpeg cannot decode it, is it audio at all? {said}"


@contextlib.contextmanager
def writer(path: Path | str, rate: int, frames: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a stereo float32 WAV of about ``frames`` frames by calls of the yielded ``put(wave [2, n])``; atomic."""
    container = "WAV" if frames * 8 < 0xFFFF0000 else "RF64"
    with atomic(path) as temporary:
        with soundfile.SoundFile(os.fsencode(temporary), "w", rate, 2, "FLOAT", format=container) as file:

            def put(wave: np.ndarray) -> None:
                if not np.isfinite(wave).all():
                    raise UserError(f"{path}: refusing to write NaN or infinite samples")
                file.write(np.asarray(wave, np.float32).T)

            yield put
        with open(temporary, "r+b") as file:  # libsndfile stamps the time into a PEAK chunk: equal audio, equal bytes
            peak = file.read(128).find(b"PEAK")
            if peak >= 0:
                file.seek(peak + 12)
                file.write(bytes(4))


def write(path: Path | str, wave: np.ndarray, rate: int) -> None:
    """Write ``wave`` [2, T] as float32 WAV, atomically; refuses NaN and infinity."""
    with writer(path, rate, wave.shape[-1]) as put:
        put(wave)
