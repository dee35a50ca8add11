"""The embedded corpus: composed songs played by a sound font, in the folder layouts of MUSDB18-HQ and FMA."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import tinysoundfont
from scipy.signal import fftconvolve, iirpeak, lfilter
from tqdm.auto import tqdm

from lib import STEMS, UserError
from lib.audio import run_ffmpeg
from lib.corpora.compose import Note, Part, Song, Voice, compose
from lib.profile import Rendered
from lib.runs import atomic, code_fingerprint, held, write_json
from lib.stopping import end_with_parent

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FIRST_ID = 2  # FMA's first track
CONTROL = 0.01  # seconds between two values of a pitch or loudness curve
BEND_RANGE = 24  # semitones either way
PEAK = 0.89
ARITHMETIC = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Haswell"}
"""Environment in which songs are rendered on x86-64: NumPy and OpenBLAS compute as if AVX2 were the most there is.

With AVX-512 their last bits differ, and with them the digests of the songs, by which runs have their names.
"""

# Formants of five vowels in Hz (a e i o u, a tenor's after the tables in the Csound manual), bandwidths, gains in dB.
VOWELS = np.array([[650, 1080, 2650], [400, 1700, 2600], [290, 1870, 2800], [400, 800, 2600], [350, 600, 2700]])
BANDWIDTHS = (80, 100, 140)
FORMANT_DB = np.array([[0, -6, -9], [0, -10, -11], [0, -12, -14], [0, -8, -14], [0, -14, -18]])


def build(settings: Rendered, rate: int, root: Path, workers: int | None = None) -> Path:
    """Make the corpus at ``rate`` Hz under ``root``, or what is missing of it, and return ``root``.

    ``labeled/{train,test}/NAME/{mixture,bass,drums,vocals,other}.wav`` (stereo, 24 bits, the mixture being the sum of
    the stems to the last bit; the validation songs are the last of ``train`` in sorted order),
    ``unlabeled/000/000002.mp3`` with ``unlabeled/fma_metadata/tracks.csv``, and ``songs.json``, which describes every
    song. Where the settings say so, the stems of the unlabelled songs are dealt anew (`deal`). The files depend on
    ``settings`` and ``rate`` alone, not on ``workers``. Raises `UserError` for a rate that MP3 has not, or songs too
    short to hold a phrase.
    """
    if rate not in MP3_RATES:
        raise UserError(f"audio.rate: MP3 cannot hold {rate} Hz, choose one of {', '.join(map(str, MP3_RATES))}")
    if settings.song_seconds < 2:
        raise UserError(f"corpus.rendered.song_seconds: {settings.song_seconds} is too short, choose at least 2")
    root = Path(root)
    plan = {"settings": asdict(settings), "rate": rate, "code": code_fingerprint("corpora/compose", "corpora/rendered")}
    if _read_json(root / "complete.json") == plan:
        return root
    with held(root / "lock"):  # a notebook opened while a study runs may ask for the same songs
        if _read_json(root / "complete.json") != plan:
            _build(settings, rate, root, workers, plan)
    return root


def _build(settings: Rendered, rate: int, root: Path, workers: int | None, plan: dict) -> None:
    if _read_json(root / "plan.json") != plan:
        for name in ("complete.json", "plan.json"):
            (root / name).unlink(missing_ok=True)
        for name in ("labeled", "unlabeled"):
            shutil.rmtree(root / name, ignore_errors=True)
        write_json(root / "plan.json", plan)
    shutil.rmtree(root / "partial", ignore_errors=True)  # what a build that was cut off had in hand
    (root / "partial").mkdir()
    counts = {"train": settings.train_songs, "valid": settings.validation_songs, "test": settings.test_songs}
    tasks = [(kind, (index,)) for kind, count in counts.items() for index in range(count)]
    tasks += [("unlabeled", group) for group in _unlabeled_groups(settings)]
    made = _run(partial(_make, settings, rate, root), tasks, workers or len(os.sched_getaffinity(0)))
    songs = [song for group in made for song in group]
    songs.sort(key=lambda song: song.get("track_id", 0))  # stable: labelled songs first, in their order
    with atomic(root / "songs.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(map(json.dumps, songs)) + "\n]\n", "utf-8")
    _write_tracks(root / "unlabeled" / "fma_metadata" / "tracks.csv", [s for s in songs if "track_id" in s])
    (root / "partial").rmdir()
    write_json(root / "complete.json", plan)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _unlabeled_groups(settings: Rendered) -> list[tuple[int, ...]]:
    if not settings.redealt:
        return [(index,) for index in range(settings.unlabeled_songs)]
    songs = range(settings.unlabeled_songs)
    return deal([compose(settings.seed, "unlabeled", index, settings.song_seconds) for index in songs])


def deal(songs: list[Song]) -> list[tuple[int, ...]]:
    """Groups of as many songs as there are stems, which differ in tempo and key as far as the songs allow.

    One song comes from each quarter of the tempi; within a quarter songs lie by key, and the quarters are turned
    against each other by a quarter of the keys. Songs left over in an incomplete group are not dealt.
    """
    by_tempo = sorted(range(len(songs)), key=lambda i: songs[i].bpm)
    size, parts = len(songs) // len(STEMS), range(len(STEMS))
    by_key = [sorted(by_tempo[q * size : (q + 1) * size], key=lambda i: songs[i].key) for q in parts]
    turned = [np.roll(quarter, q * size // len(STEMS)).tolist() for q, quarter in zip(parts, by_key, strict=True)]
    return list(zip(*turned, strict=True))


def _run(make, tasks: list[tuple[str, tuple[int, ...]]], workers: int) -> list[list[dict]]:
    progress = partial(tqdm, total=len(tasks), desc="rendering songs", unit="song", mininterval=1.0)
    # spawned, for NumPy looks at the environment once, and the caller may hold threads that a fork would break
    context = multiprocessing.get_context("spawn")
    with same_arithmetic(), ProcessPoolExecutor(workers, context, end_with_parent) as pool:
        return list(progress(pool.map(make, tasks)))


@contextlib.contextmanager
def same_arithmetic() -> Iterator[None]:
    """Processes started within compute as `ARITHMETIC` says, so that any x86-64 machine renders the same songs."""
    changed = ARITHMETIC if platform.machine().lower() in ("x86_64", "amd64") else {}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _make(settings: Rendered, rate: int, root: Path, task: tuple[str, tuple[int, ...]]) -> list[dict]:
    """Write one song, or one group of unlabelled songs, unless it is there; return the descriptions."""
    kind, group = task
    songs = [compose(settings.seed, kind, index, settings.song_seconds) for index in group]
    return (
        _make_unlabeled(songs, group, rate, root)
        if kind == "unlabeled"
        else [_make_labeled(songs[0], rate, root, kind)]
    )


def _make_unlabeled(songs: list[Song], group: tuple[int, ...], rate: int, root: Path) -> list[dict]:
    """As many mixtures as songs; stem k of mixture i is that of song i + k, around the group."""
    tracks = [FIRST_ID + index for index in group]
    paths = [root / "unlabeled" / f"{track // 1000:03d}" / f"{track:06d}.mp3" for track in tracks]
    if not all(path.exists() for path in paths):
        stems = np.stack([render(song, rate) for song in songs])
        for first, path in enumerate(paths):
            mixture = sum(stems[(first + k) % len(songs), k] for k in range(len(STEMS)))
            peak, temporary = np.abs(mixture).max(), root / "partial" / path.name
            write_mp3(temporary, mixture * (PEAK / peak) if peak > 1 else mixture, rate)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
    descriptions = [{"split": "unlabeled", "track_id": track} for track in tracks]
    return [known | song.describe() for known, song in zip(descriptions, songs, strict=True)]


def _make_labeled(song: Song, rate: int, root: Path, kind: str) -> dict:
    folder = root / "labeled" / ("test" if kind == "test" else "train") / song.name
    if not folder.exists():
        temporary = root / "partial" / song.name
        temporary.mkdir()
        stems = np.round(render(song, rate) * 2**23).astype(np.int32)
        for name, wave in zip(("mixture", *STEMS), (stems.sum(0, dtype=np.int32), *stems), strict=True):
            soundfile.write(temporary / f"{name}.wav", wave.T << 8, rate, subtype="PCM_24")
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, folder)
    return {"split": "validation" if kind == "valid" else kind} | song.describe()


def write_mp3(path: Path, wave: np.ndarray, rate: int) -> None:
    """Encode ``wave`` [2, T] at LAME's best variable bit rate; equal waves give equal bytes."""
    # by ffmpeg: its LAME takes 0.4 of the time of soundfile's; effort 5 comes as close to the wave as more effort does
    source = ["-f", "f32le", "-ar", str(rate), "-ac", "2", "-i", "pipe:0"]
    coding = ["-c:a", "libmp3lame", "-q:a", "0", "-compression_level", "5"]
    coding += ["-flags:a", "+bitexact", "-fflags", "+bitexact", "-f", "mp3"]
    done = run_ffmpeg([*source, *coding, "-y", f"file:{path.resolve()}"], wave.T.astype("<f4").tobytes())
    if done.returncode:
        raise UserError(f"{path}: ffmpeg cannot write it: {' '.join(done.stderr.split()) or 'unknown error'}")


