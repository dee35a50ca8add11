"""Audio files: probe, decode by seeking, resample, write. Waves are float32 [2, samples]."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from math import gcd
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
MPEG_SLACK = 4 * 1152
"""Samples by which two counts of an MP3 may differ: its encoder's delay and padding, which players take away."""
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


class Info(NamedTuple):
    """Sample rate in Hz, channels and frames (samples per channel), as the file's header gives them."""

    rate: int
    channels: int
    frames: int


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[soundfile.SoundFile]:
    if not Path(path).is_file():
        raise UndecodableError(path, "no such file")
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = getattr(error, "error_string", "headerless audio")
        if "not a regular file" in reason:  # which it is: libsndfile says so of an MP3 without a frame of sound
            reason = "no audio in it that can be decoded"
        raise UndecodableError(path, reason) from error


def probe(path: Path | str) -> Info:
    """Read the header; raises `UndecodableError` if libsndfile cannot open the file, or on an absurd or empty one."""
    with _opened(path) as file:
        return _checked(path, file)


def _checked(path: Path | str, file: soundfile.SoundFile) -> Info:
    info = Info(file.samplerate, file.channels, file.frames)
    if not (1000 <= info.rate <= 1_000_000 and info.channels <= 64):
        raise UndecodableError(path, f"absurd header: {info.rate} Hz, {info.channels} channels")
    if info.frames >= 1 << 40:  # a FLAC that came out of a pipe; `seekable` has ffmpeg measure it
        raise UndecodableError(path, f"length unknown or absurd: {info.frames} frames")
    cut = CUT.search(file.extra_info)
    # programs that write into a pipe leave a length of about 2^31 or 2^32 in the header; that is no truncation
    if cut and int(cut[2]) < int(cut[1]) < 0x7FFF0000:
        raise UndecodableError(path, f"truncated: {cut[2]} of {cut[1]} bytes of audio")
    if info.frames < 1:
        raise UndecodableError(path, "holds no audio")
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
        _seek(file, path, min(start, info.frames))
        for at in range(0, wave.shape[1], BLOCK):
            count = min(BLOCK, wave.shape[1] - at)
            block = file.read(count, dtype="float32", always_2d=True)
            # an MP3 header may count a few codec frames more than there are: a shortfall under 0.1 s is silence
            if count - len(block) > info.rate // 10:
                raise UndecodableError(path, f"truncated: ends after {(start + at + len(block)) / info.rate:.1f} s")
            # integers are finite: checking them would take 4% of the time of reading them
            if not file.subtype.startswith("PCM") and not np.isfinite(block).all():
                raise UndecodableError(path, "holds NaN or infinite samples")
            wave[:, at : at + len(block)] = block[:, :2].T
            wave[:, at + len(block) : at + count] = 0
    return wave if rate is None else resample(wave, info.rate, rate)


def _seek(file: soundfile.SoundFile, path: Path | str, frame: int) -> None:
    """Go to ``frame``. Within the last page of a Vorbis file libsndfile is off by what its end trims: read up to it."""
    file.seek(frame)
    if file.subtype == "VORBIS" and frame > (sure := max(lengths.last_page(Path(path)) - VORBIS_BLOCK, 0)):
        file.seek(sure)
        file.read(frame - sure, dtype="float32")


def is_silent(path: Path | str) -> bool:
    """Whether a file stays below `SILENT_PEAK`; decodes up to the first block that does not. Raises: as `read`."""
    frames = probe(path).frames
    return all(np.abs(read(path, at, 1 << 16)).max() < SILENT_PEAK for at in range(0, frames, 1 << 16))


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Polyphase resampling [..., T] -> [..., ceil(T * new_rate / rate)]: single-threaded, so always the same bits."""
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # here, for it takes a second, in every process that scans

    divisor = gcd(rate, new_rate)
    return resample_poly(wave, new_rate // divisor, rate // divisor, axis=-1)


def stamp(path: Path) -> list[int]:
    """Size in bytes and time in ns of a file; empty if there is none."""
    try:
        return [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []


def seekable(path: Path | str, cache: Path | str) -> Path:
    """``path`` if libsndfile reads all of it, else its first audio stream as float WAV in ``cache``, made once.

    More than two channels are folded down to stereo by their layout (ITU-R BS.775). Raises: UndecodableError.
    """
    path, strict = Path(path), True
    try:
        if _whole(path):
            return path
    except UndecodableError as error:
        if error.reason.startswith(("no such file", "absurd", "truncated", "holds NaN")):
            raise
        strict = error.reason != "holds no audio"  # a WAV that was never finished: to its end, wherever that is
    decoded = Path(cache) / f"{fingerprint([str(path.resolve()), stamp(path)])}.wav"
    if not decoded.exists():
        with atomic(decoded) as temporary:
            _decode(path, temporary, strict)
    return decoded


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


def _whole(path: Path) -> bool:
    """Whether what libsndfile reads of a file is all of it. Raises: UndecodableError if it cannot, or part is gone."""
    with _opened(path) as file:
        info, kind, coding = _checked(path, file), file.format, file.subtype
    if kind == "MP3":
        held = lengths.mpeg(path)
        if held.declared - held.samples > MPEG_SLACK:
            raise UndecodableError(path, f"truncated: {held.samples} of {held.declared} samples")
        return info.channels <= 2 and (not held.samples or abs(held.samples - info.frames) <= MPEG_SLACK)
    if kind == "OGG" and (lengths.links(path) > 1 or (coding == "OPUS" and not _decodes(path))):
        return False
    return info.channels <= 2


def _decodes(path: Path) -> bool:
    """Whether libsndfile gets through a file: in ffmpeg's Opus files it takes some pages for malformed."""
    with contextlib.suppress(UndecodableError), _opened(path) as file:
        while file.read(BLOCK, dtype="float32").shape[0]:
            pass
        return file.tell() >= file.frames
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


def _decode(source: Path, target: Path, strict: bool) -> None:
    # "file:" keeps ffmpeg from reading options or protocols out of odd names
    allowed = ["-protocol_whitelist", "file", "-format_whitelist", ",".join(FORMATS)]
    # samples follow one another, whatever the stamps of streams in a chain say
    filters = "asetpts=N/SR/TB,aformat=sample_fmts=flt:channel_layouts=mono|stereo"
    stream = [*allowed, "-i", f"file:{source.resolve()}", "-map", "0:a:0", "-af", filters]
    coding = ["-map_metadata", "-1", "-fflags", "+bitexact", "-c:a", "pcm_f32le", "-rf64", "auto", "-f", "wav"]
    arguments = [*stream, *coding, "-y", f"file:{target.resolve()}"]
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
def writer(path: Path | str, rate: int, frames: int, subtype: str = "FLOAT") -> Iterator[Callable[[np.ndarray], None]]:
    """Write a stereo WAV of about ``frames`` frames block by block with the yielded ``put(wave [2, n])``; atomic."""
    container = "WAV" if frames * 8 < 0xFFFF0000 else "RF64"
    with atomic(path) as temporary:
        with soundfile.SoundFile(temporary, "w", rate, 2, subtype, format=container) as file:

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


def write(path: Path | str, wave: np.ndarray, rate: int, subtype: str = "FLOAT") -> None:
    """Write ``wave`` [2, T] as WAV (float32 unless ``subtype`` is given), atomically; refuses NaN and infinity."""
    with writer(path, rate, wave.shape[-1], subtype) as put:
        put(wave)