def _write_tracks(path: Path, songs: list[dict]) -> None:
    """FMA's ``tracks.csv``: two header rows, a row with the index's name, one row a track (about 90/5/5 %)."""
    header = [("artist", "name"), ("set", "split"), ("set", "subset"), ("track", "duration"), ("track", "genre_top"),
              ("track", "title")]  # fmt: skip
    validation = max(min(1 + (len(songs) >= 20), len(songs) - 1), round(len(songs) / 20))
    splits = ["validation"] * validation + ["test"] * round(len(songs) / 20)
    splits = ["training"] * (len(songs) - len(splits)) + splits
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows(["", *names] for names in zip(*header, strict=True))
        rows.writerow(["track_id", *[""] * len(header)])
        for song, split in zip(songs, splits, strict=True):
            artist, title = f"Rendered {song['groove']}", song["name"].split(" - ")[1]
            rows.writerow([song["track_id"], artist, split, "small", int(song["seconds"]), song["genre"], title])


def render(song: Song, rate: int) -> np.ndarray:
    """Play a song: stems [4, 2, T] float32 in the order of `lib.STEMS`; their sum, the mixture, peaks below 0.9."""
    frames = round(song.seconds * rate)
    stems, sends = np.zeros((2, len(STEMS), 2, frames), np.float32)
    rng = np.random.default_rng([*song.seed, 1])
    for part in song.parts:
        wave = _sing(part, rate, frames, rng) if part.voice else _play(part, rate, frames)
        loudness = np.abs(wave).max() if part.stem == "drums" else 5 * _active_rms(wave, rate)
        left_right = np.sqrt([1 - part.pan, 1 + part.pan]) * part.level / max(loudness, 1e-6)
        placed = left_right[:, None].astype(np.float32) * wave
        stems[STEMS.index(part.stem)] += placed
        sends[STEMS.index(part.stem)] += part.send * placed
    stems += fftconvolve(sends, _room(song.room_seconds, rate, rng)[None], axes=-1)[..., :frames]
    for stem, name in zip(stems, STEMS, strict=True):
        stem *= 10 ** (song.levels_db[name] / 20) / max(_active_rms(stem, rate), 1e-6)
    stems *= _bus_gain(stems.sum(0), song.ratio, rate)
    return stems * (PEAK / max(np.abs(stems).max(), np.abs(stems.sum(0)).max()))


def _active_rms(wave: np.ndarray, rate: int) -> float:
    """RMS over the 0.1 s blocks within 40 dB of the loudest one."""
    size = rate // 10
    power = np.square(wave[:, : wave.shape[-1] // size * size]).reshape(2, -1, size).mean((0, 2))
    return float(np.sqrt(power[power >= 1e-4 * power.max()].mean()))


@cache
def _font():
    """The sound font, parsed once a process: parsing takes longer than playing a part."""
    synth = tinysoundfont.Synth()
    return synth.soundfonts[synth.sfload((resources.files("pretty_midi") / "TimGM6mb.sf2").read_bytes())]


def _synth(part: Part, rate: int) -> tinysoundfont.Synth:
    """A fresh synthesiser with the part's program on channel 0, so that nothing rings over from another part."""
    synth = tinysoundfont.Synth(samplerate=rate)
    font, drums = synth.sfload(_font()), part.stem == "drums"  # a loaded font is cloned: shared samples, no voices
    synth.program_select(0, font, 128 if drums else 0, part.program, drums)
    synth.set_tuning(0, part.tuning)
    return synth


def _generate(synth: tinysoundfont.Synth, events: list[tuple], rate: int, frames: int) -> np.ndarray:
    """Play (seconds, order, action) in time order: [2, T]."""
    wave = np.zeros((frames, 2), np.float32)
    view, done = memoryview(wave).cast("B"), 0
    for seconds, _, action in sorted(events, key=lambda event: event[:2]):
        place = min(round(seconds * rate), frames)
        if place > done:
            synth.generate_simple(place - done, view[8 * done : 8 * place])
            done = place
        action()
    if done < frames:
        synth.generate_simple(frames - done, view[8 * done :])
    return np.ascontiguousarray(wave.T)


def _play(part: Part, rate: int, frames: int) -> np.ndarray:
    synth, events = _synth(part, rate), []
    for note in part.notes:
        events.append((note.start, 1, partial(synth.noteon, 0, note.pitch, note.velocity)))
        events.append((note.end, 0, partial(synth.noteoff, 0, note.pitch)))
    return _generate(synth, events, rate, frames)


def words(notes: tuple[Note, ...]) -> list[tuple[Note, ...]]:
    """Notes grouped so that each group is sung in one breath, gliding from note to note."""
    starts = [i for i, note in enumerate(notes) if not note.tied]
    return [notes[first:end] for first, end in pairwise([*starts, len(notes)])]


def pitch_curve(word: tuple[Note, ...], voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and MIDI pitches of a word: a scoop into it, glides between notes, vibrato on long notes."""
    times = np.arange(word[0].start, word[-1].end, CONTROL)
    pitch = word[0].pitch - voice.scoop * np.exp((word[0].start - times) / 0.04)
    for before, note in pairwise(word):
        width = min(voice.glide_seconds, 0.7 * (note.end - note.start))
        rise = np.clip((times - note.start) / width + 0.5, 0, 1)
        pitch += (note.pitch - before.pitch) * rise**2 * (3 - 2 * rise)
    for note in word:
        held = (times - note.start) * (times < note.end)
        depth = voice.vibrato_semitones * np.clip((held - 0.2) / 0.3, 0, 1)
        pitch += depth * np.sin(2 * np.pi * voice.vibrato_hz * held)
    return times, pitch


def _sing(part: Part, rate: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The lead: one synthesiser note a word, bent along the pitch curve, shaped by vowels, consonants and breath."""
    synth, voice, events = _synth(part, rate), part.voice, []
    synth.pitchbend_range(0, BEND_RANGE)
    grid = np.arange(0, frames / rate + CONTROL, CONTROL)
    loudness, vowel = np.zeros((2, len(grid)))
    burst = np.zeros(len(grid))
    end = 0.0
    for word in words(part.notes):
        base = round(float(np.median([note.pitch for note in word])))
        times, pitch = pitch_curve(word, voice)
        bends = np.round(8192 * (1 + np.clip((pitch - base) / BEND_RANGE, -1, 0.9998))).astype(int)
        events += [(time, 1, partial(synth.pitchbend, 0, int(b))) for time, b in zip(times, bends, strict=True)]
        events.append((word[0].start, 0, synth.sounds_off))
        events.append((word[0].start, 2, partial(synth.noteon, 0, base, 100)))
        for note in word:
            vowel[grid >= note.start - 0.02] = rng.choice(voice.vowels)
            inside = (grid >= note.start) & (grid <= note.end)
            loudness[inside] = (note.velocity / 100) ** 2
            loudness[inside & (grid < note.start + 0.03)] *= 0.4  # a new syllable
        loudness[(grid > word[-1].end - 0.04) & (grid <= word[-1].end)] *= 0.3
        if rng.random() < 0.6:  # a consonant; before it, where there is time, a breath
            burst[(grid > word[0].start - rng.uniform(0.04, 0.1)) & (grid < word[0].start)] = rng.uniform(0.1, 0.5)
        if word[0].start - end > 0.5:
            burst[(grid > word[0].start - 0.4) & (grid < word[0].start - 0.15)] = 0.06
        end = word[-1].end
    events.append((end + 0.02, 0, synth.sounds_off))
    at = np.arange(frames) / rate
    smooth = partial(np.convolve, np.hanning(7)[1:-1] / np.hanning(7).sum(), mode="same")
    wave = _generate(synth, events, rate, frames).mean(0)
    noise = rng.standard_normal(frames, np.float32)
    wave = (wave / max(np.abs(wave).max(), 1e-6) + voice.breath * noise) * np.interp(at, grid, smooth(loudness))
    shaped = np.zeros_like(wave)
    for number in voice.vowels:
        weight = np.interp(at, grid, smooth((vowel == number).astype(float)))
        shaped += weight * _formants(wave, number, voice.tract, rate)
    wave = voice.formants * shaped / max(shaped.std(), 1e-6) + (1 - voice.formants) * wave / max(wave.std(), 1e-6)
    hiss = np.diff(noise, prepend=0) * np.interp(at, grid, smooth(burst))
    return np.tile((wave + hiss).astype(np.float32), (2, 1))


def _formants(wave: np.ndarray, vowel: int, tract: float, rate: int) -> np.ndarray:
    """Three resonators in parallel, as one filter: it takes no longer than one of them."""
    b, a = np.zeros(1), np.ones(1)
    for frequency, bandwidth, gain_db in zip(VOWELS[vowel] * tract, BANDWIDTHS, FORMANT_DB[vowel], strict=True):
        if frequency < 0.45 * rate:
            peak, poles = iirpeak(frequency, frequency / bandwidth, fs=rate)
            b = np.convolve(b, poles) + 10 ** (gain_db / 20) * np.convolve(a, peak)
            a = np.convolve(a, poles)
    return lfilter(b, a, wave)


def _room(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """An impulse response [2, T] of unit energy: 10 ms of nothing, then noise that falls by 60 dB in ``seconds``."""
    times = np.arange(round(seconds * rate)) / rate
    noise = rng.standard_normal((2, len(times))) * 10 ** (-3 * times / seconds) * (times >= 0.01)
    noise = lfilter([0.5], [1, -0.5], noise)  # high frequencies die first in a room
    return (noise / np.sqrt(np.square(noise).sum(-1, keepdims=True))).astype(np.float32)


def _bus_gain(mixture: np.ndarray, ratio: float, rate: int) -> np.ndarray:
    """A compressor's gain [T] for all stems alike: over the mean level, the mixture grows ``ratio`` times slower."""
    size = round(CONTROL * rate)
    power = np.square(mixture).mean(0)
    power = np.pad(power, (0, -len(power) % size)).reshape(-1, size).mean(-1)
    over = 10 * np.log10(np.maximum(power / max(power.mean(), 1e-12), 1))
    reduction = np.zeros(len(over))
    for i, level in enumerate(over):  # fast when it gets louder, slow when it gets softer
        before = reduction[i - 1] if i else 0.0
        reduction[i] = before + (level - before) * (0.6 if level > before else 0.06)
    gain = 10 ** (-(1 - 1 / ratio) * reduction / 20)
    return np.interp(np.arange(mixture.shape[-1]), (np.arange(len(gain)) + 0.5) * size, gain).astype(np.float32)
